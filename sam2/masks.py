"""Masks as numbers: upsampling, boxes, run lengths, instance labels, small holes.

Knows numpy, OpenCV and (for holes) torch. Does not know the network, nor what a mask is a mask of.
Masks are (H, W) bool in pixels of the source image, x to the right, y down.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from sam2.errors import BadInput

if TYPE_CHECKING:
    from sam2.types import Track

FILLED_HOLE_LOGIT = 0.1  # the official value: barely inside


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
    boxes: list[tuple[int, int, int, int]] = []
    shown = []
    for track in tracks:
        if tuple(track.size_hw) != tuple(size_hw):
            raise BadInput(f"track {track.object_id!r}: expected image size {tuple(size_hw)}, got {track.size_hw}")
        if track.box_xywh is not None:
            shown.append(track)
            boxes.append(track.box_xywh)
    for number, (track, box) in enumerate(zip(shown, boxes, strict=True)):
        x, y, width, height = box
        window = np.s_[y : y + height, x : x + width]
        wins = track.mask[window]
        if any(_overlap(box, other) for other in boxes[:number] + boxes[number + 1 :]):
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


def rle_encode(mask: np.ndarray) -> np.ndarray:
    """Run lengths of an (H, W) bool mask in row-major order, background first: (R,) uint32, sum H*W.

    The first run is 0 if the first pixel is True. Crop to `bounding_box` first where space or time matters.
    """
    return _runs(np.asarray(mask, dtype=bool).ravel())


def rle_decode(counts: np.ndarray | Sequence[int], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of row-major run lengths, background first. Raises BadInput unless they sum to H*W."""
    return _unfold(counts, size_hw[0] * size_hw[1]).reshape(size_hw)


def coco_encode(mask: np.ndarray) -> dict:
    """{"size": [H, W], "counts": compressed string} of an (H, W) bool mask, as pycocotools and SA-V write it."""
    return {"size": list(mask.shape), "counts": _compress(coco_counts(mask).astype(np.int64))}


def coco_counts(mask: np.ndarray) -> np.ndarray:
    """Run lengths of an (H, W) bool mask in COCO's order, column by column, background first: (R,) uint32, sum H*W."""
    return _runs(np.asarray(mask, dtype=bool).T.ravel())


def coco_decode(rle: dict) -> np.ndarray:
    """(H, W) bool mask of a COCO run-length object: column-major, `counts` a list, a compressed string or bytes.

    Raises BadInput if `size` or `counts` is missing, or the runs do not fill the size.
    """
    if "size" not in rle or "counts" not in rle:
        raise BadInput(f"COCO mask: expected keys 'size' and 'counts', got {sorted(rle)}")
    height, width = (int(side) for side in rle["size"])
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


def fill_small_holes(logits: torch.Tensor, max_area: int = 8) -> torch.Tensor:
    """Closes small holes: 8-connected regions of logits <= 0 of at most `max_area` pixels become 0.1.

    logits: (N, 1, h, w) float, any device. Returns a new tensor. The rule of the official predictor's
    `fill_holes_in_mask_scores`, which skips it where its CUDA extension is not built. Regions at the border count too.
    Other devices than the CPU do it without waiting for the device.
    """
    if logits.ndim != 4 or logits.shape[1] != 1:
        raise BadInput(f"logits: expected (N, 1, h, w), got {tuple(logits.shape)}")
    if max_area < 1 or logits.numel() == 0:
        return logits.clone()
    return torch.where(small_regions(logits <= 0, max_area), FILLED_HOLE_LOGIT, logits)


def small_regions(regions: torch.Tensor, max_area: int) -> torch.Tensor:
    """(N, 1, h, w) bool -> the same: the pixels of 8-connected True regions of at most `max_area` pixels."""
    return (_small_regions_opencv if regions.device.type == "cpu" else _small_regions_torch)(regions, max_area)


def _small_regions_opencv(background: torch.Tensor, max_area: int) -> torch.Tensor:
    """(N, 1, h, w) bool: pixels of True regions of at most `max_area` pixels."""
    small = np.zeros(background.shape, dtype=bool)
    for image, out in zip(background.numpy()[:, 0], small[:, 0], strict=True):
        _, regions, stats, _ = cv2.connectedComponentsWithStats(image.view(np.uint8), connectivity=8)
        is_small = stats[:, cv2.CC_STAT_AREA] <= max_area  # by region; region 0 is what is not background
        is_small[0] = False
        if is_small.any():
            np.take(is_small, regions, out=out)
    return torch.from_numpy(small)


def _small_regions_torch(background: torch.Tensor, max_area: int) -> torch.Tensor:
    """The same in a fixed number of steps of fixed size.

    Every pixel takes the largest pixel number within `max_area - 1` steps, enough to cross any small region. Pixels
    that then share a number are connected, and are a whole region unless one of them touches a differing one; such a
    set is made too heavy to be small.
    """
    num, _, height, width = background.shape
    # float32 counts exactly to 2**24 pixels, and max_pool2d has no integer form on CUDA
    numbers = torch.arange(1, height * width + 1, device=background.device, dtype=torch.float32)
    numbers = numbers.view(1, 1, height, width)
    labels = numbers * background  # (N, 1, h, w), 0 outside
    for _ in range(max_area - 1):
        labels = F.max_pool2d(labels, 3, stride=1, padding=1) * background
    highest = F.max_pool2d(labels, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(torch.where(background, -labels, -torch.inf), 3, stride=1, padding=1)
    weight = torch.where(highest == lowest, 1, max_area + 1).flatten(1)  # (N, h*w) int64
    index = labels.flatten(1).long()  # (N, h*w)
    areas = weight.new_zeros(num, height * width + 1).scatter_add_(1, index, weight)
    return background & (areas.gather(1, index) <= max_area).view_as(background)
