"""Memory is flat: whatever comes and goes, the tensors that are alive are as many and as large as before."""

from itertools import count

import pytest
import torch
from golden_mutations import around
from small_stream import click, disc, frame, live_tensors, made_on, small_model

import sam2
from sam2.history import History
from sam2.model import SAM2

WARM = 200  # frames, after which nothing may grow
PERIOD = 50  # frames between changes


def churn(tracker: sam2.Tracker, frames: range) -> None:
    """Three objects; every 50 frames one goes and another one comes, one is corrected, one starts over, one is prompted
    late, and a step fails. The next frame is encoded ahead."""
    shown = frame(frames[0])
    for index in frames:
        prompts = []
        if index % PERIOD == 0:
            if tracker.object_ids:
                tracker.remove(tracker.object_ids[0])
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


def growth(warm: int, frames: int, model: SAM2 | None = None, **options) -> tuple[int, int]:
    """(tensors, bytes) by which a stream grows after its first `warm` frames."""
    tracker = sam2.Tracker(model or small_model(), sam2.Limits(prompted_memories=2), sticky_corrections=True, **options)
    churn(tracker, range(warm))
    before = live_tensors()
    churn(tracker, range(warm, frames))
    after = live_tensors()
    assert before[0] > 100 and before[1] > 1e6
    for obj in tracker._objects.values():
        assert len(obj.told) <= 31 and len(obj.seen) <= 32
    return after[0] - before[0], after[1] - before[1]


def test_flat():
    assert growth(WARM, 2 * WARM, batched=True) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("batched", [False, True])
def test_flat_for_long(batched):
    assert growth(WARM, 3000, batched=batched) == (0, 0)


@pytest.mark.slow
def test_flat_for_long_with_nano():
    assert growth(WARM, 3000, sam2.load_model("nano", device="cpu")) == (0, 0)


def test_one_tensor_per_frame_is_caught(monkeypatch):
    leaked = []

    def add(original, self, *args):
        leaked.append(torch.zeros(3))
        return original(self, *args)

    around(monkeypatch, History, "add", add)
    assert growth(PERIOD, 2 * PERIOD, batched=True) == (PERIOD, PERIOD * 12)


def flood(num_prompts: int, is_sticky: bool) -> tuple[int, int]:
    """(tensors, bytes) by which a stream grows under ten prompts per frame on one object, one of them late."""
    limits = sam2.Limits(history_frames=6)
    tracker = sam2.Tracker(small_model(), limits, sticky_corrections=is_sticky)
    kinds = [click("a", 60, 40, 0), sam2.Prompt("a", box_xyxy=[10, 8, 40, 30]), disc("a"), *[click("a", 12, 9)] * 6]

    def step(index: int) -> None:
        tracker.step(frame(index), [made_on(max(index - 2, 0), click("a", 30, 20)), *kinds])

    warm = 2 * limits.history_frames  # what was told is kept for as long as the images
    for index in range(warm):
        step(index)
    before = live_tensors()
    for index in range(warm, warm + num_prompts // 10):
        step(index)
    after = live_tensors()
    assert tracker.object_ids == ["a"]
    return after[0] - before[0], after[1] - before[1]


@pytest.mark.parametrize(
    ("num_prompts", "is_sticky"),
    [(200, True), pytest.param(1000, True, marks=pytest.mark.slow), pytest.param(1000, False, marks=pytest.mark.slow)],
)
def test_flood_of_prompts(num_prompts, is_sticky):
    assert flood(num_prompts, is_sticky) == (0, 0)
