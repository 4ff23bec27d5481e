"""Training clips from the synthetic world. Does not know how they get to the device."""

from dataclasses import dataclass

import numpy as np

from sam2.training.scene import GENTLE
from sam2.training.synthetic import HELD_OUT_SEED, World


@dataclass(frozen=True)
class SyntheticClips:
    num_frames: int
    size: int  # S, pixels
    gentle: float = 0.0  # share of the clips that are from the gentle world; held-out clips never are
    is_varied = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.num_frames, self.size, self.size, 4

    def __str__(self) -> str:
        return "the synthetic world; --dataset and --root name real data"

    def __call__(self, seed: int) -> np.ndarray:
        is_gentle = seed < HELD_OUT_SEED and seed % 100 < 100 * self.gentle
        world = World(seed, (self.size, self.size), GENTLE if is_gentle else None)
        clip = np.zeros(self.shape, np.uint8)
        for t in range(self.num_frames):
            frame = world.frame(t)
            clip[t, ..., :3] = frame.rgb
            for label, mask in enumerate(frame.masks, start=1):
                clip[t, mask, 3] = label
        return clip
