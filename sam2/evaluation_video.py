"""Tracks and scores one video: where its frames and truth come from, how objects are prompted, what is recorded.

A tracker is anything with `reset()`, `check(prompts, frame)` and `step(frame, prompts)`. Knows nothing about result
files, processes or the command line.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from sam2 import metrics
from sam2.errors import BadInput, MaskTooThin
from sam2.masks import bounding_box, label_mask
from sam2.training.dataset_masks import Masks
from sam2.training.datasets import Video
from sam2.training.synthetic import World
from sam2.types import Frame, Prompt, State, Track

PROMPT_KINDS = ("click", "box", "mask")
SHORTEST = 3  # frames, or annotated frames, of a video: the first and the last are not scored
_FRAME_NS = 33_333_333  # between frames: every video is played at 30 per second
_SMALLEST_PROMPTED = 2e-3  # of the image; synthetic objects that show less than this in frame 0 are not prompted


class StreamTracker(Protocol):
    """What is evaluated; `sam2.Tracker` is one."""

    def reset(self) -> None: ...

    def check(self, prompts: Prompt, frame: Frame) -> object: ...

    def step(self, frame: Frame, prompts: list[Prompt]) -> list[Track]: ...


class Annotated(NamedTuple):
    rgb: np.ndarray  # (H, W, 3) uint8
    masks: Masks | None  # of objects in sight, empty ones of absent objects; None if the frame is not annotated


@lru_cache(maxsize=1)
def _world(seed: int, side: int) -> World:
    return World(seed, (side, side))


@dataclass(frozen=True)
class SyntheticVideo:
    """The first frames of a world of the default difficulty; objects visible in frame 0 are tracked."""

    seed: int
    num_frames: int
    side: int  # pixels, square

    @property
    def name(self) -> str:
        return f"synthetic_{self.seed}"

    may_overlap = False

    def tags(self, object_id: int) -> list[str]:
        return sorted(_world(self.seed, self.side).tags[object_id - 1])

    def wants(self, index: int, mask: np.ndarray) -> bool:
        """Whether an object first seen like this is prompted."""
        return index == 0 and bool(mask.mean() >= _SMALLEST_PROMPTED)

    def frames(self) -> Iterator[Annotated]:
        for t in range(self.num_frames):
            frame = _world(self.seed, self.side).frame(t)
            yield Annotated(frame.rgb, {k + 1: mask for k, mask in enumerate(frame.masks) if frame.visible[k]})


@dataclass(frozen=True)
class RecordedVideo:
    """A video of a dataset on disk; every object is tracked from the frame it first appears in."""

    video: Video
    may_overlap: bool = False  # whether objects have masks of their own, as in SA-V, not one label image

    @property
    def name(self) -> str:
        return self.video.name

    def tags(self, object_id: int) -> list[str]:
        return []

    def wants(self, index: int, mask: np.ndarray) -> bool:
        return bool(mask.any())

    def frames(self) -> Iterator[Annotated]:
        for index, rgb in enumerate(self.video.frames()):
            masks = self.video.masks.get(index)
            for object_id, mask in (masks or {}).items():
                if mask.shape != rgb.shape[:2]:
                    raise BadInput(
                        f"video {self.name}: expected masks of the frames' size {rgb.shape[:2]}, got {mask.shape} "
                        f"of object {object_id} in frame {index}; resize them without interpolation, or leave the "
                        "video out"
                    )
            yield Annotated(rgb, masks)


AnyVideo = SyntheticVideo | RecordedVideo


def check_annotated(videos: list[Video], which: str) -> None:
    """Raises BadInput unless at least half of the videos can be scored. Those stored as video files count as such:
    reading their masks takes too long."""
    enough = sum(not isinstance(video.source, tuple) or len(video.masks) >= SHORTEST for video in videos)
    if 2 * enough < len(videos):
        raise BadInput(
            f"{which}: expected masks of {SHORTEST} frames or more in each video, found them in {enough} of "
            f"{len(videos)}; where only first frames are annotated, the benchmark's server scores: use another --split"
        )


@dataclass
class ObjectResult:
    """One tracked object over the T annotated frames from its first on; IoU and F as fractions."""

    object_id: int
    tags: list[str]
    frames: list[int] = field(default_factory=list)
    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)
    there: list[bool] = field(default_factory=list)  # in the image, by the ground truth
    seen: list[bool] = field(default_factory=list)  # in the image, by the prediction
    returns: dict[int, bool] = field(default_factory=dict)  # frame of return -> whether it was re-acquired
    leading: int = 1  # J and F leave out so many of the first frames, and the last


@dataclass
class VideoResult:
    name: str
    num_frames: int
    seconds: float  # spent in the tracker
    objects: list[ObjectResult]
    failure: str = ""  # why the other fields are empty


def prompt_for(object_id: int, mask: np.ndarray, kind: str) -> Prompt:
    """The prompt that a user would give for `mask` (H, W): its innermost pixel, its tight box, or the mask itself.

    A box spans pixel centres and is at least one pixel wide and high: around a single row or column it includes the
    next one. The mask is not empty.
    """
    if kind == "mask":
        return Prompt(str(object_id), mask=mask)
    if kind == "box":
        box = bounding_box(mask)
        assert box is not None
        x, y, width, height = box
        return Prompt(str(object_id), box_xyxy=[x, y, x + max(width - 1, 1), y + max(height - 1, 1)])
    if kind == "click":
        inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        row, column = np.unravel_index(np.argmax(inside), mask.shape)
        return Prompt(str(object_id), points_xy=[(float(column), float(row))], labels=[1])
    raise BadInput(f"prompt {kind!r}: expected one of {', '.join(PROMPT_KINDS)}")


def evaluate_video(video: AnyVideo, tracker: StreamTracker, kind: str) -> VideoResult:
    """Plays a video to a tracker, prompts each object once, by `kind` of PROMPT_KINDS, and scores every answer.

    Where predicted masks overlap, the larger logit wins, as in benchmarks whose results are label images, unless the
    video's masks `may_overlap`: such a video is scored as SA-V's toolkit does. An object whose mask is too thin for a
    prompt counts as missed. The tracker is reset first.
    """
    tracker.reset()
    objects: dict[int, ObjectResult] = {}
    overlaps: dict[int, list[tuple[float, float]]] = {}
    known, late = set[int](), set[int]()
    annotated, seconds, index = [], 0.0, -1
    for index, (rgb, masks) in enumerate(video.frames()):
        first_seen = {k: m for k, m in (masks or {}).items() if k not in objects and video.wants(index, m)}
        frame = Frame(rgb, (index + 1) * _FRAME_NS)
        prompts = [prompt_for(object_id, mask, kind) for object_id, mask in first_seen.items()]
        prompts = [prompt for prompt in prompts if _can_be_given(prompt, frame, tracker)]
        began = time.perf_counter()
        tracks = tracker.step(frame, prompts)
        seconds += time.perf_counter() - began
        if masks is None:
            continue
        annotated.append(index)
        objects |= {k: ObjectResult(k, video.tags(k)) for k in first_seen}
        late |= first_seen.keys() & known
        known |= masks.keys()
        # Where objects have masks of their own, a frame may be annotated for some of them only.
        judged = {k: result for k, result in objects.items() if k in masks or not video.may_overlap}
        missed = dict.fromkeys(judged, Prediction(np.zeros(frame.size_hw, bool), is_seen=False))
        predictions = missed | _predictions(tracks, frame.size_hw, video.may_overlap)
        _score_frame(index, masks, predictions, judged, overlaps)
    is_dense = bool((np.diff(annotated) == 1).all())
    for k, result in objects.items():
        if video.may_overlap:
            result.leading = metrics.leading_frames_of_sav(result.j, result.there, is_late=k in late)
        if is_dense:
            result.returns = _found_again(result, overlaps[k])
    return VideoResult(video.name, index + 1, seconds, list(objects.values()))


def _can_be_given(prompt: Prompt, frame: Frame, tracker: StreamTracker) -> bool:
    """Whether the prompt is not a mask too thin for the network's input size."""
    try:
        tracker.check(prompt, frame)
    except MaskTooThin:
        return False
    return True


