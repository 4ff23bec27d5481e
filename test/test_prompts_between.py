"""`Tracker.prompt`, which needs no further image: what it answers, refuses and leaves alone. That what follows is as if
the prompts had come in time is in `test_late_prompts.py`."""

import pytest
import torch
from golden_mutations import around
from small_stream import assert_same, click, disc, fork, frame, made_on, run, small_model, stamp
from test_tracker_failures import continued, fail, started, undisturbed

import sam2
from sam2.frame_step import FrameStep
from sam2.live_objects import LiveObjects
from sam2.memory_bank import MemoryBank
from sam2.memory_store import MemoryStore
from sam2.model import SAM2
from sam2.tracked_object import TrackedObject

MANY = [made_on(5, click("a", 40, 30, 0)), click("new", 9, 9), disc("b", 20, 20, mode=sam2.PromptMode.REPLACE)]


def test_those_that_were_prompted_are_returned_in_the_newest_frame():
    stream = sam2.Tracker(small_model())
    run(stream, range(4), {0: [click("a"), click("b", 60, 9), click("c", 9, 40)]})
    tracks = stream.prompt([click("new", 30, 30), made_on(1, click("c", 40, 30, 0)), made_on(2, click("a", 9, 9))])
    assert [(track.object_id, track.label) for track in tracks] == [("a", 1), ("c", 3), ("new", 4)]
    assert {track.last_seen_ns for track in tracks} == {stamp(3)}
    assert stream.prompt([]) == []


def test_without_a_stamp_the_newest_frame_is_meant():
    """Also if that has none itself."""
    streams = [sam2.Tracker(small_model()) for _ in range(2)]
    for stream in streams:
        stream.step(sam2.Frame(frame(0).rgb), [click("a")])
        stream.step(sam2.Frame(frame(1).rgb))
    streams[0].prompt([click("new", 30, 20)])
    streams[1] = sam2.Tracker(small_model())
    for index, prompts in ((0, [click("a")]), (1, [click("new", 30, 20)])):
        streams[1].step(sam2.Frame(frame(index).rgb), prompts)
    assert_same(*([stream.step(frame(2))] for stream in streams))


def test_before_the_first_frame_there_is_nothing_to_prompt():
    stream = sam2.Tracker(small_model())
    with pytest.raises(sam2.BadInput, match="expected a frame that was seen before"):
        stream.prompt([click("a")])
    stream.step(frame(0))
    stream.reset()
    with pytest.raises(sam2.BadInput, match="expected a frame that was seen before"):
        stream.prompt([click("a")])
    assert not stream.object_ids


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        (made_on(9, click("a")), sam2.BadInput),
        (made_on(2, click("a")), sam2.Stale),
        (click("a", 99, 9), sam2.BadInput),
        (click("new", 9, 9, 0), sam2.BadInput),
        (click("more"), sam2.LimitReached),
    ],
    ids=["of the future", "too old", "outside", "not on it", "one too many"],
)
def test_a_refusal_changes_nothing(prompt, error):
    def stream():
        tracker = sam2.Tracker(small_model(), sam2.Limits(max_objects=2, history_frames=5))
        run(tracker, range(8), {0: [click("a"), click("b", 60, 9)]})
        return tracker

    refused, untouched = stream(), stream()
    with pytest.raises(error) as refusal:
        refused.prompt([click("a", 9, 9), prompt])
    with pytest.raises(error) as found:
        refused.check([click("a", 9, 9), prompt], seen=True)
    assert str(found.value) == str(refusal.value)
    refused.prompt([made_on(3, click("a", 9, 9))])  # the oldest of the five frames that are kept
    untouched.prompt([made_on(3, click("a", 9, 9))])
    assert_same(*(run(stream, range(8, 10)) for stream in (refused, untouched)))


def test_a_check_of_what_was_seen_is_of_the_frames_that_are_kept_now():
    """Not of those that will be kept once the next has come, nor of clicks on that one."""
    stream = sam2.Tracker(small_model(), sam2.Limits(history_frames=5, points_per_prompt=2))
    run(stream, range(8), {7: [click("a"), click("a", 22, 15)]})
    stream.check(made_on(3, click("b")), seen=True)
    stream.check(click("a", 9, 9))
    with pytest.raises(sam2.LimitReached, match="at most 2 points on one frame of one object, got 3"):
        stream.check(click("a", 9, 9), seen=True)
    assert stream.object_ids == ["a"]


STAGES = [
    (SAM2, "attend"),
    (SAM2, "decode"),
    (SAM2, "encode_memory"),
    (MemoryStore, "take_row"),
    (MemoryStore, "write"),
    (MemoryBank, "remember"),
    (MemoryBank, "remember_prompted"),
    (TrackedObject, "record"),
    (sam2.tracker, "track_of"),
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage[1])
def test_an_error_changes_nothing(stage, monkeypatch):
    stream = fork(started())
    with monkeypatch.context() as patch:
        calls = fail(patch, stage, 0, None)
        fork(stream).prompt(MANY)
    assert calls[0] > 0
    with monkeypatch.context() as patch:
        fail(patch, stage, calls[0], RuntimeError("broken"))
        with pytest.raises(RuntimeError, match="broken"):
            stream.prompt(MANY)
    assert stream.object_ids == ["a", "b"]
    assert_same(continued(stream), undisturbed())


def test_an_error_that_is_not_undone_is_caught(monkeypatch):
    stream = fork(started())
    monkeypatch.setattr(LiveObjects, "roll_back", lambda self, snapshot: None)
    with monkeypatch.context() as patch:
        fail(patch, (sam2.tracker, "track_of"), 1, RuntimeError("broken"))
        with pytest.raises(RuntimeError, match="broken"):
            stream.prompt(MANY)
    assert stream.object_ids == ["a", "b", "new"]


def test_tracks_that_are_not_accepted_change_nothing():
    stream, seen = fork(started()), []

    def refuse(tracks):
        seen.extend(tracks)
        raise sam2.BadInput("not these")

    with pytest.raises(sam2.BadInput, match="not these"):
        stream.prompt(MANY, accept=refuse)
    assert [track.object_id for track in seen] == ["a", "b", "new"]
    assert_same(continued(stream), undisturbed())


def test_a_prompt_without_a_finite_answer_leaves_its_object_invalid(monkeypatch):
    stream = sam2.Tracker(small_model())
    run(stream, range(3))
    with monkeypatch.context() as patch:
        around(
            patch,
            FrameStep,
            "apply_prompt",
            lambda original, *args: original(*args)._replace(is_finite=torch.tensor([False])),
        )
        (track,) = stream.prompt([made_on(1, click("a"))])
    assert track.state is sam2.State.INVALID
    (track,) = stream.prompt([click("a")])
    assert track.state is sam2.State.VISIBLE
