"""What the video predictor keeps between calls, and which memories a frame attends to.

Pure bookkeeping: tensors are stored and handed out, never computed on. "Prompted" frames are what the official code
calls conditioning frames; all other tracked frames are "recent".
"""

from collections.abc import Hashable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sam2.errors import BadInput
from sam2.model import NUM_MEMORIES, PROMPTED_CODE, Features
from sam2.video_frames import JpegFolder

MAX_POINTERS = 16  # official `max_obj_ptrs_in_encoder`; recent pointers reach back one frame less


class PointInputs(NamedTuple):
    points_xy_model: Tensor  # (1, K, 2) float32, network-input pixels
    labels: Tensor  # (1, K) int32


@dataclass
class FrameResult:
    """One object on one frame."""

    logits: Tensor  # (1, 1, 4h, 4w) float32
    pointer: Tensor  # (1, C)
    object_score: Tensor  # (1, 1)
    maskmem: Tensor | None = None  # (1, D, h, w) bfloat16; None until propagation needs it


@dataclass
class ObjectState:
    """Results move from `new_*` (given, not yet propagated) to `prompted` or `recent` when propagation starts."""

    point_inputs: dict[int, PointInputs] = field(default_factory=dict)  # by frame index, as all below
    mask_inputs: dict[int, Tensor] = field(default_factory=dict)  # (1, 1, S, S)
    prompted: dict[int, FrameResult] = field(default_factory=dict)
    recent: dict[int, FrameResult] = field(default_factory=dict)
    new_prompted: dict[int, FrameResult] = field(default_factory=dict)
    new_recent: dict[int, FrameResult] = field(default_factory=dict)
    tracked_in_reverse: dict[int, bool] = field(default_factory=dict)  # a key for every tracked frame

    def latest(self, frame_index: int, is_prompted: bool) -> FrameResult | None:
        """The newest result on a frame, preferring that of a prompt not yet propagated."""
        new = self.new_prompted if is_prompted else self.new_recent
        return new.get(frame_index) or self.prompted.get(frame_index) or self.recent.get(frame_index)

    def memories(self, frame_index: int, reverse: bool) -> Iterator[tuple[FrameResult, int]]:
        """(result, temporal code) of every memory that `frame_index` attends to, in the official order."""
        for result in self.prompted.values():
            yield result, PROMPTED_CODE
        for frames_back in range(NUM_MEMORIES - 1, 0, -1):
            recent = self.recent.get(frame_index + frames_back if reverse else frame_index - frames_back)
            if recent is not None:
                yield recent, frames_back - 1

    def pointers(self, frame_index: int, reverse: bool, num_frames: int) -> Iterator[tuple[Tensor, int]]:
        """(pointer (1, C), frames ago) in the official order: prompted frames of the past, then newest to oldest."""
        for index, result in self.prompted.items():
            frames_ago = index - frame_index if reverse else frame_index - index
            if frames_ago >= 0:
                yield result.pointer, frames_ago
        for frames_ago in range(1, longest_pointer_memory(num_frames) + 1):
            recent = self.recent.get(frame_index + frames_ago if reverse else frame_index - frames_ago)
            if recent is not None:
                yield recent.pointer, frames_ago

    def forget_around(self, frame_index: int) -> None:
        """Drops recent results whose memories may be outdated by a prompt on `frame_index`."""
        for index in range(frame_index - NUM_MEMORIES, frame_index + NUM_MEMORIES + 1):
            self.recent.pop(index, None)


def longest_pointer_memory(num_frames: int) -> int:
    """How far back recent pointers reach, and the divisor of their time codes; depends on the clip's length."""
    return min(num_frames, MAX_POINTERS) - 1


_KEYS = (  # entries of the official dict
    *("images", "num_frames", "video_height", "video_width", "device", "storage_device"),
    *("obj_ids", "obj_id_to_idx", "obj_idx_to_id"),
)
_LACKING = (  # entries of the official dict that this one does not have
    *("point_inputs_per_obj", "mask_inputs_per_obj", "output_dict_per_obj", "temp_output_dict_per_obj"),
    *("frames_tracked_per_obj", "cached_features", "constants", "offload_video_to_cpu", "offload_state_to_cpu"),
)


@dataclass(eq=False)
class VideoState(MutableMapping[str, Any]):
    """One video's session. Can be read like the official dict, except for its per-object entries: those are in
    `objects`. Callers can store entries under keys of their own; the official entries are read-only."""

    images: Tensor | JpegFolder  # (3, S, S) float32, normalised, by frame index
    video_height: int  # of the source, pixels
    video_width: int
    device: torch.device
    storage_device: torch.device
    objects: dict[Hashable, ObjectState] = field(default_factory=dict)  # by the caller's id, in order of arrival
    encoded: tuple[int, Features] | None = None  # index and features of the last frame encoded
    extras: dict[str, Any] = field(default_factory=dict)  # the callers' own entries

    @property
    def num_frames(self) -> int:
        return len(self.images)

    @property
    def obj_ids(self) -> list[Any]:
        return list(self.objects)

    @property
    def obj_id_to_idx(self) -> dict[Any, int]:
        return {obj_id: index for index, obj_id in enumerate(self.objects)}

    @property
    def obj_idx_to_id(self) -> dict[int, Any]:
        return dict(enumerate(self.objects))

    def __getitem__(self, key: str) -> Any:
        if key in self.extras:
            return self.extras[key]
        if key not in _KEYS:
            raise KeyError(f"{key!r}: expected one of {', '.join((*_KEYS, *map(str, self.extras)))}")
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        """Raises BadInput for an entry of the official dict: the predictor would ignore the new value."""
        _check_own(key)
        self.extras[key] = value

    def __delitem__(self, key: str) -> None:
        _check_own(key)
        del self.extras[key]

    def __iter__(self) -> Iterator[str]:
        return iter((*_KEYS, *self.extras))

    def __len__(self) -> int:
        return len(_KEYS) + len(self.extras)


def _check_own(key: str) -> None:
    if key in _KEYS or key in _LACKING:
        raise BadInput(f"inference_state[{key!r}]: expected a key of your own, the official entries cannot be changed")
