"""One object's record of itself: when it was seen, since when it lives, what it was told. Without a network."""

import numpy as np
import pytest

import sam2
from sam2 import State
from sam2.memory_bank import MemoryBank
from sam2.model_prompt import ModelPrompt
from sam2.tracked_object import PromptedFrame, TrackedObject

S = 1_000_000_000
LIMITS = sam2.Limits(history_frames=4, points_per_prompt=3, lost_after_s=2.0)


def given(number: int, mask: np.ndarray | None = None) -> ModelPrompt:
    return ModelPrompt(np.full((1, 2), number, np.float32), np.ones(1, np.int32), mask)


def born(frame: int = 0, stamp_ns: int = 100 * S) -> TrackedObject:
    obj = TrackedObject("a", "cup", label=1, row=0, born=frame, born_ns=stamp_ns, bank=MemoryBank(LIMITS))
    obj.bank.remember_prompted(frame)
    return obj


def watched(visible: str, first_ns: int = 100 * S) -> TrackedObject:
    """Born on frame 0, a frame every second; `visible` has a 1 for every frame in which it is seen."""
    obj = born(stamp_ns=first_ns)
    for index, sign in enumerate(visible):
        obj.record(index, first_ns + index * S, sign == "1", LIMITS)
    return obj


def test_a_copy_shares_nothing_that_changes():
    obj = watched("11")
    obj.prompted_frames[0] = PromptedFrame((given(0),), None, starts_over=False)
    twin = obj.copy()
    obj.prompted_frames[1] = PromptedFrame((given(1),), None, starts_over=True)
    obj.seen[2] = 7
    obj.bank.remember(1)
    obj.bank.remember_prompted(2)
    assert list(twin.prompted_frames) == [0] and list(twin.seen) == [0, 1]
    assert twin.bank.recall(3).frames_ago == (3,) and obj.bank.recall(3).frames_ago == (3, 1, 2)


def test_one_that_starts_over_has_seen_nothing_and_is_born_there():
    obj = watched("111")
    obj.start_over(5, 105 * S)
    assert obj.last_seen(6) == (4, 105 * S)
    assert obj.state(6, 107 * S, LIMITS) is State.OCCLUDED and obj.state(6, 107 * S + 1, LIMITS) is State.LOST
    assert not obj.bank.can_recall(6)


def test_one_that_goes_back_has_not_seen_what_comes_again_but_knows_what_it_was_told_there():
    obj = watched("1111")
    obj.prompted_frames[3] = PromptedFrame((given(3),), None, starts_over=False)
    obj.bank.remember(1)
    obj.bank.remember(2)
    obj.rewind(2)
    assert obj.seen == {0: 100 * S, 1: 101 * S} and list(obj.prompted_frames) == [3]
    assert obj.bank.recall(3).frames_ago == (3, 2)


def test_a_frame_looked_at_again_is_as_it_was_found_last():
    """Two prompts on one image: the answer to the first shows it, the answer to the second does not."""
    obj = watched("11")
    obj.record(1, 101 * S, False, LIMITS)
    assert obj.last_seen(1) == (0, 100 * S)
    obj.record(1, 101 * S, True, LIMITS)
    assert obj.last_seen(1) == (1, 101 * S)


def test_one_seen_without_a_stamp_is_seen_at_the_newest_known_time():
    obj = watched("11")
    obj.record(2, 0, True, LIMITS)
    assert obj.last_seen(2) == (2, 101 * S)


def test_the_newest_sighting_outlives_the_history_and_nothing_else_does():
    obj = watched("111" + "0" * 30)
    assert obj.seen == {2: 102 * S}
    assert obj.last_seen(32) == (2, 102 * S) and obj.state(32, 132 * S, LIMITS) is State.LOST
    assert set(watched("1" * 33).seen) == {27, *range(28, 33)}, "what a late prompt takes back leaves one before it"


def test_what_was_told_is_kept_as_long_as_its_frame_can_be_prompted():
    obj = born()
    for index in range(9):
        obj.prompted_frames[index] = PromptedFrame((given(index),), None, starts_over=False)
        obj.record(index, 0, True, LIMITS)
        assert set(range(max(index + 1 - LIMITS.history_frames, 0), index + 1)) <= set(obj.prompted_frames)
    assert len(obj.prompted_frames) <= LIMITS.history_frames + 1


def test_a_clock_set_back_takes_birth_and_sightings_with_it():
    never = born(stamp_ns=100 * S)
    never.record(0, 100 * S, False, LIMITS)
    never.set_clock_back(60 * S)
    assert never.last_seen(0) == (-1, 40 * S)
    assert never.state(1, 42 * S + 1, LIMITS) is State.LOST, "counted by the new clock"
    seen = watched("11")
    seen.set_clock_back(60 * S)
    assert seen.last_seen(1) == (1, 41 * S)
    seen.set_clock_back(80 * S)
    assert seen.last_seen(1) == (1, 1) and seen.born_ns == 1, "0 would mean that it is not known"


def test_what_has_no_stamp_has_none_after_a_clock_was_set_back():
    obj = born(stamp_ns=0)
    obj.record(0, 0, True, LIMITS)
    obj.set_clock_back(60 * S)
    assert obj.seen == {0: 0} and obj.born_ns == 0
    obj.record(1, 40 * S, False, LIMITS)
    assert obj.last_seen(1) == (0, 40 * S), "the first time that is known"


@pytest.mark.parametrize(("prompts", "kept"), [(2, [0, 1]), (3, [0, 1, 2]), (5, [2, 3, 4])])
def test_of_the_prompts_on_one_image_the_newest_are_kept(prompts, kept):
    """Boxes do not add up: nothing else bounds how often one image can be prompted."""
    told = PromptedFrame((), None, starts_over=True)
    for number in range(prompts):
        told = told.add(given(number), np.full((1, 1), number), LIMITS)
    assert [int(one.xy_model[0, 0]) for one in told.prompts] == kept
    assert told.logits == prompts - 1 and told.starts_over


def test_a_mask_needs_nothing_of_what_was_told_before_it():
    told = PromptedFrame((), None, starts_over=False).add(given(0), None, LIMITS)
    told = told.add(given(1, mask=np.ones((2, 2), bool)), None, LIMITS).add(given(2), None, LIMITS)
    assert [int(one.xy_model[0, 0]) for one in told.prompts] == [1, 2]
