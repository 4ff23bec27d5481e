"""The child's side of a benchmark: one frame per line of input, one line of JSON out.

A peer is a class with `__init__(job)` and `step(index) -> (masks, seconds outside the network)`; the masks are uint8,
at the source's size, on the host.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Job:
    """What every peer gets: the same frames, weights and prompts."""

    config: str  # "sam2.1_hiera_tiny"
    weights: str  # official layout, .pt
    frames: np.ndarray  # (T, H, W, 3) uint8
    boxes_xyxy: np.ndarray  # (N, 4) float32 source pixels, all on frame 0
    device: str
    batched: bool | None = None  # of `sam2.Tracker`

    def frame(self, index: int) -> np.ndarray:
        """The clip played over and over."""
        return self.frames[index % len(self.frames)]

    def synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def serve(peer_class) -> None:
    """Answers "step" lines until the input ends. A peer that cannot be had says why and leaves with status 3."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not be taken for an answer
    spec = json.loads(sys.stdin.readline())
    torch.set_num_threads(spec["threads"])
    content = np.load(spec["frames"])
    job = Job(spec["config"], spec["weights"], content["frames"], content["boxes"], spec["device"], spec["batched"])
    peer = peer_class(job)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for index, _ in enumerate(sys.stdin):
        job.synchronize()
        begin, begin_cpu = time.perf_counter(), time.process_time()
        masks, outside = peer.step(index)
        total, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
        answer = {
            "total": total,
            "compute": total - outside,
            "cpu": cpu,
            "area": int((masks > 0).sum()),
            "rss": _resident_bytes(),
        }
        if job.device != "cpu":
            answer["rss"] = torch.cuda.memory_reserved()  # with the pools of captured graphs
        print(json.dumps(answer), file=answers, flush=True)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Clock:
    """Adds up the seconds spent inside `with`."""

    def __init__(self):
        self.seconds = 0.0

    def __enter__(self):
        self._begin = time.perf_counter()

    def __exit__(self, *_):
        self.seconds += time.perf_counter() - self._begin
