"""Associates a detector's boxes with tracked objects: which box shows which object, which is new, which is ignored.

Deterministic: the same detections and tracks give the same decisions. Knows no messages and changes no object;
`auto_prompt` makes requests of what `Association.step` returns. Boxes are x0, y0, x1, y1 in pixels of the source image.

A box belongs to a visible object if it overlaps the box of its mask or contains most of the mask. It is then ignored
or, if box and mask have drifted apart, refreshes the object. Of several boxes on an object only one counts. Detectors
flicker, so a box on no object must be seen in `confirm` messages in a row, near where it was. It then becomes a new
object, or prompts an object of its class that went out of sight nearby.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

import sam2
from sam2_ros.params import Settings

NEARBY = 1.5  # box sizes; a hidden object last seen nearer to a box than this may be what the box shows
STEADY = 0.75  # box sizes that a box may move from message to message
INSIDE = 0.7  # with at least this share of its mask inside a box, an object is part of what the box shows
TWIN = 0.7  # two masks with at least this intersection over union show the same thing
LOOKED_FOR = 30  # images in which an object must be unseen before it is removed, so that a camera pause removes nothing
MOST = 300  # only the best boxes of a message are considered; a flood of boxes must not stall the tracking


@dataclass(frozen=True)
class Detection:
    box_xyxy: np.ndarray  # (4,) pixels
    class_name: str = ""
    score: float = 1.0


@dataclass
class Decisions:
    """What to do about one message of detections; `Association.step` fills it in."""

    new: list[Detection] = field(default_factory=list)
    refresh: list[tuple[str, Detection]] = field(default_factory=list)  # by object id; replaces the object's memory
    remove: list[str] = field(default_factory=list)  # object ids
    ignored: Counter[str] = field(default_factory=Counter)  # boxes, by reason


@dataclass(frozen=True)
class _Candidate:
    detection: Detection
    seen: int  # in so many messages in a row


class Association:
    """Remembers boxes that are not confirmed yet, and where objects were last seen. settings: the rules, which do not
    change while the node runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._candidates: list[_Candidate] = []
        self._last_box: dict[str, tuple[int, np.ndarray]] = {}  # stamp and box by object id
        self._apart: dict[str, int] = {}  # messages in a row whose box overlapped its object too little, by id

    def step(self, detections: Sequence[Detection], tracks: Sequence[sam2.Track], now_ns: int) -> Decisions:
        """Decides about one message. tracks: of the image that it is about, or of the nearest; now_ns: its stamp."""
        decisions = Decisions(remove=self.forgotten(tracks, now_ns))
        boxes = boxes_of(tracks)
        self._keep(now_ns, boxes)
        self._apart = {t.object_id: self._apart.get(t.object_id, 0) for t in tracks}
        live = [track for track in tracks if track.object_id in boxes]
        free = self._assign(self._accepted(detections, decisions), live, boxes, decisions)
        hidden = [t for t in tracks if t.object_id not in boxes and t.object_id not in decisions.remove]
        self._settle(free, hidden, len(tracks) - len(decisions.remove), decisions)
        return decisions

    def note(self, before: Sequence[sam2.Track], before_ns: int, tracks: Sequence[sam2.Track]) -> None:
        """Notes where objects went out of sight. before, before_ns: tracks and stamp of the image before `tracks`."""
        self._last_box = {t.object_id: self._last_box[t.object_id] for t in tracks if t.object_id in self._last_box}
        hidden = {track.object_id for track in tracks if track.state is not sam2.State.VISIBLE}
        self._keep(before_ns, boxes_of([track for track in before if track.object_id in hidden]))

    def forgotten(self, tracks: Sequence[sam2.Track], now_ns: int) -> list[str]:
        """Ids of objects that have been unseen for too long."""
        forget_s = self._settings.detector_forget_s
        if not (self._settings.detector_unattended and forget_s):
            return []
        gone = [t for t in tracks if t.state is not sam2.State.VISIBLE and t.frames_since_seen >= LOOKED_FOR]
        return [track.object_id for track in gone if now_ns - track.last_seen_ns > forget_s * 1e9]

    def _keep(self, stamp_ns: int, boxes: dict[str, np.ndarray]) -> None:
        """Keeps the newest sighting of each object; a message may be about an old image."""
        for name, box in boxes.items():
            if name not in self._last_box or self._last_box[name][0] <= stamp_ns:
                self._last_box[name] = stamp_ns, box

    def _accepted(self, detections: Sequence[Detection], decisions: Decisions) -> list[Detection]:
        """The detections that the settings allow, the best MOST of them, by falling score and without duplicates."""
        passed = []
        for detection in detections:
            reason = self._why_not(detection)
            if reason:
                decisions.ignored[reason] += 1
            else:
                passed.append(detection)
        passed.sort(key=lambda d: -d.score)
        if len(passed) > MOST:
            decisions.ignored["too many"] = len(passed) - MOST
        passed = passed[:MOST]
        overlaps = ious(_stacked(passed), _stacked(passed)) >= self._settings.detector_overlap  # (N, N)
        taken: list[int] = []
        for index in range(len(passed)):
            if overlaps[index, taken].any():
                decisions.ignored["double"] += 1
            else:
                taken.append(index)
        return [passed[index] for index in taken]

    def _why_not(self, detection: Detection) -> str:
        """What excludes a detection; "" if nothing does."""
        x0, y0, x1, y1 = detection.box_xyxy
        if not np.isfinite(detection.box_xyxy).all() or x1 <= x0 or y1 <= y0:
            return "box"
        if self._settings.detector_classes != ("",) and detection.class_name not in self._settings.detector_classes:
            return "class"
        return "" if detection.score >= self._settings.detector_least_score else "score"  # NaN fails, too

    def _assign(
        self, accepted: list[Detection], live: list[sam2.Track], boxes: dict[str, np.ndarray], decisions: Decisions
    ) -> list[Detection]:
        """Refreshes objects that have drifted from their box; returns the boxes that are on no object."""
        table = ious(_stacked(accepted), np.array([boxes[t.object_id] for t in live]).reshape(-1, 4))  # (N, M)
        matched = self._match(accepted, live, table)
        for index, (overlap, track) in matched.items():
            drifted = overlap < self._settings.detector_refresh_below and _are_alike(track, accepted[index])
            self._apart[track.object_id] = self._apart[track.object_id] + 1 if drifted else 0
            if drifted and self._apart[track.object_id] >= self._settings.detector_confirm:
                self._apart[track.object_id] = 0
                decisions.refresh.append((track.object_id, accepted[index]))
            else:
                decisions.ignored["tracked"] += 1
        free = []
        for index, detection in enumerate(accepted):
            if index in matched:
                continue
            near = [live[k] for k in np.flatnonzero(table[index])]
            if (table[index] >= self._settings.detector_overlap).any() or any(_is_part(t, detection) for t in near):
                decisions.ignored["part of a tracked object"] += 1
            else:
                free.append(detection)
        return free

    def _match(
        self, accepted: list[Detection], live: list[sam2.Track], table: np.ndarray
    ) -> dict[int, tuple[float, sam2.Track]]:
        """The object of each box that has one, with their overlap, by index of the box: best pairs first, each box and
        object once. table: (N, M) intersection over union."""
        overlaps = [(table[i, k], i, live[k]) for i, k in np.argwhere(table > 0)]
        matched, taken = {}, set()
        for overlap, index, track in sorted(overlaps, key=lambda pair: -pair[0]):
            if index in matched or track.object_id in taken:
                continue
            if overlap >= self._settings.detector_overlap or _is_part(track, accepted[index]):
                matched[index] = overlap, track
                taken.add(track.object_id)
        return matched

    def _settle(self, free: list[Detection], hidden: list[sam2.Track], count: int, decisions: Decisions) -> None:
        """Turns confirmed boxes into prompts for hidden objects, or new objects. count: of the objects that stay."""
        candidates, hidden = [], list(hidden)
        near = _are_near([c.detection for c in self._candidates], free)  # (candidates, free)
        for index, detection in enumerate(free):
            before = next((self._candidates[k] for k in np.flatnonzero(near[:, index])), None)
            candidate = _Candidate(detection, before.seen + 1 if before else 1)
            if candidate.seen < self._settings.detector_confirm:
                candidates.append(candidate)
                decisions.ignored["not confirmed yet"] += 1
                continue
            again = self._same_as_hidden(detection, hidden)
            if again is not None:
                hidden.remove(again)
                decisions.refresh.append((again.object_id, detection))
            elif count + len(decisions.new) >= self._settings.max_objects:
                decisions.ignored["no place left"] += 1
            else:
                decisions.new.append(detection)
        self._candidates = candidates

    def _same_as_hidden(self, detection: Detection, hidden: list[sam2.Track]) -> sam2.Track | None:
        """The object that went out of sight nearest to the box, if that is near enough."""
        best, least = None, math.inf
        for track in hidden:
            _, last = self._last_box.get(track.object_id, (0, None))
            if last is None or track.class_name != detection.class_name:
                continue
            far = float(_distances(last[None], detection.box_xyxy[None])[0, 0])
            if far < min(least, NEARBY):
                best, least = track, far
        return best


def ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union of boxes (N, 4) with boxes (M, 4)."""
    a, b = a[:, None].astype(np.float64), b[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])  # (N, M, 2)
    inter = np.clip(sides, 0, None).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def boxes_of(tracks: Sequence[sam2.Track]) -> dict[str, np.ndarray]:
    """(4,) x0, y0, x1, y1 around the mask of each visible object, by id."""
    found = {track.object_id: track.box_xywh for track in tracks}
    return {name: np.array([b[0], b[1], b[0] + b[2], b[1] + b[3]], np.float32) for name, b in found.items() if b}


def twin_of(track: sam2.Track, others: Sequence[sam2.Track], boxes: dict[str, np.ndarray]) -> str:
    """Id of the first visible object among `others` whose mask nearly equals that of `track` (TWIN); "" if none does.

    boxes: of all these objects, from `boxes_of`.
    """
    mine = boxes.get(track.object_id)
    for other in others:
        theirs = boxes.get(other.object_id)
        if other is track or mine is None or theirs is None or ious(mine[None], theirs[None])[0, 0] < TWIN / 2:
            continue
        if np.count_nonzero(track.mask & other.mask) >= TWIN * np.count_nonzero(track.mask | other.mask):
            return other.object_id
    return ""


def as_prompt(detection: Detection, object_id: str, stamp_ns: int, size_hw: tuple[int, int]) -> sam2.Prompt | None:
    """A prompt with the box, clipped to the image; None if too little is left. object_id: of a live object, whose
    memory the prompt replaces; "" = a new one."""
    height, width = size_hw
    box = np.clip(detection.box_xyxy, 0, [width, height, width, height]).astype(np.float32)
    if (box[2:] - box[:2] < 1).any():
        return None
    mode = sam2.PromptMode.REPLACE if object_id else sam2.PromptMode.ADD
    return sam2.Prompt(object_id, box_xyxy=box, stamp_ns=stamp_ns, mode=mode, class_name=detection.class_name)


def _is_part(track: sam2.Track, detection: Detection) -> bool:
    """Whether the object may be part of what the box shows; a cup in front of a person is not, by its class."""
    return _are_alike(track, detection) and _share_inside(track, detection.box_xyxy) >= INSIDE


def _are_alike(track: sam2.Track, detection: Detection) -> bool:
    """Whether both may be of the same class; an empty class name matches any."""
    return track.class_name == detection.class_name or not (track.class_name and detection.class_name)


def _share_inside(track: sam2.Track, box: np.ndarray) -> float:
    """The share of the object's pixels that is inside the box."""
    height, width = track.size_hw  # to which it is cut, since not every float is an int
    x0, y0, x1, y1 = np.clip(np.rint(box), 0, [width, height, width, height]).astype(int)
    total = np.count_nonzero(track.mask)
    return np.count_nonzero(track.mask[y0:y1, x0:x1]) / total if total else 0.0


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) between the centres of boxes (N, 4) and (M, 4), in sizes of the larger box."""
    a, b = a.astype(np.float64), b.astype(np.float64)  # the squares of some float32 are too large for float32
    size = np.maximum(*(np.sqrt((x[..., 2:] - x[..., :2]).prod(-1)) for x in (a[:, None], b[None])))
    centre_a, centre_b = ((x[..., :2] + x[..., 2:]) / 2 for x in (a[:, None], b[None]))
    return np.linalg.norm(centre_a - centre_b, axis=-1) / size


def _are_near(before: Sequence[Detection], now: Sequence[Detection]) -> np.ndarray:
    """(N, M) bool: whether detections (N) of the message before and (M) of this one are near and of the same class."""
    names = np.array([d.class_name for d in before], object)[:, None] == np.array([d.class_name for d in now], object)
    return names & (_distances(_stacked(before), _stacked(now)) < STEADY)


def _stacked(detections: Sequence[Detection]) -> np.ndarray:
    """(N, 4) boxes."""
    return np.array([d.box_xyxy for d in detections], np.float64).reshape(-1, 4)
