"""Small runs for tests of training: two moving squares, a tiny recipe, a nano network of a few pixels."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sam2.config import find_config
from sam2.training.config import Phase, TrainConfig
from sam2.training.synthetic import HELD_OUT_SEED
from sam2.training.train import Trainer
from sam2.training.windows import WindowedSAM2

SIDE = 32
CPU = torch.device("cpu")
TINY_RUN = TrainConfig(
    model="nano",
    clip_frames=4,
    pool=6,
    steps=6,
    size=SIDE,
    loss_stride=4,
    warmup=2,
    phases=(
        Phase("pretext", 0.34, batch=2, objects=2, encoder=1.0),
        Phase("stills", 0.67, batch=2, objects=2, prompt_chances=(0.0, 0.5, 0.5)),
        Phase("clips", 1.0, batch=1, objects=2, frames=3),
    ),
)


class TwoSquares:
    """A maker of clips of four frames: a red and a green square drift; the red one is hidden in the third frame."""

    shape = (4, SIDE, SIDE, 4)
    is_varied = True

    def __call__(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        clip = np.zeros(self.shape, np.uint8)
        clip[..., :3] = rng.integers(0, 60, self.shape[:3])[..., None]
        top = rng.integers(2, 18, 2)
        for time in range(4):
            for label, colour in ((1, (220, 30, 30)), (2, (30, 220, 30))):
                if (time, label) == (2, 1):
                    continue
                row, left = top[label - 1] + time, 2 + 15 * (label - 1)
                clip[time, row : row + 9, left : left + 10] = (*colour, label)
        return clip


@dataclass(frozen=True)
class Broken(TwoSquares):
    """Raises `error` from seed `first` on, except for held-out seeds."""

    error: Exception
    first: int = 0

    def __call__(self, seed: int) -> np.ndarray:
        if self.first <= seed < HELD_OUT_SEED:
            raise self.error
        return super().__call__(seed)


def small_model(name: str = "nano") -> WindowedSAM2:
    return WindowedSAM2(replace(find_config(name), image_size=SIDE))


def squares(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.stack([TwoSquares()(seed) for seed in range(count)]))


def masks_of(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """(N, SIDE, SIDE) bool from x0 y0 x1 y1, ends excluded."""
    masks = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def run(tmp_path: Path, config: TrainConfig, name: str = "run") -> Trainer:
    """A run to its end on the two squares, in a folder of `tmp_path`."""
    trainer = Trainer(config, TwoSquares(), tmp_path / name, CPU)
    trainer.resume()
    trainer.run()
    return trainer
