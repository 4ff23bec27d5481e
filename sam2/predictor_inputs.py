"""Checks and converts what callers pass to the official-style predictors, before anything is changed.

As upstream, prompts may be numpy arrays, tensors or plain lists.
"""

from collections.abc import Hashable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sam2.errors import BadInput, UnknownObject
from sam2.preprocess import masks_to_model, points_to_model
from sam2.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, PADDING, POSITIVE
from sam2.video_state import ObjectState, PointInputs, VideoState

_LABELS = (PADDING, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)


def check_frame_index(frame_index: int, num_frames: int) -> None:
    """Raises BadInput unless it is an integer in 0..num_frames - 1."""
    if not _is_integer(frame_index) or not 0 <= frame_index < num_frames:
        raise BadInput(f"frame_idx: expected an integer in 0..{num_frames - 1}, got {frame_index!r}")


def check_start(frame_index: int, num_frames: int, reverse: bool) -> None:
    """Raises BadInput unless it is the index of a frame or, as upstream, past the end in the direction of tracking: the
    start of a chunk with no frame left."""
    if not _is_integer(frame_index) or (frame_index >= num_frames if reverse else frame_index < 0):
        wanted = f"up to {num_frames - 1}" if reverse else ">= 0"
        raise BadInput(f"start_frame_idx: expected an integer {wanted}, got {frame_index!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def find_object(state: VideoState, obj_id: Hashable) -> ObjectState:
    """The state of an object. Raises UnknownObject naming the ids that exist."""
    if obj_id not in state.objects:
        raise UnknownObject(f"obj_id: expected one of {state.obj_ids}, got {obj_id!r}")
    return state.objects[obj_id]


def point_inputs(
    points: ArrayLike | None,
    labels: ArrayLike | None,
    box: ArrayLike | None,
    size_hw: tuple[int, int] | None,
    image_size: int,
    device: torch.device,
) -> PointInputs:
    """Points and box in source pixels (in 0..1 if `size_hw` is None) -> network-input pixels, box corners first.

    As upstream, points and boxes may lie outside the image, and a box may have no area: that of a mask one pixel wide
    has no width.
    """
    if (points is None) != (labels is None):
        raise BadInput("points and labels: expected both or neither, got one of them")
    if points is None and box is None:
        raise BadInput("prompt: expected points, a box, or both, got neither")
    size_hw = size_hw or (1, 1)
    if points is None or (box is not None and finite_floats("points", points).numel() == 0):
        xy = torch.zeros(0, 2, dtype=torch.float32, device="cpu")  # only the box
    else:
        xy = _points(points)
    marks = check_labels([] if labels is None else labels, xy.shape[:1])
    if box is not None:
        corners = finite_floats("box", box).flatten()
        if corners.shape[0] != 4:
            raise BadInput(f"box: expected 4 numbers (x0, y0, x1, y1), got {corners.shape[0]}")
        xy = torch.cat((corners.reshape(2, 2), xy))
        marks = torch.cat((marks.new_tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]), marks))
    return PointInputs(points_to_model(xy, size_hw, image_size)[None].to(device), marks[None].to(device))


def mask_input(mask: ArrayLike, size_hw: tuple[int, int], image_size: int, device: torch.device) -> Tensor:
    """(H, W) of the video or (S, S) -> (1, 1, S, S) float32 on `device`, 1 inside and 0 outside. As upstream, a tensor
    is resized and then thresholded at one half, but taken as it is if it is (S, S); in any other kind of mask every
    nonzero value is inside.

    Refuses masks of other sizes. Upstream stretches them over the image, which hides mistakes.
    """
    try:
        values = mask.detach() if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask, order="C"))
    except (TypeError, ValueError) as error:
        raise BadInput(f"mask: expected an array or a tensor of numbers, got {type(mask).__name__}") from error
    if values.is_complex():
        raise BadInput(f"mask: expected real numbers, got {values.dtype}")
    values = values.to(device, torch.float32)
    if tuple(values.shape) not in (tuple(size_hw), (image_size, image_size)):
        raise BadInput(
            f"mask: expected the video's size {tuple(size_hw)} or the network's {(image_size, image_size)}, "
            f"got shape {tuple(values.shape)}"
        )
    if not values.isfinite().all():
        raise BadInput("mask: expected finite values, got NaN or infinity")
    values = values if isinstance(mask, Tensor) else values.bool().float()
    return values[None, None] if values.shape == (image_size, image_size) else masks_to_model(values[None], image_size)


def finite_floats(name: str, values: ArrayLike) -> Tensor:
    """Numbers of any shape -> float32 on the CPU. Raises BadInput naming the argument."""
    try:
        # A copy, since torch takes no flipped array, such as `rows_and_columns[:, ::-1]`.
        given = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values, np.float32, order="C"))
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: expected numbers, got {values!r}") from error
    floats = given.detach().to("cpu", torch.float32)
    if not floats.isfinite().all():
        raise BadInput(f"{name}: expected finite coordinates, got NaN or infinity in {floats.tolist()}")
    return floats


def _points(points: ArrayLike) -> Tensor:
    xy = finite_floats("points", points)
    xy = xy[0] if xy.dim() == 3 and xy.shape[0] == 1 else xy  # upstream also takes a batch of one
    if xy.dim() != 2 or xy.shape[1] != 2:
        raise BadInput(f"points: expected shape (K, 2), got {tuple(xy.shape)}")
    return xy


def check_labels(labels: ArrayLike, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Point labels -> (shape) int32 on the CPU. Raises BadInput unless there is one known label per point."""
    marks = finite_floats("labels", labels)
    if marks.numel() != torch.Size(shape).numel():
        raise BadInput(f"labels: expected one per point, shape {tuple(shape)}, got {tuple(marks.shape)}")
    unknown = [v for v in marks.flatten().tolist() if v not in _LABELS]
    if unknown:
        raise BadInput(f"labels: expected 1, 0 (or -1, 2, 3), got {unknown[0]:g}")
    return marks.reshape(shape).to(torch.int32)
