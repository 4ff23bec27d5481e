"""What the tests feed the node: a tracker without a network, images in every encoding, and bad streams.

`FakeTracker` keeps the contract of `sam2.Tracker` and can be told to be slow, to raise, or to return INVALID tracks.
`FaultSchedule` turns any clean stream into a bad one; the same seed gives the same faults. Knows no ROS node.
"""

import array
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

import sam2
from sam2.checks import check_begins, check_places
from sam2_ros.newest_result import NewestResult

LOW_RES = 64  # side of the fake logits


class FakeTracker:
    """Every object is a square around its first point that stays where it was put.

    delay: seconds each step takes; slow_on: (first, last, seconds), steps first to last - 1 take `seconds` instead.
    raise_on: {method name: error to raise, or a list of errors to raise one per call, None for "not this time"}.
    nan_on: step whose objects are INVALID. absent_on: steps in which none is visible. gate: an Event each step awaits.
    """

    batched = False
    # Not "cpu", for which the worker reserves memory: on a busy machine that outlasts a cleanup's patience.
    model = SimpleNamespace(description="a fake on no device", device=SimpleNamespace(type="none"))

    def __init__(
        self, delay=0.0, raise_on=None, nan_on=None, gate=None, absent_on=(), max_objects=16, history=30,
        slow_on=(0, 0, 0)
    ):  # fmt: skip
        self.delay, self.raise_on, self.nan_on, self.gate = delay, dict(raise_on or {}), nan_on, gate
        self.absent_on, self.max_objects, self.history = set(absent_on), max_objects, history
        self.slow_on, self.steps = slow_on, 0
        self.stepping = threading.Event()  # set from the moment the first step begins
        self.calls: list[str] = []  # method names, in order
        self.prompted: list[sam2.Prompt] = []
        self._objects: dict[str, _FakeObject] = {}
        self._stamps: list[int] = []
        self._newest: sam2.Frame | None = None

    @property
    def object_ids(self) -> list[str]:
        return list(self._objects)

    def sibling(self):
        return FakeTracker(
            self.delay, self.raise_on, self.nan_on, self.gate, self.absent_on, self.max_objects, self.history,
            self.slow_on,
        )  # fmt: skip

    def reset(self, keep=()):
        self._enter("reset")
        self._objects = {name: thing for name, thing in self._objects.items() if name in keep}
        self._stamps.clear()
        self._newest = None

    def warm_up(self):
        pass

    def encode_ahead(self, frame):
        self._enter("encode_ahead")

    def remove(self, object_id):
        self._enter("remove")
        if object_id not in self._objects:
            raise sam2.UnknownObject(f"object {object_id!r} is not tracked")
        del self._objects[object_id]

    def check(self, prompts, frame=None, seen=False):
        self._enter("check")
        prompts = [prompts] if isinstance(prompts, sam2.Prompt) else prompts
        kept_ns = [*self._stamps, *([frame.stamp_ns] if frame else ())][-self.history :] or [0]
        for number, prompt in enumerate(prompts):
            if prompt.object_id not in {*self._objects, *(one.object_id for one in prompts[:number])}:
                check_begins(prompt)
            if frame is not None:
                check_places(prompt, frame.size_hw)
            if prompt.stamp_ns and prompt.stamp_ns < min(kept_ns):
                raise sam2.Stale(f"prompt for {prompt.object_id!r}: {prompt.stamp_ns} is older than the kept history")
        self._check_limit(prompts)
        return [min(kept_ns[::-1], key=lambda ns: abs(ns - (one.stamp_ns or kept_ns[-1]))) for one in prompts]

    def step(self, frame, prompts=(), accept=lambda tracks: None, progress=lambda: None):
        """All or nothing, as the real one: an error leaves objects and history as they were."""
        self._enter("step")
        self.stepping.set()
        if self.gate is not None:
            self.gate.wait()
        first, last, seconds = self.slow_on
        time.sleep(seconds if first <= self.steps < last else self.delay)
        self._catch_up(prompts, progress)
        tracks = self._all_or_nothing(frame, prompts, accept, lambda: self._objects)
        self._stamps = [*self._stamps, frame.stamp_ns][-self.history :]
        self.steps += 1
        self._newest = frame
        return tracks

    def prompt(self, prompts, accept=lambda tracks: None, progress=lambda: None):
        self._enter("prompt")
        if self._newest is None:
            raise sam2.BadInput("prompt: expected a frame that was seen before, got none")
        self._catch_up(prompts, progress)
        return self._all_or_nothing(self._newest, prompts, accept, lambda: {one.object_id for one in prompts})

    def _catch_up(self, prompts, progress):
        oldest = min((prompt.stamp_ns for prompt in prompts if prompt.stamp_ns), default=0)
        for _ in [stamp_ns for stamp_ns in self._stamps if 0 < oldest <= stamp_ns]:
            progress()

    def _all_or_nothing(self, frame, prompts, accept, shown):
        self._check_limit(prompts)
        before = {name: replace(thing) for name, thing in self._objects.items()}
        for prompt in prompts:
            self._apply(prompt, frame)
        tracks = [self._track(name, frame) for name in sorted(shown(), key=lambda n: self._objects[n].label)]
        try:
            accept(tracks)
        except Exception:
            self._objects = before
            raise
        return tracks

    def _enter(self, method):
        self.calls.append(method)
        error = self.raise_on.get(method)
        if isinstance(error, list):
            error = error.pop(0) if error else None
        if error is not None:
            raise error

    def _check_limit(self, prompts):
        ids = {*self._objects, *(prompt.object_id for prompt in prompts)}
        if len(ids) > self.max_objects:
            raise sam2.LimitReached(f"{len(ids)} objects: at most {self.max_objects} are tracked")

    def _apply(self, prompt, frame):
        self.prompted.append(prompt)
        used = {thing.label for thing in self._objects.values()}
        label = next(n for n in range(1, 255) if n not in used)
        thing = self._objects.setdefault(prompt.object_id, _FakeObject(label, prompt.class_name))
        thing.xy = _centre(prompt, frame.size_hw)
        thing.last_seen_ns = frame.stamp_ns

    def _track(self, name, frame):
        thing = self._objects[name]
        state, score = sam2.State.VISIBLE, 6.0
        if self.steps in self.absent_on:
            state, score = sam2.State.OCCLUDED, -6.0
        if self.steps == self.nan_on:
            state, score = sam2.State.INVALID, 0.0
        visible = state is sam2.State.VISIBLE
        thing.last_seen_ns = frame.stamp_ns if visible else thing.last_seen_ns
        thing.frames_since_seen = 0 if visible else thing.frames_since_seen + 1
        return sam2.Track(
            object_id=name, class_name=thing.class_name, label=thing.label, state=state, object_score=score,
            presence=float(1 / (1 + np.exp(-score))) if state is not sam2.State.INVALID else 0.0, predicted_iou=0.9,
            last_seen_ns=thing.last_seen_ns, frames_since_seen=thing.frames_since_seen, size_hw=frame.size_hw,
            low_res_logits=_square(thing.xy, frame.size_hw),
        )  # fmt: skip


