"""From the network's logits to masks in pixels of the source image: upsampling, boxes, instance labels.

Knows numpy and OpenCV, not the network. Masks are (H, W) bool, x to the right, y down.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import cv2
import numpy as np

from sam2.errors import BadInput

if TYPE_CHECKING:
    from sam2.types import Track


def upsample_logits(low_res: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Bilinear resize without corner alignment and, like `F.interpolate`, without antialiasing when it shrinks.

    low_res: (h, w) float32. Returns (H, W) float32, closer to the exact value than torch's own float32 is.
    Raises BadInput on another shape or an empty size.
    """
    height, width = size_hw
    if low_res.ndim != 2 or low_res.size == 0 or height < 1 or width < 1:
        raise BadInput(f"low_res: expected (h, w) logits and a size >= 1x1, got {low_res.shape} for {height}x{width}")
    return cv2.resize(np.asarray(low_res, dtype=np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """(x, y, width, height) pixels of the tight box around the True pixels of an (H, W) bool mask; None if none is."""
    # Not `cv2.boundingRect`, which before OpenCV 4.10 misses columns of odd widths (opencv#24217), and is slower.
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return None
    y, height = int(rows[0]), int(rows[-1] - rows[0]) + 1
    columns = np.flatnonzero(mask[y : y + height].any(axis=0))
    return int(columns[0]), y, int(columns[-1] - columns[0]) + 1, height


def label_mask(tracks: Iterable["Track"], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8, C-contiguous: each pixel the `label` of its object, 0 where there is none.

    Where masks overlap the larger logit wins, the earlier track on a tie. Raises BadInput if a track is of another
    image size.
    """
    labels = np.zeros(size_hw, dtype=np.uint8)  # (H, W)
    best: np.ndarray | None = None  # (H, W) float32, made when boxes overlap
    shown = []  # tracks with a mask, and their boxes
    for track in tracks:
        if tuple(track.size_hw) != tuple(size_hw):
            raise BadInput(f"track {track.object_id!r}: expected image size {tuple(size_hw)}, got {track.size_hw}")
        if track.box_xywh is not None:
            shown.append((track, track.box_xywh))
    for track, box in shown:
        x, y, width, height = box
        window = np.s_[y : y + height, x : x + width]
        wins = track.mask[window]
        if any(other is not track and _overlap(box, its_box) for other, its_box in shown):
            best = np.full(size_hw, -np.inf, dtype=np.float32) if best is None else best
            logits = _upsample_window(track.low_res_logits, size_hw, box)
            # The mask, not the sign of the window's logits, decides: their last bits may differ from the whole image's.
            wins = wins & (logits > best[window])
            np.copyto(best[window], logits, where=wins)
        np.copyto(labels[window], track.label, where=wins, casting="unsafe")
    return labels


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Whether two boxes (x, y, width, height) share a pixel."""
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def _upsample_window(low_res: np.ndarray, size_hw: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """(height, width) float32: `upsample_logits` inside a box (x, y, width, height), at the cost of about that box."""
    x, y, width, height = box
    top, bottom = _aligned_span(y, height, size_hw[0], low_res.shape[0])
    left, right = _aligned_span(x, width, size_hw[1], low_res.shape[1])
    per_row, per_column = size_hw[0] / low_res.shape[0], size_hw[1] / low_res.shape[1]
    window_hw = round((bottom - top) * per_row), round((right - left) * per_column)
    window = upsample_logits(low_res[top:bottom, left:right], window_hw)
    y, x = y - round(top * per_row), x - round(left * per_column)
    return window[y : y + height, x : x + width]


def _aligned_span(start: int, length: int, size: int, low_size: int) -> tuple[int, int]:
    """Low-res cells [first, last) that pixels [start, start + length) are interpolated from.

    Both ends lie where a cell border meets a pixel border, so that resizing the cells alone keeps the pixel grid.
    """
    period = low_size // math.gcd(size, low_size)  # cells between two such meetings
    first = (start * low_size // size - 1) // period * period
    last = -(-((start + length) * low_size // size + 2) // period) * period
    return max(first, 0), min(last, low_size)
