"""What a tracker keeps straight from step to step: who is told what on one image, since when an object is unseen, what
a failure or a warm-up leaves behind, and what a sibling takes over."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from golden_mutations import around
from small_stream import assert_same, click, disc, frame, largest_difference, made_on, run, small_model, stamp

import sam2
from sam2 import State, saved_objects, tracker
from sam2.frame_step import FrameStep
from sam2.memory_store import MemoryStore
from sam2.model import SAM2

REPLACE = sam2.PromptMode.REPLACE


@pytest.fixture
def presence(monkeypatch) -> SimpleNamespace:
    """`said`: what the network says about an object's presence, a logit per decoding, the last for all that follow."""
    network = SimpleNamespace(said=[2.0])

    def decode(original, *args, **kwargs):
        decoded = original(*args, **kwargs)
        logit = network.said.pop(0) if len(network.said) > 1 else network.said[0]
        return decoded._replace(object_score=torch.full_like(decoded.object_score, logit))

    around(monkeypatch, SAM2, "decode", decode)
    return network


def test_a_sibling_is_set_up_alike_and_begins_with_nothing():
    """Each of the settings matters here, to the numbers or to what is refused."""
    setup = {"limits": sam2.Limits(max_objects=1), "sticky_corrections": True, "fill_hole_area": 0, "batched": True}
    prompts = {0: [click("a")], 1: [click("a", 40, 30)], 2: [click("a", 60, 9)]}
    first = sam2.Tracker(small_model(), **setup)
    expected = run(first, range(4), prompts)
    sibling = first.sibling()
    assert sibling.object_ids == [] and sibling.model is first.model and sibling.batched
    assert_same(run(sibling, range(4), prompts), expected)
    with pytest.raises(sam2.LimitReached):
        sibling.check(click("b"))
    for change in ({"sticky_corrections": False}, {"fill_hole_area": 8}):
        other = sam2.Tracker(small_model(), **setup | change)
        assert largest_difference(expected, run(other, range(4), prompts)) > 1e-3


def test_of_two_prompts_on_one_image_the_last_says_whether_it_is_there(presence):
    stream = sam2.Tracker(small_model())
    run(stream, range(2), {0: [click("a")]})
    presence.said = [2.0, 2.0, -2.0]  # tracked, the first prompt, the second
    (track,) = stream.step(frame(2), [click("a", 30, 20), click("a", 40, 30, 0)])
    assert track.state is State.OCCLUDED and not track.mask.any()
    assert (track.last_seen_ns, track.frames_since_seen) == (stamp(1), 1)


def test_a_presence_of_exactly_nothing_is_not_there(presence):
    stream = sam2.Tracker(small_model())
    stream.step(frame(0), [click("a")])
    presence.said = [0.0]
    (track,) = stream.step(frame(1))
    assert (track.object_score, track.presence, track.state) == (0.0, 0.5, State.OCCLUDED)
    assert track.last_seen_ns == stamp(0)


def test_the_least_presence_is_there(presence):
    stream = sam2.Tracker(small_model())
    stream.step(frame(0), [click("a")])
    presence.said = [0.01]
    (track,) = stream.step(frame(1))
    assert track.state is State.VISIBLE and track.last_seen_ns == stamp(1) and track.mask.any()


def test_a_network_that_is_all_too_sure_that_it_is_gone_is_believed(presence):
    """The exponential of a thousand is beyond what a float holds."""
    stream = sam2.Tracker(small_model())
    stream.step(frame(0), [click("a")])
    presence.said = [-1000.0]
    (track,) = stream.step(frame(1))
    assert track.state is State.OCCLUDED and 0 <= track.presence < 1e-30


@pytest.mark.parametrize("is_repeated", [False, True], ids=["told", "told and repeated"])
def test_unseen_since_it_started_over(is_repeated, presence):
    """Also where the image it started over on is tracked again for a late prompt before that."""
    stream = sam2.Tracker(small_model())
    run(stream, range(4), {0: [click("a")]})
    presence.said = [-2.0]
    stream.step(frame(4), [click("a", 50, 30, mode=REPLACE)])
    (track,) = stream.step(frame(5), [made_on(2, click("a", 30, 20))] if is_repeated else [])
    assert (track.state, track.last_seen_ns, track.frames_since_seen) == (State.OCCLUDED, stamp(4), 2)


