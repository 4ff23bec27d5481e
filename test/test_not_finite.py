"""What is not finite is neither told nor remembered."""

import numpy as np
import pytest
import torch
from golden_mutations import around
from small_stream import click, fork, frame, made_on, run, small_model, stamp
from test_tracker_failures import started

import sam2
from sam2 import State
from sam2.memory_bank import MemoryBank
from sam2.model import SAM2

NAN, INF = float("nan"), float("inf")


def poison(monkeypatch, name: str, field: str | None, value: float) -> None:
    """A few of the numbers that a stage of the network gives."""

    def poisoned(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[..., -1] = value
        return tensor

    def stage(original, *args, **kwargs):
        result = original(*args, **kwargs)
        return result._replace(**{field: poisoned(getattr(result, field))}) if field else poisoned(result)

    around(monkeypatch, SAM2, name, stage)


POISONS = [
    ("encode_image", "stride16", NAN),
    ("attend", None, NAN),
    ("decode", "masks", NAN),
    ("decode", "masks", INF),
    ("decode", "iou", NAN),
    ("decode", "object_score", NAN),
    ("decode", "object_score", -INF),
    ("decode", "mask_tokens", NAN),
    ("encode_memory", None, NAN),
    ("encode_memory", None, INF),
]


@pytest.mark.parametrize("is_batched", [False, True], ids=["one by one", "batched"])
@pytest.mark.parametrize(("name", "field", "value"), POISONS)
def test_invalid_for_one_frame(name, field, value, is_batched, monkeypatch):
    stream = sam2.Tracker(small_model(), batched=is_batched)
    run(stream, range(5), {0: [click("a")]})
    with monkeypatch.context() as patch:
        poison(patch, name, field, value)
        (track,) = stream.step(frame(5))
    assert track.state is State.INVALID
    assert not track.mask.any() and np.isfinite(track.low_res_logits).all()
    assert (track.object_score, track.presence, track.predicted_iou) == (0, 0, 0)
    assert (track.last_seen_ns, track.frames_since_seen, track.label) == (stamp(4), 1, 1)
    assert stream._objects["a"].bank.recall(6).codes == (6, 4, 3, 2, 1)
    assert [tracks[0].state for tracks in run(stream, range(6, 16))] == [State.VISIBLE] * 10


def test_poisoned_memory_would_last(monkeypatch):
    """What the test above relies on: memory with one number that is not finite makes the next frames INVALID."""
    monkeypatch.setattr(MemoryBank, "forget", MemoryBank.remember)
    stream = sam2.Tracker(small_model())
    run(stream, range(5), {0: [click("a")]})
    with monkeypatch.context() as patch:
        poison(patch, "encode_memory", None, NAN)
        stream.step(frame(5))
    assert stream.step(frame(6))[0].state is State.INVALID


@pytest.mark.parametrize(("name", "field"), [("encode_memory", None), ("decode", "mask_tokens"), ("decode", "iou")])
@pytest.mark.parametrize("is_late", [False, True], ids=["on time", "late"])
def test_unusable_answer_to_a_prompt_replaces_no_memory(name, field, is_late, monkeypatch):
    """All places for prompted memories are taken, and one would have to go."""
    stream = fork(started())
    with monkeypatch.context() as patch:
        poison(patch, name, field, NAN)
        stream.step(frame(8), [made_on(7 if is_late else 8, click("a", 60, 9))])
    tracks = run(stream, range(9, 12), {11: [made_on(8, click("a", 9, 40))]})
    assert [track.state for group in tracks for track in group] == [State.VISIBLE] * 6


def test_object_that_never_got_an_answer_waits_for_another_prompt(monkeypatch):
    stream = sam2.Tracker(small_model())
    with monkeypatch.context() as patch:
        poison(patch, "decode", "masks", NAN)
        (track,) = stream.step(frame(0), [click("a")])
    states = [track.state, *(tracks[0].state for tracks in run(stream, range(1, 6), {3: [made_on(0, click("a", 30))]}))]
    assert "".join(state.name[0] for state in states) == "IIIVVV"


@pytest.mark.parametrize("is_newest", [False, True], ids=["late", "on the newest"])
def test_a_correction_that_is_not_finite_leaves_the_object_what_it_began_with(is_newest, monkeypatch):
    """Where the prompt before, on the same frame, left the only memory."""
    stream = sam2.Tracker(small_model())
    run(stream, range(1 if is_newest else 3), {0: [click("a")]})
    with monkeypatch.context() as patch:
        poison(patch, "decode", "object_score", NAN)
        stream.prompt([made_on(0, click("a", 40, 30, 0))])
    assert stream.step(frame(3))[0].state is State.VISIBLE


def test_what_begins_with_nothing_finite_has_not_begun(monkeypatch):
    """On the image that a point on it was given for, one that is not on it corrects; on another it says nothing."""
    stream, no = sam2.Tracker(small_model()), click("a", 60, 40, 0)
    with monkeypatch.context() as patch:
        poison(patch, "decode", "masks", NAN)
        run(stream, range(2), {0: [click("a")]})
    stream.check(made_on(0, no), frame(2))
    for asked in (made_on(1, no), no):
        with pytest.raises(sam2.BadInput, match="begins with a point that is on it"):
            stream.step(frame(2), [asked])
    (track,) = stream.step(frame(2), [click("a")])
    assert track.state is State.VISIBLE
    stream.check(no, frame(3))
