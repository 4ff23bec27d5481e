"""The tracker with objects coming and going: who is touched by whom, labels, limits, states. Late prompts and failures
have files of their own, and so have the official numbers."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_mutations import around
from small_stream import (
    PERIOD_NS,
    SIZE_HW,
    assert_same,
    click,
    disc,
    frame,
    images,
    largest_difference,
    made_on,
    run,
    small_model,
    stamp,
)

import sam2
from sam2 import State
from sam2.memory_store import MemoryStore
from sam2.model import SAM2

BATCH_TOLERANCE = 1e-4  # of logits (their standard deviation is about 1): the order of sums depends on the batch
THREE = {0: [click("a"), disc("b", 50, 30)], 3: [click("c", 60, 10)]}


def ids(tracks: list[sam2.Track]) -> list[str]:
    return [track.object_id for track in tracks]


def only(streams: list[list[sam2.Track]], *names: str) -> list[list[sam2.Track]]:
    return [[track for track in tracks if track.object_id in names] for tracks in streams]


def with_removal(name: str | None) -> list[list[sam2.Track]]:
    """Three objects; after frame 5 one is removed and, on frame 7, another one comes."""
    tracker = sam2.Tracker(small_model())
    start = run(tracker, range(6), THREE)
    if name:
        tracker.remove(name)
    return start + run(tracker, range(6, 12), {7: [click("d", 9, 40)]} if name else {})


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_removing_and_adding_touches_nobody_else(name):
    others = {"a", "b", "c"} - {name}
    assert_same(only(with_removal(name), *others), only(with_removal(None), *others))


def test_memory_given_to_two_objects_is_caught(monkeypatch):
    around(monkeypatch, MemoryStore, "release_row", lambda original, self, row: original(self, 1))
    with pytest.raises(AssertionError):
        assert_same(only(with_removal("a"), "b", "c"), only(with_removal(None), "b", "c"))


def test_object_alone_and_in_company_are_equal():
    alone = run(sam2.Tracker(small_model()), range(8), {0: [click("a")]})
    assert_same(alone, only(run(sam2.Tracker(small_model()), range(8), THREE), "a"))


def both_ways() -> float:
    prompts = THREE | {5: [made_on(4, click("a", 40, 30, 0))], 7: [click("d", 30, 30)]}
    streams = [run(sam2.Tracker(small_model(), batched=batched), range(12), prompts) for batched in (False, True)]
    return largest_difference(*streams)


def test_batched_equals_one_by_one():
    assert both_ways() < BATCH_TOLERANCE


def test_objects_mixed_up_in_a_batch_are_caught(monkeypatch):
    around(
        monkeypatch, MemoryStore, "reading", lambda original, self, rows, recalls: original(self, rows[::-1], recalls)
    )
    assert both_ways() > 10 * BATCH_TOLERANCE


def test_tracks_say_whose_they_are():
    tracker = sam2.Tracker(small_model())
    assert tracker.step(frame(0)) == [] == tracker.object_ids
    prompts = [click("cup", class_name="mug"), sam2.Prompt("box", box_xyxy=[10, 8, 40, 30]), disc("disc")]
    tracks = tracker.step(frame(1), prompts)
    assert ids(tracks) == tracker.object_ids == ["cup", "box", "disc"]
    assert [track.label for track in tracks] == [1, 2, 3]
    assert [track.class_name for track in tracks] == ["mug", "", ""]
    for track in tracks:
        assert track.size_hw == SIZE_HW == track.mask.shape
        assert track.low_res_logits.dtype == np.float32
        assert track.presence == pytest.approx(1 / (1 + np.exp(-track.object_score)))
        assert (track.last_seen_ns, track.frames_since_seen) == (stamp(1), 0)
    overlap = (tracks[2].mask & prompts[2].mask).sum() / (tracks[2].mask | prompts[2].mask).sum()
    assert overlap > 0.8 and tracks[2].predicted_iou == 1


def test_answers_are_the_callers_to_change():
    tracker, twin = sam2.Tracker(small_model()), sam2.Tracker(small_model())
    for track in run(tracker, range(3), THREE)[-1]:
        track.low_res_logits[:] = 7
    run(twin, range(3), THREE)
    prompts = {4: [made_on(2, click("a", 40, 30, 0))]}
    assert_same(run(tracker, range(3, 6), prompts), run(twin, range(3, 6), prompts))


def test_start_over_is_a_new_object_under_the_old_label():
    again = click("a", 50, 30, mode=sam2.PromptMode.REPLACE)
    replaced = run(sam2.Tracker(small_model()), range(9), {0: [click("a", class_name="cup")], 4: [again]})[4:]
    fresh = run(sam2.Tracker(small_model()), range(9), {4: [click("a", 50, 30, class_name="cup")]})[4:]
    assert_same(replaced, fresh)
    added = run(sam2.Tracker(small_model()), range(9), {0: [click("a")], 4: [click("a", 50, 30)]})[4:]
    assert largest_difference(added, fresh) > 1e-3


def test_reset_forgets_objects_and_images():
    tracker = sam2.Tracker(small_model())
    run(tracker, range(4), THREE)
    tracker.reset()
    assert tracker.object_ids == []
    with pytest.raises(sam2.Stale):
        tracker.check(made_on(2, click("a")), frame(4))
    again = tracker.step(frame(4), [click("a")])
    fresh = sam2.Tracker(small_model()).step(frame(4), [click("a")])
    assert_same([[replace(again[0], label=1)]], [fresh])


def test_unknown_object_is_named_with_those_that_live():
    tracker = sam2.Tracker(small_model())
    run(tracker, range(4), THREE)
    with pytest.raises(sam2.UnknownObject, match=r"expected one of \['a', 'b', 'c'\], got 'd'"):
        tracker.remove("d")


def test_a_tracker_that_was_warmed_up_is_as_new():
    warm, cold = sam2.Tracker(small_model()), sam2.Tracker(small_model())
    warm.warm_up()
    assert warm.object_ids == []
    for turn in range(3):
        prompts = [click("a")] if turn == 0 else []
        (got,), (expected,) = (t.step(frame(turn), prompts) for t in (warm, cold))
        assert np.array_equal(got.low_res_logits, expected.low_res_logits)
        assert (got.label, got.frames_since_seen) == (expected.label, expected.frames_since_seen) == (1, 0)
    with pytest.raises(sam2.BadInput, match="without objects"):
        warm.warm_up()


def test_a_warm_up_that_fails_leaves_a_tracker_as_new(monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("no room")

    warm, cold = sam2.Tracker(small_model()), sam2.Tracker(small_model())
    with monkeypatch.context() as patch:
        patch.setattr(SAM2, "attend", no_memory)  # in the second step, when the first has made an object
        with pytest.raises(sam2.OutOfMemory):
            warm.warm_up()
    assert warm.object_ids == []
    assert_same(*(run(tracker, range(3), {0: [click("a")]}) for tracker in (warm, cold)))
    warm.reset()
    warm.warm_up()


def test_labels_are_unique_stable_and_not_given_again_at_once(monkeypatch):
    monkeypatch.setattr(sam2.live_objects, "MAX_LABEL", 7)
    tracker = sam2.Tracker(small_model())
    tracker.step(frame(0), [click("before"), click("stays")])
    tracker.remove("before")
    given = []
    for turn in range(9):
        tracks = tracker.step(frame(turn + 1), [click(f"{turn}")])
        labels = {track.object_id: track.label for track in tracks}
        assert list(labels.values()) == sorted(labels.values())
        assert labels["stays"] == 2
        given.append(labels[f"{turn}"])
        tracker.remove(f"{turn}")
    assert given == [3, 4, 5, 6, 7, 1, 3, 4, 5]


def test_as_many_objects_as_allowed():
    tracker = sam2.Tracker(small_model(), sam2.Limits(max_objects=2))
    tracker.step(frame(0), [click("a"), click("b")])
    for refused in (tracker.check, lambda prompt: tracker.step(frame(1), [prompt])):
        with pytest.raises(sam2.LimitReached, match="objects: expected at most 2, all places"):
            refused(click("c"))
    assert ids(tracker.step(frame(1), [click("a")])) == ["a", "b"]
    tracker.remove("a")
    assert ids(tracker.step(frame(2), [click("c")])) == ["b", "c"]


def test_points_add_up_to_their_limit():
    tracker = sam2.Tracker(small_model(), sam2.Limits(points_per_prompt=3))
    tracker.step(frame(0), [click("a"), click("a", 21, 15)])
    two_more = sam2.Prompt("a", [(1, 1), (2, 2)], [0, 1])
    with pytest.raises(sam2.LimitReached, match="at most 3 points on one frame of one object, got 4"):
        tracker.step(frame(1), [made_on(0, two_more)])
    tracker.step(frame(1), [made_on(0, click("a", 1, 1, 0)), two_more])
    tracker.step(frame(2), [made_on(0, replace(two_more, mode=sam2.PromptMode.REPLACE))])


def test_prompted_memories_are_the_first_and_the_newest():
    tracker = sam2.Tracker(small_model(), sam2.Limits(prompted_memories=3), sticky_corrections=True)
    run(tracker, range(12), {index: [click("a", 20 + index)] for index in (1, 3, 5, 7, 9)})
    ago = tracker._objects["a"].bank.recall(12).frames_ago
    assert ago[:3] == (11, 5, 3)


@pytest.fixture
def presence(monkeypatch) -> SimpleNamespace:
    """Its `logit`: what the network says about every object's presence."""
    said = SimpleNamespace(logit=2.0)

    def decode(original, *args, **kwargs):
        decoded = original(*args, **kwargs)
        return decoded._replace(object_score=torch.full_like(decoded.object_score, said.logit))

    around(monkeypatch, SAM2, "decode", decode)
    return said


