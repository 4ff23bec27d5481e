"""A prompt on an image that has passed ends in the same stream, bit for bit, as the same prompt given on time; but for
rounding where objects go through the network together, as in the node."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from golden_mutations import around
from small_stream import assert_same, click, disc, frame, images, largest_difference, made_on, run, small_model, stamp

import sam2
from sam2.frame_step import FrameStep
from sam2.history import Moment
from sam2.memory_bank import MemoryBank
from sam2.object_steps import ObjectSteps
from sam2.tracked_object import PromptedFrame, TrackedObject

BOTH = {0: [click("live"), disc("other", 50, 30)]}  # given on time in either stream
BOX = sam2.Prompt("live", box_xyxy=[10, 8, 40, 30], points_xy=[(12, 12)], labels=[0])
AGAIN = click("live", 60, 40, mode=sam2.PromptMode.REPLACE, class_name="cup")


@dataclass(frozen=True)
class Late:
    prompts: dict[int, list[sam2.Prompt]]  # by the frame they are for
    given_with: dict[int, list[int]]  # those for which frames come with which frame
    frames: int = 11
    on_time: dict[int, list[sam2.Prompt]] = field(default_factory=dict)
    is_sticky: bool = False
    limits: sam2.Limits = sam2.Limits()
    batched: bool = False

    def streams(self) -> tuple[list, list]:
        """(on time, late): tracks from the frame on by which everything has been given."""
        return self.timely_stream(), self.late_stream()

    def timely_stream(self) -> list:
        known = self._known()
        return self._run({i: [*known.get(i, ()), *self.prompts.get(i, ())] for i in {*known, *self.prompts}}, {})

    def late_stream(self, between: bool = False) -> list:
        """between: the late ones are given after the frame, not with it."""
        late = {
            index: [made_on(i, prompt) for i in made for prompt in self.prompts[i]]
            for index, made in self.given_with.items()
        }
        known = self._known()
        if between:
            return self._run(known, late)
        return self._run({i: [*known.get(i, ()), *late.get(i, ())] for i in {*known, *late}}, {})

    def _known(self) -> dict[int, list[sam2.Prompt]]:
        return {i: [*BOTH.get(i, ()), *self.on_time.get(i, ())] for i in {*BOTH, *self.on_time}}

    def _run(self, prompts: dict, afterwards: dict) -> list:
        tracker = sam2.Tracker(small_model(), self.limits, self.is_sticky, batched=self.batched)
        tracks = run_with_prompts_between(tracker, range(self.frames), prompts, afterwards)
        return tracks[max(self.given_with) :]


def run_with_prompts_between(tracker, frames, prompts: dict, afterwards: dict) -> list[list[sam2.Track]]:
    """Tracks of every frame, after the prompts that were given `afterwards`, by the index of the frame before them."""
    streams = []
    for index in frames:
        tracks = {track.object_id: track for track in tracker.step(frame(index), prompts.get(index, ()))}
        if index in afterwards:
            tracks |= {track.object_id: track for track in tracker.prompt(afterwards[index])}
        streams.append(sorted(tracks.values(), key=lambda track: track.label))
    return streams


REFINED = Late({4: [click("live", 40, 30, 0)]}, {7: [4]})
OUT_OF_ORDER = Late({3: [click("new", 30, 20)], 5: [click("new", 35, 25)]}, {6: [5], 8: [3]})
REPEATED = Late({3: [click("live", 30, 20)]}, {8: [3]}, on_time={5: [click("live", 9, 9, 0), click("live", 60, 9)]})
REPLACED = Late({3: [click("live", 30, 20)]}, {8: [3]}, on_time={5: [AGAIN, click("live", 9, 9, 0)]})
CASES = {
    "new object": Late({4: [click("new", 30, 20)]}, {7: [4]}),
    "new object on the newest image but one": Late({6: [click("new", 30, 20)]}, {7: [6]}),
    "new object from a mask": Late({4: [disc("new")]}, {7: [4]}),
    "several objects": Late({4: [click("new", 30, 20), click("live", 9, 9)], 5: [disc("newer")]}, {7: [4, 5]}),
    "refinement": REFINED,
    "refinement by two clicks": Late({4: [click("live", 40, 30, 0), click("live", 9, 9)]}, {7: [4]}),
    "refinement by a box": Late({4: [BOX]}, {7: [4]}),
    "refinement by a mask": Late({4: [disc("live")]}, {7: [4]}),
    "a click on a mask": Late({4: [disc("live"), click("live", 40, 30, 0)]}, {7: [4]}),
    "start over": Late({4: [AGAIN]}, {7: [4]}),
    "a click on an image from before it started over": REPLACED,
    "start over on an image from before a click": Late({3: [AGAIN]}, {8: [3]}, on_time={6: [click("live", 9, 9, 0)]}),
    "out of order": OUT_OF_ORDER,
    "out of order in one step": replace(OUT_OF_ORDER, given_with={8: [5, 3]}),
    "out of order on a live object": Late({3: [BOX], 5: [click("live", 40, 30, 0)]}, {6: [5], 8: [3]}),
    "before its first prompt": Late({3: [click("new", 20, 20)]}, {8: [3]}, on_time={6: [click("new", 22, 20)]}),
    "before two clicks on one frame": REPEATED,
    "before a mask": replace(REPEATED, on_time={5: [disc("live"), click("live", 40, 30, 0)]}),
    "two clicks, one after the other, on images from before it started over": Late(
        {2: [click("live", 9, 40)], 3: [click("live", 30, 20)]}, {7: [3], 9: [2]}, frames=12, on_time={5: [AGAIN]}
    ),
    "one more click on an image with two": Late(
        {4: [click("live", 9, 40)]}, {7: [4]}, on_time={4: [click("live", 40, 30, 0), click("live", 60, 9)]}
    ),
    "new object on the newest image": Late({6: [click("new", 30, 20)]}, {6: [6]}),
    "refinement on the newest image": Late({6: [click("live", 40, 30, 0), BOX]}, {6: [6]}),
    "start over on the newest image": Late({6: [AGAIN]}, {6: [6]}),
    "the oldest image that is kept": Late({10: [BOX]}, {19: [10]}, frames=22, limits=sam2.Limits(history_frames=10)),
}


@pytest.mark.parametrize("is_sticky", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["fading", "sticky"])
@pytest.mark.parametrize("name", CASES)
def test_late_equals_on_time(name, is_sticky):
    case = replace(CASES[name], is_sticky=is_sticky)
    on_time = case.timely_stream()
    assert len(on_time) >= 3
    assert_same(on_time, case.late_stream())
    if not is_sticky:  # with those that stick, in `test_late_batched.py`
        assert_same(on_time, case.late_stream(between=True))


@pytest.mark.parametrize("is_sticky", [False, True], ids=["fading", "sticky"])
def test_late_prompt_matters(is_sticky):
    """Of what the streams above have in common, so that equal means something."""
    on_time, _ = replace(REFINED, is_sticky=is_sticky).streams()
    without, _ = replace(REFINED, prompts={4: []}, is_sticky=is_sticky).streams()
    assert largest_difference(on_time, without) > 1e-3


def forgets_nothing(monkeypatch):
    monkeypatch.setattr(MemoryBank, "rewind", lambda self, index: None)


def tracks_nothing_again(monkeypatch):
    monkeypatch.setattr(ObjectSteps, "_repeat", lambda self, objects, *_: dict.fromkeys(o.object_id for o in objects))


def repeats_only_the_last_prompt(monkeypatch):
    original = PromptedFrame.add
    monkeypatch.setattr(
        PromptedFrame,
        "add",
        lambda self, *args: replace(original(self, *args), prompts=original(self, *args).prompts[-1:]),
    )


def never_starts_over(monkeypatch):
    monkeypatch.setattr(TrackedObject, "start_over", lambda self, index, stamp_ns: None)


def ring_too_short(monkeypatch):
    original = MemoryBank.num_slots
    monkeypatch.setattr(
        MemoryBank, "num_slots", staticmethod(lambda limits: tuple(count - 2 for count in original(limits)))
    )


@pytest.mark.parametrize(
    ("mistake", "case"),
    [
        (tracks_nothing_again, CASES["refinement"]),
        (forgets_nothing, OUT_OF_ORDER),
        (forgets_nothing, replace(REPEATED, is_sticky=True)),
        (repeats_only_the_last_prompt, REPEATED),
        (never_starts_over, REPLACED),
        (ring_too_short, CASES["the oldest image that is kept"]),
    ],
)
def test_mistake_is_caught(mistake, case, monkeypatch):
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        assert_same(*case.streams())


def test_image_that_was_skipped_means_its_neighbour():
    def stream(offset_ns: int) -> list:
        prompt = replace(click("new", 30, 20), stamp_ns=stamp(4) + offset_ns)
        return run(sam2.Tracker(small_model()), range(9), BOTH | {7: [prompt]})[7:]

    assert_same(stream(0), stream(20_000_000))
    assert_same(stream(0), stream(-20_000_000))
    assert largest_difference(stream(0), stream(30_000_000)) > 1e-3


def test_older_than_the_history_is_stale():
    tracker = sam2.Tracker(small_model(), sam2.Limits(history_frames=5))
    run(tracker, range(9), BOTH)
    bounds = rf"{stamp(5)} to {stamp(9)} ns, got {stamp(4)}, 0\.050 s too old"
    with pytest.raises(sam2.Stale, match=bounds):
        tracker.step(frame(9), [made_on(4, click("new"))])
    with pytest.raises(sam2.Stale, match=bounds):
        tracker.check(made_on(4, click("new")), frame(9))
    assert tracker.object_ids == ["live", "other"]
    tracker.step(frame(9), [made_on(5, click("new"))])
    assert tracker.object_ids == ["live", "other", "new"]


def test_a_check_returns_the_stamp_of_the_frame_that_each_prompt_is_for():
    tracker = sam2.Tracker(small_model(), sam2.Limits(history_frames=5))
    assert tracker.check(made_on(7, click("a"))) == [0], "not known"
    run(tracker, range(9), BOTH)
    between = replace(click("a"), stamp_ns=stamp(6) + 1)
    assert tracker.check([click("a"), made_on(9, click("b")), between], frame(9)) == [stamp(9), stamp(9), stamp(6)]
    assert tracker.check([click("a"), between], seen=True) == [stamp(8), stamp(6)]
    assert tracker.check([click("a"), between]) == [0, stamp(6)], "the next one's is not known"


def test_before_its_first_image_an_object_begins_with_a_point_on_it():
    """As it would be refused in time; in one step with a point that is on it, before it, it corrects that one."""
    tracker = sam2.Tracker(small_model())
    run(tracker, range(6), {5: [click("cup")]})
    with pytest.raises(sam2.BadInput, match="begins with a point that is on it"):
        tracker.check(made_on(3, click("cup", 60, 40, 0)), frame(6))
    tracker.check(made_on(5, click("cup", 60, 40, 0)), frame(6))
    tracker.check([made_on(2, click("cup")), made_on(3, click("cup", 60, 40, 0))], frame(6))


def test_before_all_that_is_remembered_an_object_begins_with_a_point_on_it():
    """As a correction that is dropped for the newest, with room for one: nothing else says what the object is."""
    tracker = sam2.Tracker(small_model(), sam2.Limits(prompted_memories=1), sticky_corrections=True)
    run(tracker, range(6), {0: [click("cup")], 4: [click("cup", 22, 16, 0)]})
    no = click("cup", 60, 40, 0)
    for index, is_refused in ((2, True), (3, True), (4, False), (5, False), (6, False)):
        prompt = no if index == 6 else made_on(index, no)
        with pytest.raises(sam2.BadInput, match="begins with") if is_refused else nullcontext():
            tracker.check(prompt, frame(6))


def test_what_was_restored_has_a_past_before_every_image(tmp_path):
    tracker = sam2.Tracker(small_model())
    run(tracker, range(3), {0: [click("cup")]})
    tracker.save(tmp_path / "cup.safetensors")
    tracker.remove("cup")
    tracker.restore(tmp_path / "cup.safetensors")
    tracker.check(made_on(2, click("cup", 60, 40, 0)), frame(3))


def test_image_of_the_future_is_refused():
    tracker = sam2.Tracker(small_model())
    run(tracker, range(3), BOTH)
    with pytest.raises(sam2.BadInput, match=f"at most the newest frame's {stamp(3)}, got {stamp(4)}") as refusal:
        tracker.step(frame(3), [made_on(4, click("new"))])
    assert not isinstance(refusal.value, sam2.Stale)
    tracker.check(made_on(4, click("new")))  # without a frame it may be for the next one


def test_history_is_bounded_in_seconds():
    tracker = sam2.Tracker(small_model(), sam2.Limits(history_s=0.2))
    run(tracker, range(9), BOTH)
    tracker.check(made_on(5, click("new")), frame(9))
    with pytest.raises(sam2.Stale):
        tracker.check(made_on(4, click("new")), frame(9))


def test_clock_set_back_leaves_prompts_on_the_newest_image():
    """A bag that starts over: images from before the jump are in the future and cannot be meant."""
    tracker = sam2.Tracker(small_model())
    run(tracker, range(40, 45), {40: [click("live")]})
    tracker.step(frame(0), [made_on(0, click("new", 30, 20))])
    tracker.step(frame(1), [made_on(0, click("new", 9, 9))])
    assert tracker.object_ids == ["live", "new"]
    with pytest.raises(sam2.Stale):
        tracker.check(replace(click("new"), stamp_ns=1), frame(2))


def test_what_is_seen_late_was_seen_as_long_ago_as_if_it_had_been_told_in_time(monkeypatch):
    """A clock is set back between a prompt's image and the prompt: nothing was seen in the future."""

    def visible_until_3(original, network, *args):
        answer = original(network, *args)
        (index,) = (arg.index for arg in args if isinstance(arg, Moment))
        return answer._replace(object_score=torch.full_like(answer.object_score, 2.0 if index <= 3 else -2.0))

    for name in ("track", "apply_prompt"):
        around(monkeypatch, FrameStep, name, visible_until_3)
    stamps = [stamp(index) - (60_000_000 if index > 3 else 0) for index in range(7)]
    streams = []
    for given_with in (1, 4):
        tracker = sam2.Tracker(small_model())
        prompts = {given_with: [made_on(1, click("a"))]}
        tracks = [tracker.step(sam2.Frame(images()[i], stamps[i]), prompts.get(i, ())) for i in range(7)]
        streams.append(tracks[4:])
    assert_same(*streams)
    assert {track.last_seen_ns for (track,) in streams[0]} == {stamps[4]}


def test_places_are_checked_on_the_image_they_are_for():
    tracker = sam2.Tracker(small_model())
    small = np.zeros((20, 30, 3), np.uint8)
    run(tracker, range(2), BOTH)
    tracker.step(sam2.Frame(small, stamp(2)))
    far = click("new", 60, 40)
    tracker.check(made_on(1, far), frame(3))
    with pytest.raises(sam2.BadInput, match=r"\(60, 40\) is outside the image of 30x20"):
        tracker.check(made_on(2, far), frame(3))
