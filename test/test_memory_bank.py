"""Which frames are remembered, checked against a bank that keeps everything and asks at the end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sam2
from sam2.memory_bank import MemoryBank, Recall

SMALL = sam2.Limits(recent_memories=3, pointers=5, prompted_memories=3, history_frames=4)


def filled(limits: sam2.Limits, prompted: set[int], frames: range, unusable: set[int] = frozenset()) -> MemoryBank:
    bank = MemoryBank(limits)
    for frame in frames:
        if frame in prompted:
            bank.remember_prompted(frame)
        elif bank.can_recall(frame) and frame not in unusable:
            bank.remember(frame)
    return bank


def expected(limits: sam2.Limits, prompted: set[int], start: int, frame: int, unusable: set[int]) -> tuple[list, list]:
    """(temporal codes, frames ago) from the definition: `frame` sees the first and newest prompted frames of its past,
    then the recent ones that were tracked."""
    past = sorted(index for index in prompted if index < frame)
    kept = past if len(past) <= limits.prompted_memories else past[:1] + past[1 - limits.prompted_memories :]
    tracked = [i for i in range(start + 1, frame) if i not in prompted and i not in unusable]
    codes = [6] * len(kept) + [frame - i - 1 for i in tracked if frame - i <= limits.recent_memories]
    ago = [frame - i for i in kept] + [frame - i for i in tracked[::-1] if frame - i <= limits.pointers]
    return codes, ago


@settings(max_examples=150)
@given(
    st.sets(st.integers(1, 30)),
    st.sets(st.integers(1, 30)),
    st.integers(1, 32),
    st.sampled_from([SMALL, sam2.Limits()]),
)
def test_recall_equals_the_definition(prompted, unusable, frame, limits):
    prompted, unusable = prompted | {0}, unusable - prompted
    recall = filled(limits, prompted, range(frame), unusable).recall(frame)
    codes, ago = expected(limits, prompted, 0, frame, unusable)
    assert (list(recall.codes), list(recall.frames_ago)) == (codes, ago)
    assert recall.shape == (len(codes), len(ago)) == (len(recall.slots), len(recall.pointer_slots))


def test_full_bank_in_the_official_order():
    recall = filled(sam2.Limits(), {0, 20}, range(40)).recall(40)
    assert recall.codes == (6, 6, 5, 4, 3, 2, 1, 0)
    assert recall.frames_ago == (40, 20, *range(1, 16))
    assert len(set(recall.slots)) == 8 and len(set(recall.pointer_slots)) == 17


@settings(max_examples=100)
@given(st.sets(st.integers(1, 40)), st.integers(0, SMALL.history_frames - 1))
def test_slots_hold_what_was_written(prompted, frames_back):
    """Plays the store: whatever a recall points at must still be what was written for that frame, also when the oldest
    frame in the history is tracked again."""
    bank, now = filled(SMALL, set(), range(0)), 42
    spatial: dict[int, int] = {}  # frame by slot
    pointers: dict[int, int] = {}

    def write(frame: int) -> None:
        is_prompted = frame in prompted | {0}
        slot, pointer_slot = bank.slots(frame, is_prompted)
        assert slot < MemoryBank.num_slots(SMALL)[0] and pointer_slot < MemoryBank.num_slots(SMALL)[1]
        spatial[slot] = pointers[pointer_slot] = frame
        (bank.remember_prompted if is_prompted else bank.remember)(frame)

    for frame in range(now + 1):
        write(frame)
        assert_holds(bank.recall(frame + 1), frame + 1, spatial, pointers)
    bank.rewind(now - frames_back)
    for frame in range(now - frames_back, now + 1):
        assert_holds(bank.recall(frame), frame, spatial, pointers)
        write(frame)


def assert_holds(recall: Recall, frame: int, spatial: dict[int, int], pointers: dict[int, int]) -> None:
    recent = [(code, slot) for code, slot in zip(recall.codes, recall.slots, strict=True) if code != 6]
    assert [frame - code - 1 for code, _ in recent] == [spatial[slot] for _, slot in recent]
    num_prompted = len(recall.codes) - len(recent)
    assert [spatial[slot] for slot in recall.slots[:num_prompted]] == [
        frame - ago for ago in recall.frames_ago[:num_prompted]
    ]
    assert [frame - ago for ago in recall.frames_ago] == [pointers[slot] for slot in recall.pointer_slots]


@pytest.mark.parametrize("missing", [1, 2])
def test_fewer_slots_are_too_few(missing, monkeypatch):
    original = MemoryBank.num_slots
    monkeypatch.setattr(
        MemoryBank, "num_slots", staticmethod(lambda limits: tuple(count - missing for count in original(limits)))
    )
    with pytest.raises(AssertionError):
        test_slots_hold_what_was_written.hypothesis.inner_test(set(), SMALL.history_frames - 1)


@pytest.mark.parametrize("prompted_memories", [1, 2, 4])
def test_a_new_prompted_memory_is_written_beside_the_kept_ones(prompted_memories):
    limits = sam2.Limits(prompted_memories=prompted_memories)
    bank = filled(limits, set(range(9)), range(9))
    kept = bank.recall(9)
    for frame in (8, 9):  # the newest again, and one more
        assert bank.slots(frame, is_prompted=True)[0] not in kept.slots
    assert len(kept.slots) == prompted_memories
    assert kept.frames_ago == ((1,) if prompted_memories == 1 else (9, *range(prompted_memories - 1, 0, -1)))


def test_forgotten_and_rewound():
    bank = filled(sam2.Limits(), {0, 3}, range(6))
    bank.forget(4)
    assert bank.recall(6).codes == (6, 6, 4, 3, 0)
    twin = bank.copy()
    bank.rewind(3)
    assert (bank.recall(3).codes, twin.recall(6).codes) == ((6, 1, 0), (6, 6, 4, 3, 0))
    bank.rewind(2)
    assert bank.recall(3).codes == (6, 1), "frame 2 is as forgotten as what came after it"
    bank.rewind(0)
    assert not bank.can_recall(100)


def test_a_tracked_frame_that_is_prompted_then_is_remembered_once():
    bank = filled(sam2.Limits(), {0}, range(2))
    bank.remember_prompted(1)
    assert (bank.recall(2).codes, bank.recall(2).frames_ago) == ((6, 6), (2, 1))


def test_a_second_prompt_on_one_image_sees_what_was_before_it_and_costs_no_other_memory():
    bank, prompted = filled(SMALL, {0, 3, 6}, range(7)), {0, 3, 6}
    for frame in (6, 7):
        recall = bank.recall(frame)
        assert (list(recall.codes), list(recall.frames_ago)) == expected(SMALL, prompted, 0, frame, set())
        bank.remember_prompted(6)


def test_nothing_grows():
    bank = filled(SMALL, set(range(0, 5000, 7)), range(5000))
    assert len(bank._recent) <= SMALL.history_frames + SMALL.pointers + 1
    assert len(bank._prompted) == SMALL.prompted_memories


def test_a_copy_shares_nothing():
    bank = filled(sam2.Limits(), {0}, range(3))
    twin = bank.copy()
    bank.remember(3)
    bank.remember_prompted(4)
    assert (twin.recall(5).frames_ago, bank.recall(5).frames_ago) == ((5, 3, 4), (5, 1, 2, 3, 4))


def test_of_the_recent_ones_no_more_are_kept_than_a_late_prompt_needs():
    """All that the oldest frame a prompt can name attends to; beyond that a little, bounded."""
    for limits in (SMALL, sam2.Limits(recent_memories=6, pointers=2, history_frames=3)):
        bank = filled(limits, {0}, range(100))
        oldest = 101 - limits.history_frames  # when frame 100 is the newest
        bank.remember(100)
        bank.rewind(oldest)
        codes, ago = expected(limits, {0}, 0, oldest, set())
        assert (list(bank.recall(oldest).codes), list(bank.recall(oldest).frames_ago)) == (codes, ago)
