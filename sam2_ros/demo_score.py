"""Scores a tracked run, its quality and its speed, against the ground truth of the same images.

Knows TrackArray messages. Does not know where they come from. Only (image, object) pairs after the prompted image
count.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import sam2
from sam2_ros.msg import Track, TrackArray
from sam2_ros.ros_time import stamp_ns

SHORTEST_ABSENCE = 3  # images; a shorter one is a flicker
RETURN_WITHIN = 5  # results after its return within which an object must be found again
_FOUND_IOU = 0.5


class Seen:
    """A Track message with the fields of a `sam2.Track` that pictures need. The mask is decoded on every access,
    because those of a whole run do not fit into memory."""

    def __init__(self, message: Track) -> None:
        self._message = message
        self.object_id, self.label, self.presence = message.object_id, message.label, message.presence
        self.state = sam2.State(message.state)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        packed = self._message.mask
        mask = np.zeros((packed.image_height, packed.image_width), bool)
        if packed.width and packed.height:
            crop = sam2.rle_decode(np.array(packed.counts), (packed.height, packed.width))
            mask[packed.y : packed.y + packed.height, packed.x : packed.x + packed.width] = crop
        return mask

    @property
    def box_xywh(self) -> tuple[int, int, int, int] | None:
        """x, y, width, height in pixels; None if the mask is empty."""
        packed = self._message.mask
        return (packed.x, packed.y, packed.width, packed.height) if packed.width and packed.height else None


@dataclass
class Result:
    """The tracker's result for one image, and its ground truth."""

    frame: int  # number of the image, from 0
    stamp_ns: int
    age_s: float  # from the image's stamp until its result arrived
    tracks: dict[str, Seen]
    truth: dict[str, Seen]
    unseen: dict[str, int]  # by id: in how many images so far, with or without a result, it was out of view

    @cached_property
    def ious(self) -> dict[str, float]:
        """IoU by id, for objects whose mask or true mask has a pixel in this image."""
        found: dict[str, float] = {}
        for name, track in self.tracks.items():
            mask, true = track.mask, self.truth[name].mask
            union = np.count_nonzero(mask | true)
            if union:
                found[name] = np.count_nonzero(mask & true) / union
        return found

    def is_right(self, name: str) -> bool:
        """Whether the tracker was right about the object being in view or not."""
        return (self.tracks[name].state is sam2.State.VISIBLE) == self.is_in_view(name)

    def is_in_view(self, name: str) -> bool:
        return self.truth[name].state is sam2.State.VISIBLE


@dataclass(frozen=True)
class Absence:
    """An object away from results[gone] until results[back]; indices into the results."""

    name: str
    gone: int
    back: int
    found: bool  # within RETURN_WITHIN results, with its own mask


@dataclass(frozen=True)
class Score:
    """mean_iou: over pairs whose prediction or truth is not empty. visibility: share of pairs where it is right."""

    images: int  # that the camera published
    results: int
    fps: float  # of the results
    age_p50_s: float  # of a result, from its image's stamp to its arrival
    age_p95_s: float
    mean_iou: float
    visibility: float
    iou_by_id: dict[str, float]
    visibility_by_id: dict[str, float]
    absences: list[Absence]

    @property
    def dropped(self) -> int:
        """Images without a result."""
        return self.images - self.results


def images_answered(answers: Sequence[tuple[TrackArray, int]]) -> int:
    """How many images the answers are about; one that is prompted while the camera is slow has two."""
    return len({stamp_ns(answer.header.stamp) for answer, _ in answers})


