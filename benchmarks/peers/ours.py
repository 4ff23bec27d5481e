"""`sam2.Tracker`."""

import numpy as np

import sam2
from benchmarks.peers.serve import Clock, Job, serve
from sam2 import frame_step


class Ours:
    def __init__(self, job: Job):
        model = sam2.load_model(job.config, job.weights, device=job.device)
        self.job, self.tracker, self.preprocessing = job, sam2.Tracker(model, batched=job.batched), Clock()
        prepare = frame_step.FrameStep._to_input  # on a GPU the upload, too

        def timed(*arguments):
            with self.preprocessing:
                prepared = prepare(*arguments)
                job.synchronize()
                return prepared

        frame_step.FrameStep._to_input = timed

    def step(self, index: int) -> tuple[np.ndarray, float]:
        prompts = [sam2.Prompt(str(i), box_xyxy=box) for i, box in enumerate(self.job.boxes_xyxy)] if index == 0 else []
        self.preprocessing.seconds = 0.0
        tracks = self.tracker.step(sam2.Frame(self.job.frame(index), stamp_ns=(index + 1) * 10**8), prompts)
        with self.preprocessing:
            masks = np.stack([track.mask.astype(np.uint8) for track in tracks])
        return masks, self.preprocessing.seconds


if __name__ == "__main__":
    serve(Ours)
