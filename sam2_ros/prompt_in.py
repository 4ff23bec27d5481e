"""Converts prompt messages and clicks to sam2.Prompt, or raises BadInput. No prompt is accepted in part.

Knows the fields of `sam2_ros/msg/Prompt` and what makes them invalid. Does not know which objects are tracked: the
tracker checks whatever depends on that or on an image. Coordinates are pixels of the source image.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

import sam2
from sam2_ros.ros_time import stamp_ns

if TYPE_CHECKING:
    from geometry_msgs.msg import Point
    from sensor_msgs.msg import Image

    from sam2_ros.msg import Prompt

MASK_ENCODINGS = ("mono8", "8UC1")
_MODES = {0: sam2.PromptMode.ADD, 1: sam2.PromptMode.REPLACE}


def from_message(msg: "Prompt", max_pixels: int) -> sam2.Prompt:
    """The prompt in a `sam2_ros/msg/Prompt`; keeps nothing of the message. max_pixels: of an image, and so of a mask.

    Raises sam2.BadInput, naming field, index and value.
    """
    if msg.mode not in _MODES:
        raise sam2.BadInput(f"mode {msg.mode}: expected 0 (ADD) or 1 (REPLACE)")
    points_xy, labels = _points(msg), np.array(msg.point_labels, np.int32)  # (K, 2), (K,)
    box_xyxy, mask = _box(msg), _mask(msg.mask, max_pixels)
    if mask is not None and (len(points_xy) or box_xyxy is not None):
        raise sam2.BadInput("a mask together with points or a box: expected one or the other")
    if mask is None and box_xyxy is None and not len(points_xy):
        raise sam2.BadInput("the prompt has no point, no box and no mask: give one of them")
    if msg.object_id == "" and len(points_xy) and box_xyxy is None and not (labels == 1).any():
        raise sam2.BadInput("a new object needs a point that is on it: all labels are 0")
    return sam2.Prompt(
        object_id=msg.object_id, points_xy=points_xy, labels=labels, box_xyxy=box_xyxy, mask=mask,
        stamp_ns=stamp_ns(msg.header.stamp), mode=_MODES[msg.mode], class_name=msg.class_name,
    )  # fmt: skip


def from_click(point: "Point", stamp: int = 0) -> sam2.Prompt:
    """A new object at one pixel, the x and y of a `geometry_msgs/msg/Point`; stamp in nanoseconds, 0 = the next image.

    Raises sam2.BadInput.
    """
    x, y = point.x, point.y
    if point.z != 0:
        raise sam2.BadInput(
            f"click ({x:g}, {y:g}, {point.z:g}): expected a pixel, with z = 0, got a point in space; project it into "
            "the image first"
        )
    with np.errstate(over="ignore"):  # values too large for float32 become infinite
        xy = np.array([[x, y]], np.float32)
    _require_finite("click", xy[0])
    return sam2.Prompt(object_id="", points_xy=xy, labels=np.array([1]), stamp_ns=stamp)


def check_frame(frame_id: str, camera_frame: str) -> None:
    """Raises sam2.BadInput if the prompt was made in another frame; empty names are not compared."""
    if frame_id and camera_frame and frame_id != camera_frame:
        raise sam2.BadInput(
            f"frame_id {frame_id!r}: the images are in {camera_frame!r}, and prompts are pixels of them; use that "
            "frame or leave it empty"
        )


@contextmanager
def numbered(index: int, total: int) -> Iterator[None]:
    """Prefixes a BadInput's message with the prompt's index if the request has several prompts."""
    try:
        yield
    except sam2.BadInput as error:
        if total == 1:
            raise
        raise type(error)(f"prompt {index}: {error}") from error


def _require_finite(what: str, values: Sequence[float] | np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise sam2.BadInput(f"{what}[{wrong[0]}] is {values[wrong[0]]}: expected a number of pixels")


def _points(msg: "Prompt") -> np.ndarray:
    """(K, 2) float32."""
    flat, labels = msg.points_xy, msg.point_labels
    if len(flat) != 2 * len(labels):
        raise sam2.BadInput(f"{len(flat)} numbers in points_xy for {len(labels)} labels: expected two for each label")
    _require_finite("points_xy", flat)
    wrong = np.flatnonzero(~np.isin(labels, (0, 1)))
    if len(wrong):
        index = wrong[0]
        raise sam2.BadInput(f"point_labels[{index}] is {labels[index]}: expected 1 (on the object) or 0 (not on it)")
    return np.array(flat, np.float32).reshape(-1, 2)


def _box(msg: "Prompt") -> np.ndarray | None:
    """(4,) float32, or None if there is no box."""
    if len(msg.box_xyxy) == 0:
        return None
    if len(msg.box_xyxy) != 4:
        raise sam2.BadInput(f"{len(msg.box_xyxy)} numbers in box_xyxy: expected x_min, y_min, x_max, y_max or none")
    _require_finite("box_xyxy", msg.box_xyxy)
    x0, y0, x1, y1 = msg.box_xyxy
    if x1 <= x0 or y1 <= y0:
        raise sam2.BadInput(f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no area: expected x_min < x_max, y_min < y_max")
    return np.array([x0, y0, x1, y1], np.float32)


def _mask(msg: "Image", max_pixels: int) -> np.ndarray | None:
    """(H, W) bool, or None if there is no mask."""
    if len(msg.data) == 0:
        if msg.width or msg.height:
            raise sam2.BadInput(f"mask of {msg.width}x{msg.height} pixels without data")
        return None
    if max(msg.width * msg.height, len(msg.data)) > max_pixels:  # many may wait until an image tells the right size
        raise sam2.BadInput(
            f"mask of {msg.width}x{msg.height} pixels with {len(msg.data)} bytes: expected the image's size, at most "
            f"max_pixels = {max_pixels}"
        )
    if msg.encoding not in MASK_ENCODINGS:
        raise sam2.BadInput(f"mask encoding {msg.encoding!r}: expected {' or '.join(MASK_ENCODINGS)}")
    if msg.width == 0 or msg.height == 0 or msg.step < msg.width or len(msg.data) != msg.step * msg.height:
        raise sam2.BadInput(
            f"mask of {msg.width}x{msg.height} pixels, step {msg.step}, with {len(msg.data)} bytes: expected step >= "
            "width and step * height bytes"
        )
    mask = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)[:, : msg.width] != 0  # (H, W)
    if not mask.any():
        raise sam2.BadInput("mask without a single pixel on the object")
    return mask