def pair_up(
    answers: Sequence[tuple[TrackArray, int]], truths: Sequence[TrackArray], names: Collection[str]
) -> list[Result]:
    """Pairs each answer with the ground truth of its stamp; answers without one are left out. answers: with arrival
    times (ns, on the clock of the stamps). names: of the objects that count; others may have prompted more."""
    frames, results = {}, []
    so_far: Counter[str] = Counter()  # by id: images out of view
    for number, truth in enumerate(truths):
        so_far.update(track.object_id for track in truth.tracks if track.state != Track.VISIBLE)
        frames[stamp_ns(truth.header.stamp)] = number, truth, so_far.copy()
    for answer, arrived_ns in answers:
        stamp = stamp_ns(answer.header.stamp)
        if stamp not in frames:
            continue
        number, truth, unseen = frames[stamp]
        tracks = {track.object_id: Seen(track) for track in answer.tracks if track.object_id in names}
        true = {track.object_id: Seen(track) for track in truth.tracks}
        results.append(Result(number, stamp, (arrived_ns - stamp) / 1e9, tracks, true, unseen))
    return results


def score(results: Sequence[Result], images: int, answers: int, prompted_ns: int) -> Score:
    """Scores the results after the prompted image. images, answers: how many there were, judged or not. prompted_ns:
    stamp of the image the prompts were made on.

    Raises sam2.BadInput if nothing can be judged.
    """
    judged = [result for result in results if result.stamp_ns > prompted_ns and result.tracks]
    if len(judged) < 2:
        raise sam2.BadInput(
            f"{len(results)} results, {len(judged)} of them with objects: expected two or more to judge"
        )
    names = sorted({name for result in judged for name in result.tracks})
    ious = {name: [r.ious[name] for r in judged if name in r.ious] for name in names}
    right = {name: [r.is_right(name) for r in judged if name in r.tracks] for name in names}
    ages = [result.age_s for result in judged]
    lasted_s = (judged[-1].stamp_ns + judged[-1].age_s * 1e9 - judged[0].stamp_ns - judged[0].age_s * 1e9) / 1e9
    every_iou = [value for values in ious.values() for value in values]
    return Score(
        images=images,
        results=answers,
        fps=(len(judged) - 1) / max(lasted_s, 1e-9),
        age_p50_s=float(np.percentile(ages, 50)),
        age_p95_s=float(np.percentile(ages, 95)),
        mean_iou=float(np.mean(every_iou)) if every_iou else 0.0,
        visibility=float(np.mean([value for values in right.values() for value in values])),
        iou_by_id={name: float(np.mean(values)) if values else 0.0 for name, values in ious.items()},
        visibility_by_id={name: float(np.mean(values)) for name, values in right.items()},
        absences=[absence for name in names for absence in find_absences(results, name)],
    )


def find_absences(results: Sequence[Result], name: str) -> list[Absence]:
    """Absences of one object after it was first tracked, without one that lasts to the end of the results."""
    absences, before, gone = [], None, None
    for index, result in enumerate(results):
        if name not in result.tracks:
            continue
        if not result.is_in_view(name):
            gone = index if gone is None else gone
            continue
        if before and gone is not None and result.unseen[name] - before.unseen[name] >= SHORTEST_ABSENCE:
            window = results[index : index + RETURN_WITHIN]
            found = any(later.ious.get(name, 0.0) >= _FOUND_IOU for later in window)
            absences.append(Absence(name, gone, index, found))
        before, gone = result, None
    return absences


def table(run: Score) -> str:
    """The score as a table for people."""
    returns = f"{sum(absence.found for absence in run.absences)} of {len(run.absences)}"
    rows = [
        ("images from the camera", f"{run.images}"),
        ("results", f"{run.results}"),
        ("dropped for newer ones", f"{run.dropped}"),
        ("results per second", f"{run.fps:.1f}"),
        ("age of a result, median", f"{run.age_p50_s * 1e3:.0f} ms"),
        ("age of a result, 95 %", f"{run.age_p95_s * 1e3:.0f} ms"),
        ("mean IoU", f"{run.mean_iou:.3f}"),
        ("visibility accuracy", f"{run.visibility:.1%}"),
        ("found again after an absence", returns),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value:>8}" for name, value in rows]
    each = [
        f"  {name:<{width}}  IoU {iou:.3f}, visibility {run.visibility_by_id[name]:.1%}"
        for name, iou in run.iou_by_id.items()
    ]
    return "\n".join([*lines, "", *each])