def test_one_that_is_prompted_late_and_was_never_seen_is_unseen_since_then(presence):
    presence.said = [-2.0]
    stream = sam2.Tracker(small_model())
    run(stream, range(6), {5: [click("a")]})
    (track,) = stream.step(frame(6), [made_on(2, click("a"))])
    assert (track.last_seen_ns, track.frames_since_seen) == (stamp(2), 5)


def test_a_click_where_tracking_gave_no_number_is_answered_without_it(monkeypatch):
    def decode(original, self, features, pixels, xy=None, labels=None, mask_input=None):
        decoded = original(self, features, pixels, xy, labels, mask_input)
        return decoded if xy is not None else decoded._replace(masks=decoded.masks * float("nan"))

    stream = sam2.Tracker(small_model())
    run(stream, range(2), {0: [click("a")]})
    with monkeypatch.context() as patch:
        around(patch, SAM2, "decode", decode)
        assert stream.step(frame(2))[0].state is State.INVALID
        (track,) = stream.step(frame(3), [click("a", 30, 20)])
    assert track.state is State.VISIBLE and track.mask.any()


def test_starting_over_forgets_what_was_told_on_the_same_image():
    anew = click("a", 50, 30, mode=REPLACE)
    streams = [
        run(sam2.Tracker(small_model()), range(7), {0: [click("a")], 4: told})[4:]
        for told in ([click("a", 9, 9), anew], [anew])
    ]
    assert_same(*streams)


def test_starting_one_over_takes_nothing_from_the_others():
    """In one step, on an image on which the other has been clicked before."""
    both = [made_on(4, click("a", 50, 30, mode=REPLACE)), made_on(4, click("b", 70, 40, 0))]
    streams = [
        run(sam2.Tracker(small_model()), range(8), {0: [click("a")], 4: [click("b", 60, 9)], 5: told})[5:]
        for told in (both, both[::-1])
    ]
    assert_same(*streams)


def test_a_class_is_what_was_said_last():
    stream, names = sam2.Tracker(small_model()), []
    for index, name in enumerate(("cup", "", "mug", "")):
        names += [track.class_name for track in stream.step(frame(index), [click("a", class_name=name)])]
    assert names == ["cup", "cup", "mug", "mug"]


