"""Hugging Face's `Sam2VideoModel`, streaming."""

import numpy as np
import torch
import torch.nn.functional as F
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from benchmarks.peers.serve import Clock, Job, serve
from sam2.checkpoint import read_weights
from sam2.hugging_face import to_hugging_face
from sam2.preprocess import to_model_input


class Transformers:
    def __init__(self, job: Job):
        if job.config != "sam2.1_hiera_tiny":
            raise SystemExit("transformers: measured with tiny of 2.1, the size its default configuration has")
        self.model = Sam2VideoModel(Sam2VideoConfig()).eval().to(job.device)
        self.model.load_state_dict(to_hugging_face(read_weights(job.weights)))
        self.job, self.clock = job, Clock()
        self.autocast = torch.autocast("cuda", torch.bfloat16, enabled=job.device != "cpu")
        height, width = job.frames.shape[1:3]
        self.session = Sam2VideoInferenceSession(
            video_height=height, video_width=width, inference_device=job.device, dtype=torch.float32
        )

    def step(self, index: int) -> tuple[np.ndarray, float]:
        self.clock.seconds = 0.0
        with self.clock:
            pixels = to_model_input(self.job.frame(index), 1024)[None]
        if index == 0:
            self._prompt()
        with torch.inference_mode(), self.autocast:
            answer = self.model(inference_session=self.session, frame=pixels)
            self.job.synchronize()
            with self.clock:
                size = (self.session.video_height, self.session.video_width)
                logits = F.interpolate(answer.pred_masks, size, mode="bilinear", align_corners=False)
                masks = (logits[:, 0] > 0).to(torch.uint8).cpu().numpy()
        return masks, self.clock.seconds

    def _prompt(self) -> None:
        size = torch.tensor([self.session.video_width, self.session.video_height])
        for i, box in enumerate(self.job.boxes_xyxy):
            corners = (torch.from_numpy(box).reshape(2, 2) / size * 1024)[None, None]
            inputs = {"point_coords": corners, "point_labels": torch.tensor([[[2, 3]]], dtype=torch.int32)}
            self.session.add_point_inputs(self.session.obj_id_to_idx(i), 0, inputs)
        self.session.obj_with_new_inputs = list(range(len(self.job.boxes_xyxy)))


if __name__ == "__main__":
    serve(Transformers)