def watch(limits: sam2.Limits, presence: SimpleNamespace, visible: str, stamped: bool = True) -> list[sam2.Track]:
    """One object, prompted on frame 0; `visible` has a 1 for every frame in which the network sees it."""
    tracker, tracks = sam2.Tracker(small_model(), limits), []
    for index, sign in enumerate(visible):
        presence.logit = 2.0 if sign == "1" else -2.0
        rgb = sam2.Frame(images()[index % 16], stamp(index) if stamped else 0)
        tracks += tracker.step(rgb, [click("a")] if index == 0 else [])
    return tracks


def letters(tracks: list[sam2.Track]) -> str:
    return "".join(track.state.name[0] for track in tracks)


def test_state_follows_presence(presence):
    tracks = watch(sam2.Limits(lost_after_s=6 * PERIOD_NS / 1e9), presence, "1110000000010")
    assert letters(tracks) == "VVVOOOOOOLLVO"
    assert [track.frames_since_seen for track in tracks] == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1]
    assert [track.last_seen_ns for track in tracks] == [stamp(i) for i in (0, 1, *[2] * 9, 11, 11)]
    assert {(track.object_id, track.label) for track in tracks} == {("a", 1)}
    for track in tracks:
        assert track.mask.any() == (track.object_score > 0) == (track.presence > 0.5) == (track.state is State.VISIBLE)
        assert track.box_xywh == sam2.bounding_box(track.mask) and (track.box_xywh is None) == (not track.mask.any())


