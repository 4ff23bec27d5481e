"""The inputs and outputs of `sam2.Tracker`: frozen dataclasses of numpy arrays and Python values, no tensors.

Pixels are those of the source image: x to the right, y down, (0, 0) the top left corner of the top left pixel.
Frames, prompts and tracks equal only themselves, since comparing arrays gives no single answer; so lists can be
searched for them, and sets can hold them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from sam2 import masks


class State(IntEnum):
    """The state of an object in one frame (values as in `sam2_ros/msg/Track`)."""

    VISIBLE = 0
    OCCLUDED = 1  # absent now, seen recently
    LOST = 2  # absent for longer than `Limits.lost_after_s`
    INVALID = 3  # no answer, or a non-finite one; no memory was stored


class PromptMode(Enum):
    ADD = "add"  # to what the object already has
    REPLACE = "replace"  # forget the object's memory, start from this prompt


def _use_own_integers(stamped: "Frame | Prompt") -> None:
    """Turns a NumPy stamp into a Python integer: differences of NumPy's wrap around or overflow."""
    if isinstance(stamped.stamp_ns, np.integer):
        object.__setattr__(stamped, "stamp_ns", int(stamped.stamp_ns))


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera image."""

    rgb: np.ndarray  # (H, W, 3) uint8, RGB
    stamp_ns: int = 0  # when it was taken; 0 = unknown

    def __post_init__(self) -> None:
        _use_own_integers(self)

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.rgb.shape[0], self.rgb.shape[1]


@dataclass(frozen=True, eq=False)
class Prompt:
    """Says where one object is: points, a box with optional points, or a mask alone."""

    object_id: str
    points_xy: np.ndarray | Sequence[Any] = field(default_factory=list)  # (K, 2) pixels
    labels: np.ndarray | Sequence[Any] = field(default_factory=list)  # (K,) 1 on the object, 0 not on it
    box_xyxy: np.ndarray | Sequence[Any] | None = None  # (4,) pixels, x0 < x1 and y0 < y1
    mask: np.ndarray | None = None  # (H, W) bool; all False = it is not in the image
    stamp_ns: int = 0  # of the frame it was made on; 0 = the `step`'s own frame, or the newest in `Tracker.prompt`
    mode: PromptMode = PromptMode.ADD
    class_name: str = ""

    def __post_init__(self) -> None:
        _use_own_integers(self)


@dataclass(frozen=True, eq=False)
class Track:
    """One object in one frame."""

    object_id: str
    class_name: str
    label: int  # 1..254, stable while the object lives
    state: State
    object_score: float  # presence logit; > 0 means visible
    presence: float  # sigmoid(object_score), 0..1
    predicted_iou: float  # the network's own estimate for this mask, 0..1
    last_seen_ns: int  # stamp of the newest frame in which it was visible, by the newest frame's clock
    frames_since_seen: int  # 0 = seen in this one; VISIBLE with more if `Limits.occluded_after` is above 1
    size_hw: tuple[int, int]  # of the source image
    low_res_logits: np.ndarray  # (h, w) float32 at a quarter of the network's input

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool: bilinear upsampling of the logits, thresholded at 0; all False unless visible."""
        if self.state is not State.VISIBLE:
            return np.zeros(self.size_hw, dtype=bool)
        return masks.upsample_logits(self.low_res_logits, self.size_hw) > 0

    @cached_property
    def box_xywh(self) -> tuple[int, int, int, int] | None:
        """x, y, width, height in pixels of the tight box around the mask; None if that is empty."""
        return masks.bounding_box(self.mask)
