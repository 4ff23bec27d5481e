"""Draws the frames of a clip that a batch shows: stride, direction, an object in the first, one that vanishes and
returns.

A `Maker` turns a seed into one clip, (T, S, S, 4) uint8 (its `shape`): RGB and a label map of the visible pixels of
each object (0 background). Knows neither model nor loss.
"""

from typing import Protocol

import numpy as np

from sam2.training.clips import MAX_OBJECTS

_TRIES = 12  # draws of frames per clip, of which `draw_frames` takes the best


class Maker(Protocol):
    """Where clips come from: a dataset, or the synthetic world."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    def is_varied(self) -> bool:
        """Whether two clips rarely show the same scene."""

    def __call__(self, seed: int) -> np.ndarray: ...


def label_areas(clip: np.ndarray) -> np.ndarray:
    """(T, S, S, 4) uint8 -> (T, MAX_OBJECTS) int32: how many pixels of each label a frame shows."""
    counts = [np.bincount(labels.ravel(), minlength=256)[1 : MAX_OBJECTS + 1] for labels in clip[..., 3]]
    return np.stack(counts).astype(np.int32)


def something_returns(seen: np.ndarray) -> np.ndarray:
    """seen (..., T, K) bool -> (...) bool: whether an object of the first frame goes out of sight and comes back."""
    has_left = ~np.logical_and.accumulate(seen, axis=-2)
    return (seen[..., 0, :] & (has_left & seen).any(-2)).any(-1)


def draw_frames(
    rng: np.random.Generator, areas: np.ndarray, frames: int, max_stride: int, vanish: float, min_area: int = 1
) -> np.ndarray:
    """Draws the frames of each clip: areas (B, T, K), pixels -> (B, frames) indices.

    The stride is 1 in half the cases, otherwise drawn from 1..max_stride as far as the clip allows; half of the draws
    are reversed. Of `_TRIES` draws, takes one whose first frame shows an object of `min_area` pixels and, for a share
    `vanish` of the clips, in which an object vanishes and returns, if there is one.
    """
    count, length = areas.shape[:2]
    reach = max(1, min(max_stride, (length - 1) // max(frames - 1, 1)))
    shape = (count, _TRIES, 1)
    stride = np.where(rng.random(shape) < 0.5, 1, rng.integers(1, reach + 1, shape))
    start = rng.integers(0, length - (frames - 1) * stride)
    drawn = start + stride * np.arange(frames)  # (B, tries, frames)
    drawn = np.where(rng.random(shape) < 0.5, drawn, drawn[..., ::-1])
    clip, wanted = np.arange(count), rng.random((count,)) < vanish
    shown = areas[clip[:, None, None], drawn]  # (B, tries, frames, K)
    begins = (shown[:, :, 0] >= min_area).any(-1)  # (B, tries)
    returns = wanted[:, None] & something_returns(shown > 0)
    choice = (2 * begins + returns).argmax(1)  # the first of the best
    return drawn[clip, choice]
