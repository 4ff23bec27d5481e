"""What the network does for objects in one frame: track a batch of them, or apply a prompt to one of them.

All device work of the stream is here. Reads and writes memories through the objects' banks; does not decide which
frames and prompts to process.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sam2.graphs import CudaGraph, Replayed
from sam2.history import Moment
from sam2.limits import Limits
from sam2.memory_store import MemoryStore, Reading, Writing
from sam2.model import SAM2, Features, Segmentation, is_ambiguous
from sam2.model_prompt import ModelPrompt
from sam2.preprocess import as_pixels, as_prompt, to_model_input, to_model_input_on_device
from sam2.small_holes import fill_small_holes
from sam2.tracked_object import TrackedObject

_CPU_BATCH = 4  # oneDNN compiles and keeps kernels for every batch size: some 14 MB each with nano


class Answer(NamedTuple):
    """The network's output for N objects in a frame; on the device until `report.to_host` copies it."""

    logits: Tensor  # (N, 1, 4h, 4w) float32, small holes filled
    iou: Tensor  # (N,)
    object_score: Tensor  # (N, 1)
    is_finite: Tensor  # (N,) bool: no NaN or infinity in the answer or in the memory made of it

    def split(self) -> list["Answer"]:
        return [Answer(*(part[i : i + 1] for part in self)) for i in range(self.logits.shape[0])]


def batches(groups: Iterable[list[TrackedObject]], device: torch.device) -> Iterator[list[TrackedObject]]:
    """Yields the groups as batches: whole on a GPU, on a CPU at most `_CPU_BATCH` objects at a time."""
    for group in groups:
        size = _CPU_BATCH if device.type == "cpu" else len(group)
        yield from (group[start : start + size] for start in range(0, len(group), size))


class FrameStep:
    """The network and the memories of one tracker's objects (`store`), with the steps that a GPU replays as graphs."""

    def __init__(self, model: SAM2, limits: Limits, fill_hole_area: int):
        self._model = model
        self._fill_hole_area = fill_hole_area
        self.device = model.device
        self.store = MemoryStore(model, limits)
        # None of these functions refers to self: such a cycle would keep model and memories on the device until the
        # next garbage collection.
        self._encode = Replayed(lambda images: model.encode_image(images), _capture_on(model.device))
        self._self_attend = Replayed(lambda stride16: (model.self_attend(stride16),), _capture_on(model.device))
        self._track_and_remember = Replayed(partial(_track_and_remember, model, self.store), _capture_on(model.device))
        self._capacity = self.store.capacity

    def forget_graphs(self) -> None:
        """Drops all graphs and frees their memory; a graph is captured again once its step has run often enough."""
        for replayed in (self._encode, self._self_attend, self._track_and_remember):
            replayed.forget()

    def encode(self, images: Sequence[np.ndarray]) -> Features:
        """Encodes checked images, (H, W, 3) uint8 of any sizes, as one batch."""
        return Features(*self._encode(torch.cat([self._to_input(rgb) for rgb in images])))

    def _to_input(self, rgb: np.ndarray) -> Tensor:
        """(1, 3, S, S) on the model's device."""
        side = self._model.image_size
        if self.device.type == "cpu":
            return to_model_input(rgb, side)[None]
        pixels = as_pixels(rgb).pin_memory().to(self.device, non_blocking=True)  # as uint8, a quarter of the bytes
        return to_model_input_on_device(pixels, side)

    def self_attend(self, moment: Moment) -> Tensor:
        """(1, hw, C): the part of memory attention that all objects tracked in a frame share."""
        return self._self_attend(moment.features.stride16)[0]

    def track(self, objects: Sequence[TrackedObject], moment: Moment, self_attended: Tensor) -> Answer:
        """Attends, decodes and remembers for objects whose recalls for this frame have the same shape. self_attended:
        (1, hw, C)."""
        rows = [obj.row for obj in objects]
        reading = self.store.reading(rows, [obj.bank.recall(moment.index) for obj in objects])
        writing = self.store.writing(rows, [obj.bank.slots(moment.index, is_prompted=False) for obj in objects])
        if self._capacity != self.store.capacity:
            self._capacity = self.store.capacity
            self._track_and_remember.forget()
        logits, *rest = self._track_and_remember(*moment.features, self_attended, *reading, *writing)
        return Answer(fill_small_holes(logits, self._fill_hole_area), *rest)

    def apply_prompt(
        self, obj: TrackedObject, prompt: ModelPrompt, moment: Moment, previous: Tensor | None, is_prompted: bool
    ) -> Answer:
        """Applies a prompt to one object and writes its memory, to a prompted slot if `is_prompted`, else to a recent
        one.

        `previous` (1, 1, 4h, 4w): logits that points refine. An object without memories is segmented from the image
        alone.
        """
        features = moment.features
        if prompt.mask is not None:
            answer = self._model.segment_mask(features, prompt.mask_tensor(self.device))
        else:
            answer = self._answer_points(obj, prompt, moment, previous)
        answer = answer._replace(low_res_logits=fill_small_holes(answer.low_res_logits, self._fill_hole_area))
        writing = self.store.writing([obj.row], [obj.bank.slots(moment.index, is_prompted)])
        is_finite = _remember(self._model, self.store, features, writing, answer, from_prompt=True)
        return Answer(answer.low_res_logits, answer.iou, answer.object_score, is_finite)

    def _answer_points(
        self, obj: TrackedObject, prompt: ModelPrompt, moment: Moment, previous: Tensor | None
    ) -> Segmentation:
        if obj.bank.can_recall(moment.index):
            reading = self.store.reading([obj.row], [obj.bank.recall(moment.index)])
            pixels = self._model.attend(self.self_attend(moment), *self.store.gather(reading))
        else:
            pixels = self._model.no_memory(moment.features.stride16)
        points, labels = prompt.points(self.device)
        mask_input = None if previous is None else as_prompt(previous)
        decoded = self._model.decode(moment.features, pixels, points, labels, mask_input)
        return self._model.select(decoded, multimask=is_ambiguous(labels.shape[1]))


def _track_and_remember(model: SAM2, store: MemoryStore, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The device part of `track`: features, self_attended, reading and writing -> an `Answer`'s parts, before small
    holes are filled."""
    features, self_attended = Features(*tensors[:3]), tensors[3]
    reading, writing = Reading(*tensors[4:9]), Writing(*tensors[9:])
    pixels = model.attend(self_attended, *store.gather(reading))
    answer = model.select(model.decode(features, pixels), multimask=True)
    is_finite = _remember(model, store, features, writing, answer, from_prompt=False)
    return answer.low_res_logits, answer.iou, answer.object_score, is_finite


def _remember(
    model: SAM2, store: MemoryStore, features: Features, writing: Writing, answer: Segmentation, from_prompt: bool
) -> Tensor:
    """Writes the memory of an answer; returns (N,) bool: whether both are finite, so that the memory may be used."""
    logits, score = answer.low_res_logits, answer.object_score
    maskmem = model.encode_memory(features.stride16, logits, score, from_prompt)
    store.write(writing, maskmem, answer.pointer)
    parts = (logits, score, answer.iou[:, None], answer.pointer, maskmem)
    return torch.stack([part.isfinite().flatten(1).all(dim=1) for part in parts]).all(dim=0)


def _capture_on(device: torch.device) -> Callable | None:
    """The capture function for `Replayed`, with a stream of its own; None on a CPU, where there is nothing to gain."""
    return partial(CudaGraph, stream=torch.cuda.Stream(device)) if device.type == "cuda" else None