class FakeOutputs:
    """A pipeline's outputs: keeps the newest result as the real ones do. publish: called with each result; heard:
    called with the name and argument of every other call."""

    def __init__(self, publish, heard=lambda *what: None, idle=lambda: None):
        self.newest, self.idle = NewestResult(), idle
        self._publish, self._heard = publish, heard

    def publish(self, header, frame, tracks):
        self.newest = self.newest.followed_by(header, tracks)
        return self._publish(header, frame, tracks)

    def drop(self, object_ids):
        self.newest = self.newest.without(object_ids)
        self._heard("drop", object_ids)

    def note_restored(self, object_ids):
        self.newest = self.newest.with_restored(object_ids)
        self._heard("restored", object_ids)

    def begin(self, stamp_ns):
        self._heard("begin", stamp_ns)


@dataclass
class _FakeObject:
    label: int
    class_name: str
    xy: tuple = (0.5, 0.5)  # as a fraction of the image
    last_seen_ns: int = 0
    frames_since_seen: int = 0


def _centre(prompt, size_hw):
    height, width = size_hw
    if prompt.mask is not None:
        rows, columns = np.nonzero(prompt.mask)
        return columns.mean() / width, rows.mean() / height
    if prompt.box_xyxy is not None:
        x0, y0, x1, y1 = prompt.box_xyxy
        return (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
    x, y = prompt.points_xy[0]
    return x / width, y / height


def _square(xy, size_hw):
    """(h, w) float32 logits: +8 in a square of a fifth of the image, -8 outside."""
    logits = np.full((LOW_RES, LOW_RES), -8.0, np.float32)
    column, row = int(xy[0] * LOW_RES), int(xy[1] * LOW_RES)
    half = LOW_RES // 10
    logits[max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1] = 8.0
    return logits


def image_like(pixels: np.ndarray, encoding: str, step_padding: int = 0, planes: float = 1.0) -> SimpleNamespace:
    """An object with the fields of sensor_msgs/Image, for tests that need no ROS.

    pixels: (rows, ...) of any dtype, rows as they lie in memory; `planes` rows make one row of the image.
    """
    rows = pixels.reshape(pixels.shape[0], -1).view(np.uint8)  # (rows, row_bytes)
    padded = np.full((rows.shape[0], rows.shape[1] + step_padding), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    return SimpleNamespace(
        height=int(rows.shape[0] / planes), width=pixels.shape[1], encoding=encoding, is_bigendian=0,
        step=padded.shape[1], data=array.array("B", padded.tobytes()),
    )  # fmt: skip


FAULT_KINDS = ("off", "stuck", "garbage", "wrong", "slow", "delayed", "intermittent")  # PX4's, docs "failure injection"


@dataclass(frozen=True)
class Fault:
    """A fault of kind `kind` in the images from `first` up to but not including `last`."""

    first: int
    last: int
    kind: str


class FaultSchedule:
    """Injects faults into a clean stream of `sam2.Frame`s. The same seed and faults give the same stream.

    off: no images. stuck: the picture before the fault again, with new stamps. garbage: noise. wrong: a plausible
    picture of something else, rotated by half a turn and with channels swapped. slow: only every tenth image. delayed:
    images are held back and come together afterwards, in order. intermittent: three in ten are lost.
    """

    def __init__(self, seed: int, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        self._seed, self._held, self._before = seed, [], None

    @classmethod
    def drawn(cls, seed: int, images: int, every: int, longest: int) -> "FaultSchedule":
        """One fault of a random kind, at most `longest` images long, within each `every` images."""
        random, faults = np.random.default_rng(seed), []
        for start in range(0, images, every):
            length = int(random.integers(1, longest + 1))
            first = start + int(random.integers(0, max(every - length, 1)))
            faults.append(Fault(first, first + length, str(random.choice(FAULT_KINDS))))
        return cls(seed, faults)

    def kind(self, index: int) -> str:
        """The kind of the fault that image `index` falls into; "" = none."""
        return next((fault.kind for fault in self.faults if fault.first <= index < fault.last), "")

    def apply(self, index: int, frame: sam2.Frame) -> list[sam2.Frame]:
        """Returns the images that replace image `index` of the clean stream. Call it for each image, in order."""
        kind, random = self.kind(index), np.random.default_rng((self._seed, index))
        if kind == "delayed":
            self._held.append(frame)
            return []
        held, self._held = self._held, []
        if kind == "":
            self._before = frame.rgb
        if kind == "off" or (kind == "slow" and index % 10) or (kind == "intermittent" and random.random() < 0.3):
            return held
        if kind == "stuck" and self._before is not None:
            frame = replace(frame, rgb=self._before)
        if kind == "garbage":
            frame = replace(frame, rgb=random.integers(0, 256, frame.rgb.shape, dtype=np.uint8))
        if kind == "wrong":
            frame = replace(frame, rgb=np.ascontiguousarray(frame.rgb[::-1, ::-1, ::-1]))
        return [*held, frame]


def faulty(stream: Iterable[sam2.Frame], schedule: FaultSchedule) -> Iterator[sam2.Frame]:
    """The whole stream as the schedule makes it."""
    for index, frame in enumerate(stream):
        yield from schedule.apply(index, frame)
    yield from schedule._held
