"""Checks that frames and prompts are well formed. Every error names the field, what was expected and what it got.

Knows nothing about objects or history: `sam2.plan` checks what depends on those.
"""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from sam2.errors import BadInput, LimitReached
from sam2.limits import Limits
from sam2.preprocess import check_rgb
from sam2.types import Frame, Prompt, PromptMode

MAX_NAME_LENGTH = 128  # of ids and class names, which every result carries


def check_frame(frame: Frame) -> None:
    """Raises BadInput unless it is a sam2.Frame with an image, (H, W, 3) uint8, and a stamp."""
    if not isinstance(frame, Frame):
        raise BadInput(f"frame: expected sam2.Frame, got {type(frame).__name__}")
    check_rgb(frame.rgb, "frame.rgb")
    check_stamp(frame.stamp_ns, "frame.stamp_ns")


def check_prompts(prompts: Sequence[Prompt], limits: Limits) -> None:
    """Raises BadInput or LimitReached unless this is a sequence of well-formed prompts."""
    if not isinstance(prompts, Sequence):
        raise BadInput(f"prompts: expected a sequence of sam2.Prompt, got {type(prompts).__name__}")
    for prompt in prompts:
        check_prompt(prompt, limits)


def check_prompt(prompt: Prompt, limits: Limits) -> None:
    """Checks everything that can be checked without an image. Raises BadInput or LimitReached."""
    if not isinstance(prompt, Prompt):
        raise BadInput(f"prompt: expected sam2.Prompt, got {type(prompt).__name__}")
    if not is_name(prompt.object_id) or not prompt.object_id:
        raise BadInput(f"prompt.object_id: expected 1 to {MAX_NAME_LENGTH} characters, got {prompt.object_id!r:.100}")
    if not is_name(prompt.class_name):
        raise BadInput(
            f"prompt.class_name: expected at most {MAX_NAME_LENGTH} characters, got {prompt.class_name!r:.100}"
        )
    if not isinstance(prompt.mode, PromptMode):
        raise BadInput(f"prompt.mode: expected a sam2.PromptMode, got {prompt.mode!r}")
    check_stamp(prompt.stamp_ns, "prompt.stamp_ns")
    xy, labels = _points(prompt), _array("labels", prompt.labels, (-1,))
    if len(xy) != len(labels):
        raise BadInput(f"prompt.labels: expected one per point ({len(xy)}), got {len(labels)}")
    if not np.isin(labels, (0, 1)).all():
        raise BadInput(f"prompt.labels: expected 1 (on the object) or 0 (not on it), got {labels.tolist()}")
    if len(xy) > limits.points_per_prompt:
        raise LimitReached(f"prompt.points_xy: expected at most {limits.points_per_prompt} points, got {len(xy)}")
    corners = _corners(prompt)
    if len(corners) and (corners[0] >= corners[1]).any():
        raise BadInput(f"prompt.box_xyxy: expected x0 < x1 and y0 < y1, got {corners.flatten().tolist()}")
    if prompt.mask is not None:
        _check_mask(prompt, has_points=len(xy) + len(corners) > 0)
    elif len(xy) + len(corners) == 0:
        raise BadInput(f"prompt for {prompt.object_id!r}: expected points, a box or a mask, got none")


def is_name(value: object) -> bool:
    """Whether it is a string of at most MAX_NAME_LENGTH characters that UTF-8 can encode, as messages require."""
    if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_begins(prompt: Prompt) -> None:
    """Raises BadInput unless a checked prompt can start an object, by a mask, a box or a positive point."""
    if prompt.mask is None and prompt.box_xyxy is None and not _array("labels", prompt.labels, (-1,)).any():
        raise BadInput(
            f"prompt for {prompt.object_id!r}: an object begins with a point that is on it, and all labels are 0; did "
            "you mean an object that is tracked already, or a later image?"
        )


def check_places(prompt: Prompt, size_hw: tuple[int, int]) -> None:
    """Raises BadInput unless a checked prompt fits an image of `size_hw`: points on its pixels, a box within its edges,
    a mask of its size."""
    height, width = size_hw
    for index, (x, y) in enumerate(_points(prompt).tolist()):
        if not (0 <= x < width and 0 <= y < height):
            raise BadInput(
                f"prompt.points_xy: point {index} at ({x:g}, {y:g}) is outside the image of {width}x{height}"
            )
    for x0, y0, x1, y1 in _corners(prompt).reshape(-1, 4).tolist():
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise BadInput(
                f"prompt.box_xyxy: ({x0:g}, {y0:g}, {x1:g}, {y1:g}) leaves the image of {width}x{height} pixels"
            )
    if prompt.mask is not None and prompt.mask.shape != tuple(size_hw):
        raise BadInput(f"prompt.mask: expected the image's size {tuple(size_hw)}, got {prompt.mask.shape}")


def check_stamp(stamp_ns: int, name: str) -> None:
    """Raises BadInput unless it is an integer >= 0."""
    if not isinstance(stamp_ns, Integral) or stamp_ns < 0:
        raise BadInput(f"{name}: expected nanoseconds, an integer >= 0, got {stamp_ns!r}")


def _points(prompt: Prompt) -> np.ndarray:
    """(K, 2) float32."""
    return _array("points_xy", prompt.points_xy, (-1, 2))


def _corners(prompt: Prompt) -> np.ndarray:
    """(2, 2) float32, top left and bottom right; (0, 2) without a box."""
    return np.zeros((0, 2), np.float32) if prompt.box_xyxy is None else _array("box_xyxy", prompt.box_xyxy, (2, 2))


def _array(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Converts to float32 of `shape`, whose first side may be -1 for any length. For a shape without -1 the numbers may
    come in any shape. Raises BadInput.
    """
    try:
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which is refused below
            array = np.asarray(values, dtype=np.float32)
        if shape[0] != -1 or array.size == 0:
            array = array.reshape([max(side, 0) for side in shape])
        if array.ndim != len(shape) or array.shape[1:] != shape[1:]:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        wanted = {"points_xy": "(K, 2) numbers", "labels": "(K,) integers", "box_xyxy": "4 numbers"}[name]
        raise BadInput(f"prompt.{name}: expected {wanted}, got {values!r}") from None
    if not np.isfinite(array).all():
        raise BadInput(f"prompt.{name}: expected finite numbers, got {array.tolist()}")
    return array


def _check_mask(prompt: Prompt, has_points: bool) -> None:
    mask = prompt.mask
    if has_points:
        raise BadInput(f"prompt for {prompt.object_id!r}: expected a mask alone, got points or a box with it")
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.ndim != 2 or mask.size == 0:
        got = f"{mask.shape} {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise BadInput(f"prompt.mask: expected a non-empty (H, W) bool array, got {got}")
