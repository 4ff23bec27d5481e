"""Which frames of a clip a batch shows: stride, direction, and whether something goes out of sight and returns.

A maker turns a seed into one clip, (T, S, S, 4) uint8: RGB and a label map of the visible pixels of each object (0
background). Knows neither model nor loss.
"""

from collections.abc import Callable

import numpy as np

from sam2.training.clips import MAX_LABEL

Maker = Callable[[int], np.ndarray]
_TRIES = 12  # draws of frames among which to look for one where something returns


def labels_seen(clip: np.ndarray) -> np.ndarray:
    """(T, S, S, 4) uint8 -> (T, MAX_LABEL) bool: which labels a frame shows."""
    counts = [np.bincount(labels.ravel(), minlength=256)[1 : MAX_LABEL + 1] for labels in clip[..., 3]]
    return np.stack(counts) > 0


def something_returns(seen: np.ndarray) -> np.ndarray:
    """seen (..., T, K) bool -> (...) bool: whether an object of the first frame goes out of sight and comes back."""
    has_left = ~np.logical_and.accumulate(seen, axis=-2)
    return (seen[..., 0, :] & (has_left & seen).any(-2)).any(-1)


def draw_frames(rng: np.random.Generator, seen: np.ndarray, frames: int, max_stride: int, vanish: float) -> np.ndarray:
    """Which frames of each clip: seen (B, T, K) bool -> (B, frames) indices.

    The stride is 1 in half the cases, otherwise drawn from 1..max_stride as far as the clip allows; half of the draws
    are reversed. For a share `vanish` of the clips a few draws are tried for one in which something returns.
    """
    count, length = seen.shape[:2]
    reach = max(1, min(max_stride, (length - 1) // max(frames - 1, 1)))
    shape = (count, _TRIES if frames > 2 and vanish else 1, 1)
    stride = np.where(rng.random(shape) < 0.5, 1, rng.integers(1, reach + 1, shape))
    start = rng.integers(0, length - (frames - 1) * stride)
    drawn = start + stride * np.arange(frames)  # (B, tries, frames)
    drawn = np.where(rng.random(shape) < 0.5, drawn, drawn[..., ::-1])
    clip, wanted = np.arange(count), rng.random(count) < vanish
    choice = wanted * something_returns(seen[clip[:, None, None], drawn]).argmax(1)  # the first such draw, or the first
    return drawn[clip, choice]
