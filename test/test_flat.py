"""Memory is flat: whatever comes and goes, the tensors that are alive are as many and as large as before, and so are
arrays and everything else that Python keeps."""

from itertools import count
from typing import NamedTuple

import numpy as np
import pytest
import torch
from golden_mutations import around
from small_stream import click, disc, frame, live_objects, live_tensors, made_on, small_model

import sam2
from sam2.history import History
from sam2.model import SAM2

WARM = 200  # frames, after which nothing may grow
PERIOD = 50  # frames between changes
LATE = 1200  # the first frame, where the ring of images starts: small numbers, below 257, are no objects of their own
NOISE = 10  # Python objects; measured: 5 to 8, the numbers of the first count. The least leak, one per frame, is 20


class Growth(NamedTuple):
    tensors: int
    tensor_bytes: int
    objects: int  # of Python, of any kind
    array_bytes: int

    def is_of(self, each: "Growth", times: int) -> bool:
        """Whether it is `times` that much, but for noise."""
        exact = [left == times * right for left, right in zip(self, each, strict=True)]
        return exact[0] and exact[1] and exact[3] and abs(self.objects - times * each.objects) <= NOISE


NONE = Growth(0, 0, 0, 0)


def churn(tracker: sam2.Tracker, frames: range) -> None:
    """Three objects, of which one stays; every 50 frames another goes and a new one comes, one is corrected, one starts
    over, one is prompted late, and a step fails. The next frame is encoded ahead."""
    shown = frame(frames[0])
    for index in frames:
        prompts = []
        if index % PERIOD == 0:
            if tracker.object_ids:
                tracker.remove(tracker.object_ids[1])
            names = (f"object {index + i}" for i in count())
            prompts = [disc(name) for name, _ in zip(names, range(3 - len(tracker.object_ids)), strict=False)]
        elif index % PERIOD == 20:
            first, second, third = tracker.object_ids
            again = click(second, 50, 30, mode=sam2.PromptMode.REPLACE)
            prompts = [click(first, 9, 9, 0), again, made_on(index - 7, click(third, 60, 40))]
        elif index % PERIOD == 40:
            with pytest.raises(sam2.BadInput):
                tracker.step(shown, [click("new"), click("newer", -1)])
        following = frame(index + 1)
        tracker.encode_ahead(following)
        tracker.step(shown, prompts)
        shown = following


def alive() -> Growth:
    return Growth(*live_tensors(), *live_objects())


def difference(before: Growth, after: Growth) -> Growth:
    return Growth(*(b - a for a, b in zip(before, after, strict=True)))


def growth(warm: int, frames: int, model: SAM2 | None = None, **options) -> Growth:
    """By how much a stream grows after its first `warm` frames."""
    tracker = sam2.Tracker(model or small_model(), sam2.Limits(prompted_memories=2), sticky_corrections=True, **options)
    tracker._next_frame = LATE
    churn(tracker, range(warm))
    before = alive()
    churn(tracker, range(warm, frames))
    after = alive()
    assert before.tensors > 100 and before.tensor_bytes > 1e6 and before.objects > 1e5 and before.array_bytes > 1e4
    assert len(tracker._history.since(0)) == min(30, frames)
    for obj in tracker._objects.values():
        assert len(obj.prompted_frames) <= 31 and len(obj.seen) <= 32
    return difference(before, after)


def test_flat():
    assert growth(WARM, WARM + 2 * PERIOD, batched=True).is_of(NONE, 1)


@pytest.mark.slow
def test_flat_for_long():
    assert growth(WARM, 3000, batched=True).is_of(NONE, 1)


@pytest.mark.slow
def test_flat_for_long_with_nano():
    """Objects one by one, as with several cameras."""
    assert growth(WARM, 1200, sam2.load_model("nano", device="cpu")).is_of(NONE, 1)


LEAKS = {  # something that is kept of every frame; what it adds to each
    "tensor": (lambda index: torch.zeros(3), Growth(1, 12, 2, 0)),  # and its storage
    "image with its time": (lambda index: (index + 0.5, np.empty((480, 640, 3), np.uint8)), Growth(0, 0, 3, 921600)),
    "number": (lambda index: index + 0.5, Growth(0, 0, 1, 0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEAKS)
def test_what_is_kept_of_every_frame_is_caught(kind, monkeypatch):
    leaked, (make, each) = [], LEAKS[kind]

    def add(original, self, index, *args):
        leaked.append(make(index))
        return original(self, index, *args)

    around(monkeypatch, History, "add", add)
    grown = growth(PERIOD, 2 * PERIOD, batched=True)
    assert grown.is_of(each, PERIOD) and not grown.is_of(NONE, 1)


def flood(is_sticky: bool) -> Growth:
    """By how much a stream grows under 1000 prompts on one object, ten per frame, one of them late."""
    limits = sam2.Limits(history_frames=6)
    tracker = sam2.Tracker(small_model(), limits, sticky_corrections=is_sticky)
    kinds = [click("a", 60, 40, 0), sam2.Prompt("a", box_xyxy=[10, 8, 40, 30]), disc("a"), *[click("a", 12, 9)] * 6]

    def step(index: int) -> None:
        tracker.step(frame(index), [made_on(max(index - 2, 0), click("a", 30, 20)), *kinds])

    tracker._next_frame = LATE
    warm = 36  # what was told is kept for as long as the images, the shapes of steps for 32 of them
    for index in range(warm):
        step(index)
    before = alive()
    for index in range(warm, warm + 100):
        step(index)
    after = alive()
    assert tracker.object_ids == ["a"]
    return difference(before, after)


@pytest.mark.slow
@pytest.mark.parametrize("is_sticky", [False, True])
def test_flood_of_prompts(is_sticky):
    assert flood(is_sticky).is_of(NONE, 1)
