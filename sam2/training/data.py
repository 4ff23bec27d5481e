"""Where a run's clips come from: made in this process, or by workers that renew a pool."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sam2.training.config import TrainConfig
from sam2.training.draws import Maker, draw_frames, label_areas
from sam2.training.pool import PooledSource
from sam2.training.synthetic import HELD_OUT_SEED
from sam2.training.team import Team

_NEW_PER_STEP = 0.25  # clips that each step of a `DirectSource` replaces


class DirectSource:
    """Makes clips in this process, for smoke runs, tests and debugging. The clips of step s depend only on s, so a
    resumed run repeats exactly, unless it has streams, which are not saved.
    """

    def __init__(self, maker: Maker, device: torch.device, capacity: int, first_seed: int = 0, min_area: int = 1):
        """min_area: pixels that an object in a clip's first frame should have."""
        self._clip = lru_cache(maxsize=capacity)(maker)
        self._device, self._min_area = device, min_area
        self._capacity, self._first_seed = capacity, first_seed

    def sample(
        self, rng: np.random.Generator, step: int, batch: int, frames: int, max_stride: int, vanish: float = 0.0
    ) -> Tensor:
        """(batch, frames, S, S, 4) uint8 on the device."""
        oldest = self._first_seed + int(step * _NEW_PER_STEP)
        chosen = rng.integers(oldest, oldest + self._capacity, batch) % HELD_OUT_SEED
        clips = [self._clip(int(seed)) for seed in chosen]
        areas = np.stack([label_areas(clip) for clip in clips])
        indices = draw_frames(rng, areas, frames, max_stride, vanish, self._min_area)
        return torch.from_numpy(np.stack([clip[i] for clip, i in zip(clips, indices, strict=True)])).to(self._device)

    @property
    def clips_made(self) -> int:
        return self._clip.cache_info().misses

    def close(self) -> None:
        self._clip.cache_clear()


Source = DirectSource | PooledSource


def open_source(maker: Maker, device: torch.device, config: TrainConfig, clips_made: int, team: Team) -> Source:
    """Opens the source of a recipe's clips. clips_made: by earlier runs; workers do not make those worlds again."""
    if config.workers == 0:
        return DirectSource(maker, device, config.pool, config.seed, config.min_area)
    first = config.seed + clips_made + team.rank * HELD_OUT_SEED // team.size
    return PooledSource(maker, device, config.pool, config.workers, first, config.min_area)