class Prediction(NamedTuple):
    mask: np.ndarray  # (H, W) bool
    is_seen: bool


def _predictions(tracks: list[Track], size_hw: tuple[int, int], may_overlap: bool) -> dict[int, Prediction]:
    labels = None if may_overlap else label_mask(tracks, size_hw)
    masks = [track.mask if labels is None else labels == track.label for track in tracks]
    return {
        int(track.object_id): Prediction(mask, track.state is State.VISIBLE)
        for track, mask in zip(tracks, masks, strict=True)
    }


def _score_frame(
    index: int,
    masks: Masks,
    predictions: dict[int, Prediction],
    objects: dict[int, ObjectResult],
    overlaps: dict[int, list[tuple[float, float]]],
) -> None:
    """Adds one annotated frame to these objects' results; to `overlaps` the IoU of each with its own true mask, and the
    largest with that of another object in sight."""
    masks = {object_id: mask for object_id, mask in masks.items() if mask.any()}
    for object_id, result in objects.items():
        predicted, is_seen = predictions[object_id]
        is_there = object_id in masks
        true = masks[object_id] if is_there else np.zeros_like(predicted)
        j = metrics.region_similarity(predicted, true)
        result.frames.append(index)
        result.j.append(j)
        result.f.append(metrics.boundary_accuracy(predicted, true))
        result.there.append(is_there)
        result.seen.append(is_seen)
        others = (metrics.region_similarity(predicted, mask) for other, mask in masks.items() if other != object_id)
        overlaps.setdefault(object_id, []).append((j if is_there else 0.0, max(others, default=0.0)))


def _found_again(result: ObjectResult, pairs: list[tuple[float, float]]) -> dict[int, bool]:
    """For every return that can be judged, by frame: whether the tracker re-acquired the object."""
    found = {}
    for back in metrics.returns(np.array(result.there)):
        verdict = metrics.reacquired(pairs, back)
        if verdict is not None:
            found[result.frames[back]] = verdict
    return found
