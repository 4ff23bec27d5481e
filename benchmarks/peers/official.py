"""Meta's video predictor (facebookresearch/sam2), run frame by frame over a clip that is decoded as it is asked for.

Needs an interpreter in which `sam2` is Meta's package: `--official-python`.
"""

import sys

import numpy as np
import torch
from PIL import Image
from serve import Clock, Job, serve

MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
CLIP_LENGTH = 10**6  # more than will ever be asked for


class Frames:
    """Stands for the predictor's list of preloaded images."""

    def __init__(self, job: Job, side: int, clock: Clock):
        self.job, self.side, self.clock = job, side, clock

    def __len__(self):
        return CLIP_LENGTH

    def __getitem__(self, index: int) -> torch.Tensor:
        with self.clock:
            resized = Image.fromarray(self.job.frame(index)).resize((self.side, self.side))
            pixels = torch.from_numpy(np.array(resized) / 255.0).permute(2, 0, 1).float()
            return ((pixels - MEAN) / STD).to(self.job.device)


class Official:
    vos_optimized = False

    def __init__(self, job: Job):
        from sam2.build_sam import build_sam2_video_predictor

        size = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}[job.config.partition("_hiera_")[2]]
        version = job.config.partition("_")[0]
        yaml = f"configs/{version}/{version}_hiera_{size}.yaml"
        self.predictor = build_sam2_video_predictor(
            yaml, job.weights, device=job.device, vos_optimized=self.vos_optimized
        )
        self.job, self.clock = job, Clock()
        self.autocast = torch.autocast("cuda", torch.bfloat16, enabled=job.device != "cpu")
        self.state, self.results = self._start(), None

    def _start(self) -> dict:
        from sam2 import sam2_video_predictor

        height, width = self.job.frames.shape[1:3]
        frames = Frames(self.job, self.predictor.image_size, self.clock)
        sam2_video_predictor.load_video_frames = lambda **_: (frames, height, width)
        sam2_video_predictor.tqdm = lambda iterable, **_: iterable
        return self.predictor.init_state(video_path="")

    def step(self, index: int) -> tuple[np.ndarray, float]:
        self.clock.seconds = 0.0
        with torch.inference_mode(), self.autocast:
            if index == 0:
                for i, box in enumerate(self.job.boxes_xyxy):
                    self.predictor.add_new_points_or_box(self.state, 0, i, box=box)
                self.results = self.predictor.propagate_in_video(self.state)
            logits = next(self.results)[2]
            self.job.synchronize()
            with self.clock:
                masks = (logits[:, 0] > 0).to(torch.uint8).cpu().numpy()
        return masks, self.clock.seconds


class OfficialOptimized(Official):
    vos_optimized = True


if __name__ == "__main__":
    serve(OfficialOptimized if sys.argv[-1] == "official_vos_optimized" else Official)
