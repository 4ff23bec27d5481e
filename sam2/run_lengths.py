"""Masks as run lengths: row by row as the ROS messages carry them, and in COCO's column order as datasets store them.

Knows numpy only. Masks are (H, W) bool.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam2.errors import BadInput

MAX_PIXELS = 1 << 28  # a damaged size must not ask for all memory


def rle_encode(mask: np.ndarray) -> np.ndarray:
    """Run lengths of an (H, W) bool mask in row-major order, background first: (R,) uint32, sum H*W.

    The first run is 0 if the first pixel is True. Crop to `bounding_box` first where space or time matters.
    """
    return _runs(np.asarray(mask, dtype=bool).ravel())


def rle_decode(counts: np.ndarray | Sequence[int], size_hw: Sequence[int] | np.ndarray) -> np.ndarray:
    """(H, W) bool mask of row-major run lengths, background first. Raises BadInput unless they sum to H*W."""
    height, width = _sides(size_hw)
    return _unfold(counts, height * width).reshape(height, width)


def coco_encode(mask: np.ndarray) -> dict[str, Any]:
    """{"size": [H, W], "counts": compressed string} of an (H, W) bool mask, as pycocotools and SA-V write it."""
    return {"size": list(mask.shape), "counts": _compress(coco_counts(mask).astype(np.int64))}


def coco_counts(mask: np.ndarray) -> np.ndarray:
    """Run lengths of an (H, W) bool mask in COCO's order, column by column, background first: (R,) uint32, sum H*W."""
    return _runs(np.asarray(mask, dtype=bool).T.ravel())


def coco_decode(rle: Mapping[str, Any]) -> np.ndarray:
    """(H, W) bool mask of a COCO run-length object: column-major, `counts` a list, a compressed string or bytes.

    Raises BadInput if `size` or `counts` is missing or invalid, or if the runs do not fill the size.
    """
    if "size" not in rle or "counts" not in rle:
        raise BadInput(f"COCO mask: expected keys 'size' and 'counts', got {sorted(rle)}")
    height, width = _sides(rle["size"])
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        counts = _decompress(counts.encode() if isinstance(counts, str) else counts)
    return np.ascontiguousarray(_unfold(counts, height * width).reshape(width, height).T)


def _runs(pixels: np.ndarray) -> np.ndarray:
    """(K,) bool -> (R,) uint32 run lengths, False first."""
    if pixels.size == 0:
        return np.zeros(0, dtype=np.uint32)
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    borders = np.concatenate(([0] if not pixels[0] else [0, 0], changes, [pixels.size]))
    return np.diff(borders).astype(np.uint32)


def _sides(size_hw: Sequence[int] | np.ndarray) -> tuple[int, int]:
    """Height and width. Raises BadInput."""
    try:
        height, width = (int(side) for side in size_hw)
        is_size = min(height, width) >= 0 and (height, width) == tuple(size_hw) and height * width <= MAX_PIXELS
    except (OverflowError, TypeError, ValueError):
        is_size = False
    if not is_size:
        raise BadInput(f"size of a mask: expected height and width of at most {MAX_PIXELS} pixels, got {size_hw!r:.99}")
    return height, width


def _unfold(counts: np.ndarray | Sequence[int], num_pixels: int) -> np.ndarray:
    """(R,) run lengths, False first -> (num_pixels,) bool."""
    try:
        runs = np.asarray(counts, dtype=np.int64)  # (R,)
    except (OverflowError, TypeError, ValueError) as error:
        raise BadInput(f"run lengths: expected whole numbers that sum to {num_pixels}, got {counts!r:.99}") from error
    is_possible = runs.ndim == 1 and ((runs >= 0) & (runs <= num_pixels)).all()  # else the sum may wrap around
    if not is_possible or runs.sum() != num_pixels:
        raise BadInput(f"run lengths: expected numbers >= 0 that sum to {num_pixels}, got {runs.tolist()!r:.99}")
    return np.repeat(np.arange(runs.size) % 2 == 1, runs)


def _compress(counts: np.ndarray) -> str:
    """COCO's text form: from the fourth run on the difference to the run two before, in signed 5-bit groups.

    Lowest group first; bit 5 says that more follow; 48 is added to get printable characters.
    """
    values = counts.copy()  # (R,) int64
    values[3:] -= counts[1:-2]
    text = bytearray()
    for value in values.tolist():
        more = True
        while more:
            group, value = value & 0x1F, value >> 5
            more = value != (-1 if group & 0x10 else 0)
            text.append(48 + group + 0x20 * more)
    return text.decode("ascii")


def _decompress(text: bytes) -> np.ndarray:
    """Inverse of `_compress`: (R,) int64 run lengths. Raises BadInput on characters COCO does not use."""
    if not text:
        return np.zeros(0, dtype=np.int64)
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48  # (K,)
    if codes.min() < 0 or codes.max() > 0x3F or codes[-1] & 0x20:
        raise BadInput(f"COCO counts: expected characters '0' to 'o' with a complete last number, got {text[:20]!r}")
    last = np.flatnonzero(codes & 0x20 == 0)  # (R,) final group of each number
    first = np.concatenate(([0], last[:-1] + 1))  # (R,)
    group = np.arange(codes.size) - np.repeat(first, last - first + 1)  # (K,) place within its number
    if group.max() > 7:
        raise BadInput("COCO counts: expected numbers of at most 40 bits, got a longer one")
    values = np.add.reduceat((codes & 0x1F) << (5 * group), first)
    values -= (codes[last] >> 4 & 1) << (5 * (last - first + 1))  # two's complement
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