def test_steps_that_fail_use_up_no_places(monkeypatch):
    stream = sam2.Tracker(small_model(), sam2.Limits(max_objects=2))
    with monkeypatch.context() as patch:
        patch.setattr(tracker, "track_of", lambda *args: 1 / 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                stream.step(frame(0), [click("a"), click("b")])
    tracks = stream.step(frame(0), [click("a"), click("b")])
    assert [track.label for track in tracks] == [1, 2]


@pytest.mark.parametrize(("error", "count"), [(torch.OutOfMemoryError("CUDA out of memory"), 1), (KeyError("x"), 0)])
def test_captured_steps_are_given_up_for_want_of_memory_alone(error, count, monkeypatch):
    stream, given_up = sam2.Tracker(small_model()), []

    def fail(*args):
        raise error

    monkeypatch.setattr(FrameStep, "forget_graphs", lambda self: given_up.append(self))
    monkeypatch.setattr(tracker, "track_of", fail)
    with pytest.raises((sam2.OutOfMemory, KeyError)):
        stream.step(frame(0), [click("a")])
    assert len(given_up) == count


def test_a_warm_up_leaves_no_image_and_takes_no_place():
    stream = sam2.Tracker(small_model(), sam2.Limits(max_objects=1))
    stream.warm_up()
    with pytest.raises(sam2.Stale):
        stream.check(made_on(0, click("a")), frame(2))
    (track,) = stream.step(frame(2), [click("a")])
    assert (track.label, track.frames_since_seen) == (1, 0)


def test_images_encoded_together_are_kept_apart():
    """As parts of one tensor each would keep all of them in memory, and a replayed graph would change them."""
    first = sam2.Tracker(small_model())
    trackers = [first, first.sibling()]
    first.encode_together([(each, frame(n)) for n, each in enumerate(trackers)])
    for parts in zip(*(each._ahead._kept[-1].features for each in trackers), strict=True):
        assert len({part.untyped_storage().data_ptr() for part in parts}) == 2
        assert all(part.untyped_storage().nbytes() == part.nbytes for part in parts)


def test_what_was_copied_of_an_object_is_put_back_whole():
    """Memories and pointers, also once there are rows for more objects; the other objects' rows are left alone."""
    store = MemoryStore(small_model(), sam2.Limits(max_objects=3))
    row = store.take_row()
    shapes = [part.shape for part in store.read_slots(row, [0, 1])]
    first = [torch.full(shape, 1.0) for shape in shapes]
    store.write_slots(row, [0, 1], *first)
    copy = store.copy_row(row)
    store.write_slots(row, [0, 1], *(2 * part for part in first))
    other = store.take_row()
    assert other != row and store.capacity == 2
    assert all((part == 2).all() for part in store.read_slots(row, [0, 1])), "rows are kept when there are more"
    store.write_slots(other, [0, 1], *(3 * part for part in first))
    store.restore_row(row, copy)
    assert all((part == 1).all() for part in store.read_slots(row, [0, 1]))
    assert all((part == 3).all() for part in store.read_slots(other, [0, 1]))
    assert store.take_row() not in (row, other) and store.capacity == 3, "no more rows than objects are allowed"


def test_a_reset_keeps_what_is_named_with_its_memories_and_place(tmp_path):
    before = sam2.Tracker(small_model())
    before.step(frame(0), [click("a"), click("b", 9, 9)])
    before.save(tmp_path / "x")
    reset, other = sam2.Tracker(small_model()), sam2.Tracker(small_model())
    for stream in (reset, other):
        run(stream, range(4), {0: [click("live")]})
        stream.restore(tmp_path / "x")
    reset.reset(keep=["b"])
    other.remove("live")
    other.remove("a")
    assert reset.object_ids == ["b"]
    (track,), (expected,) = reset.step(frame(5)), other.step(frame(5))
    assert (track.low_res_logits == expected.low_res_logits).all() and track.label == expected.label
    with pytest.raises(sam2.Stale):
        reset.check(made_on(3, click("new")), frame(6))


@pytest.mark.parametrize(("age_s", "is_good"), [(60.0, True), (60.5, False), (-1.0, True), (-1.5, False)])
def test_what_was_saved_is_too_old_beyond_its_age_and_too_new_by_more_than_a_clock_is_set(
    age_s, is_good, tmp_path, monkeypatch
):
    clock = SimpleNamespace(time=lambda: 1000.0)
    monkeypatch.setattr(saved_objects, "time", clock)
    stream = sam2.Tracker(small_model())
    stream.step(frame(0), [click("a")])
    stream.save(tmp_path / "a")
    stream.remove("a")
    clock.time = lambda: 1000.0 + age_s
    with nullcontext() if is_good else pytest.raises(sam2.Stale, match="expected at most 60 s"):
        stream.restore(tmp_path / "a", max_age_s=60.0)
    assert stream.object_ids == ["a"] * is_good


def test_a_clock_that_is_set_back_while_an_image_had_no_stamp_is_followed(presence):
    """Seen at 10 s; the image before the one at 9 s says nothing of the time."""
    stream = sam2.Tracker(small_model())
    presence.said = [2.0, -2.0]
    for seconds in (10, 0, 9, 11):
        rgb = frame(0).rgb
        (track,) = stream.step(sam2.Frame(rgb, seconds * 10**9), [click("a")] if seconds == 10 else [])
    assert track.last_seen_ns == 9 * 10**9, "as long ago as if it had been seen when the clock was set back"


def test_images_prompts_and_tracks_are_found_in_lists_and_sets():
    """A comparison of their arrays has no single answer, and would raise."""
    tracker = sam2.Tracker(small_model())
    frames, prompts = [frame(0), frame(1)], [disc("cup"), disc("cup", 40)]
    (track,) = tracker.step(frames[0], prompts[:1])
    tracks = [track, replace(track, low_res_logits=track.low_res_logits + 1)]
    for two in (frames, prompts, tracks):
        assert two.index(two[1]) == 1 and two[1] not in two[:1] and set(two) >= {two[0]}