def test_occluded_only_after_as_many_frames_as_asked(presence):
    assert letters(watch(sam2.Limits(occluded_after=3), presence, "11000011001000")) == "VVVVOOVVVVVVVO"
    assert letters(watch(sam2.Limits(occluded_after=3), presence, "0001001")) == "OOOVVVV"  # never seen is not visible


def test_never_seen_counts_from_the_prompt(presence):
    tracks = watch(sam2.Limits(lost_after_s=0.1), presence, "0000")
    assert letters(tracks) == "OOOL"
    assert [track.last_seen_ns for track in tracks] == [stamp(0)] * 4
    assert [track.frames_since_seen for track in tracks] == [1, 2, 3, 4]


def test_seen_without_a_stamp_is_seen_at_the_last_known_time(presence):
    tracker = sam2.Tracker(small_model(), sam2.Limits(lost_after_s=0.2))
    tracker.step(sam2.Frame(images()[0], stamp(0)), [click("a")])
    tracker.step(sam2.Frame(images()[1], 0))
    presence.logit = -2.0
    (track,) = tracker.step(sam2.Frame(images()[2], stamp(2)))
    assert track.last_seen_ns == stamp(0) and track.frames_since_seen == 1 and track.state is State.OCCLUDED
    presence.logit, tracker = 2.0, sam2.Tracker(small_model(), sam2.Limits(lost_after_s=0.2))
    tracker.step(sam2.Frame(images()[0], 0), [click("a")])  # no stamp is known yet: that of the next image, then
    presence.logit = -2.0
    tracks = [tracker.step(sam2.Frame(images()[i], stamp(i)))[0] for i in range(1, 8)]
    assert letters(tracks) == "OOOOOLL" and {track.last_seen_ns for track in tracks} == {stamp(1)}


def test_without_stamps_nothing_is_lost(presence):
    assert letters(watch(sam2.Limits(lost_after_s=0.0), presence, "1000", stamped=False)) == "VOOO"


def test_time_goes_on_where_a_clock_is_set_back(presence):
    """Unseen from frame 2 on; before frame 4 the clock goes back by some two seconds."""
    tracker, tracks = sam2.Tracker(small_model(), sam2.Limits(lost_after_s=4.5 * PERIOD_NS / 1e9)), []
    stamps = [stamp(i) + (3 if i < 4 else 1) * 10**9 for i in range(8)]
    for index, at_ns in enumerate(stamps):
        presence.logit = 2.0 if index < 2 else -2.0
        tracks += tracker.step(sam2.Frame(images()[index], at_ns), [click("a")] if index == 0 else [])
    assert letters(tracks) == "VVOOOOOL"
    ago = [at_ns - track.last_seen_ns for at_ns, track in zip(stamps, tracks, strict=True)]
    assert ago == [PERIOD_NS * periods for periods in (0, 0, 1, 2, 2, 3, 4, 5)]
    (track,) = tracker.step(sam2.Frame(images()[8], 7))  # ... and here to its very beginning
    assert 0 < track.last_seen_ns <= 7
