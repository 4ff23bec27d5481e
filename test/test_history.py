"""The ring of recent frames: what is kept, for how long, and which frame a stamp means."""

import numpy as np
import pytest
import torch

import sam2
from sam2.history import History
from sam2.model import Features
from sam2.plan import locate

SECOND = 1_000_000_000
NUM_BYTES = (4 + 2 + 1) * 4


def features(value: float) -> Features:
    return Features(*(torch.full((1, count), float(value)) for count in (4, 2, 1)))


def history(stamps: list[float], **limits) -> History:
    """Frames 0, 1, ... with these stamps in seconds; features hold the frame's index."""
    ring = History(sam2.Limits(**{"history_s": 1e9} | limits))
    for index, seconds in enumerate(stamps):
        ring.add(index, round(seconds * SECOND), (10 + index, 20), features(index))
    return ring


def found(ring: History, seconds: float, now: float) -> int | None:
    """Index of the frame that a stamp means."""
    moment = ring.find(round(seconds * SECOND), round(now * SECOND))
    return None if moment is None else moment.index


def kept(ring: History) -> list[int]:
    moments = ring.since(0)
    for moment in moments:
        assert moment.size_hw == (10 + moment.index, 20)
        assert all((part == moment.index).all() for part in moment.features)
    return [moment.index for moment in moments]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"history_frames": 4}, [6, 7, 8, 9]),
        ({"history_frames": 1}, [9]),
        ({"history_s": 2.0}, [7, 8, 9]),
        ({"history_s": 0.0}, [8, 9]),
        ({"history_bytes": 3 * NUM_BYTES}, [7, 8, 9]),
        ({"history_bytes": 3 * NUM_BYTES - 1}, [8, 9]),
        ({"history_bytes": 1}, [9]),
        ({"history_frames": 5, "history_s": 2.0, "history_bytes": 4 * NUM_BYTES}, [7, 8, 9]),
        ({"history_s": float("inf")}, list(range(10))),
    ],
)
def test_bounded_by_frames_seconds_and_bytes(limits, expected):
    ring = history([*range(1, 11)], **limits)
    assert kept(ring) == expected
    assert ring.newest.index == 9
    assert len(ring._buffers) <= min(limits.get("history_frames", 30), max(limits.get("history_bytes", 1e9) // 28, 1))


def test_buffers_are_used_again():
    ring = history([*range(1, 5)], history_frames=4)
    before = [part.data_ptr() for buffer in ring._buffers for part in buffer]
    for index in range(4, 50):
        ring.add(index, index * SECOND, (10 + index, 20), features(index))
        assert kept(ring) == list(range(index - 3, index + 1))
    assert [part.data_ptr() for buffer in ring._buffers for part in buffer] == before


def test_the_callers_tensors_are_copied():
    ring, mine = history([]), features(0)
    ring.add(0, 0, (10, 20), mine)
    mine.stride4.fill_(7)
    assert kept(ring) == [0]


@pytest.mark.parametrize(
    ("seconds", "frame"),
    [(1.0, 0), (1.4, 0), (1.5, 1), (1.6, 1), (2.0, 1), (3.0, 2), (3.4, 2), (3.5, None), (3.6, None), (4.0, None)],
)
def test_a_stamp_means_the_nearest_frame_the_newer_of_two(seconds, frame):
    assert found(history([1, 2, 3]), seconds, now=4) == frame


def test_frames_with_the_same_stamp():
    assert found(history([1, 2, 2]), 2.0, now=3) == 2


def test_too_old_is_stale_with_the_bounds():
    ring = history([*range(1, 9)], history_frames=4)
    with pytest.raises(sam2.Stale, match="6000000000 to 9000000000 ns, got 5250000000, 0.750 s too old"):
        found(ring, 5.25, now=9)
    with pytest.raises(sam2.Stale, match="0.000 s too old"):
        found(ring, 6 - 1e-9, now=9)
    assert found(ring, 6, now=9) == 5


def test_the_frame_about_to_come_pushes_the_oldest_out():
    ring = history([1, 2, 3], history_frames=3)
    assert kept(ring) == [0, 1, 2]
    assert found(ring, 2, now=4) == 1
    with pytest.raises(sam2.Stale):
        found(ring, 1, now=4)
    with pytest.raises(sam2.Stale):
        found(history([1, 2, 3], history_s=2), 1, now=3.5)


def test_a_frame_that_one_withdrawn_has_overwritten_is_found_no_more():
    ring = history([1, 2, 3], history_frames=3)
    assert ring.find_kept(1 * SECOND).index == 0
    ring.add(3, 4 * SECOND, (13, 20), features(3))
    ring.withdraw(3)
    assert [ring.find_kept(stamp).index for stamp in (0, 2 * SECOND, 3 * SECOND)] == [2, 1, 2]
    with pytest.raises(sam2.Stale, match="2000000000 to 3000000000 ns, got 1000000000"):
        ring.find_kept(1 * SECOND)
    ring.add(3, 4 * SECOND, (13, 20), features(3))
    assert ring.find_kept(2 * SECOND).index == 1, "the next one displaces none besides"


@pytest.mark.parametrize("seconds", [0, 1])
def test_where_one_frame_is_kept_none_is_left_after_one_that_failed(seconds):
    ring = history([1], history_frames=1)
    ring.add(1, 2 * SECOND, (11, 20), features(1))
    ring.withdraw(1)
    with pytest.raises(sam2.Stale, match="got none since the newest failed; prompt on the next"):
        ring.find_kept(seconds * SECOND)
    assert ring.newest.stamp_ns == SECOND, "by which a clock that is set back is noticed"
    ring.clear()
    ring.add(0, 3 * SECOND, (10, 20), features(0))
    assert ring.find_kept(seconds * 3 * SECOND).index == 0


def test_future_is_no_stale_prompt():
    with pytest.raises(sam2.BadInput, match="at most the newest frame's 4000000000, got 4000000001"):
        found(history([1, 2, 3]), 4 + 1e-9, now=4)
    with pytest.raises(sam2.BadInput, match="at most the newest frame's 4000000000, got 5000000000") as refusal:
        found(history([1, 2, 3]), 5, now=4)
    assert not isinstance(refusal.value, sam2.Stale)


def test_empty():
    ring = history([])
    assert ring.newest is None and ring.since(0) == []
    assert found(ring, 4, now=4) is None
    with pytest.raises(sam2.Stale):
        found(ring, 3, now=4)


def test_clock_set_back():
    """Images from before the jump are kept, so that what follows can be tracked again, but no stamp means them."""
    ring = history([100, 101, 1, 2], history_s=50)
    assert kept(ring) == [0, 1, 2, 3]
    assert [found(ring, seconds, now=3) for seconds in (1, 2, 3)] == [2, 3, None]
    with pytest.raises(sam2.Stale, match="1000000000 to 3000000000"):
        found(ring, 0.5, now=3)


def test_stamps_from_before_a_clock_was_set_back_are_by_the_new_one():
    """By 0.5 and by 0.3 s; what has no stamp gets none. Then to a clock's beginning: 0 would mean an unknown time."""
    twice = history([10, 11, 12, 11.5, 12, 0, 12.5, 12.2, 12.3])
    assert [m.stamp_ns / SECOND for m in twice.since(1)] == [10.2, 11.2, 11.2, 11.7, 0, 12.2, 12.2, 12.3]
    assert [m.stamp_ns for m in history([1, 3, 7e-9]).since(0)] == [1, 7, 7]
    assert found(twice, 11.1, now=12.5) == 1, "found by the stamps that they came with"


@pytest.mark.parametrize(
    ("seconds", "index"), [(11.45, 5), (11.3, 4), (11.2, 4), (11.15, 4), (11, 2), (10.6, 1), (10.2, 0), (11.9, 5)]
)
def test_of_a_stamp_that_a_clock_shows_twice_the_second_time_is_meant(seconds, index):
    """Set back by a second: otherwise a prompt would be applied to an image in which everything is elsewhere."""
    assert found(history([10, 10.5, 11, 11.5, 11.2, 11.6]), seconds, now=12.5) == index


def test_an_image_is_found_by_its_own_stamp_whatever_the_clock_has_shown_since():
    twice = history([10, 10.4, 10.1, 10.5, 10.2, 10.6])
    assert [found(twice, seconds, now=11) for seconds in (10, 10.4, 10.1, 10.5)] == [0, 1, 2, 3]
    assert [found(twice, seconds, now=11) for seconds in (10.45, 10.3, 10.15, 10.05)] == [5, 4, 4, 2]
    assert found(history([10, 11, 9, 10]), 10, now=12) == 3, "the newer of two"


def test_an_image_without_a_stamp_is_not_of_1970():
    ring = history([100.0, 100.1, 0.0, 100.2], history_s=2.0)
    assert kept(ring) == [0, 1, 2, 3] and found(ring, 100.1, 100.3) == 1
    with pytest.raises(sam2.Stale, match="100000000000 to 100300000000"):
        found(ring, 50.0, 100.3)


def test_an_image_without_a_stamp_hides_no_clock_that_is_set_back():
    ring = history([10, 0, 9, 0])
    assert [moment.stamp_ns / SECOND for moment in ring.since(0)] == [9, 0, 9, 0]
    assert ring.newest_ns == 9 * SECOND and history([0]).newest_ns == history([]).newest_ns == 0


def test_no_gaps():
    """When the middle one of three is too old, so is what lies before it."""
    assert kept(history([100, 1, 101, 102], history_s=50)) == [2, 3]
    assert kept(history([100, 1, 101], history_s=50)) == [1, 2]


def test_a_frame_taken_back():
    ring = history([1, 2, 3], history_frames=3, history_s=2)
    ring.add(3, 100 * SECOND, (13, 20), features(3))
    assert kept(ring) == [2, 3]
    ring.withdraw(2)
    assert kept(ring) == [2, 3]
    ring.withdraw(3)
    assert [moment.index for moment in ring.since(0)] == [0, 1, 2]
    assert found(ring, 2, now=4) == 1
    ring.add(3, 4 * SECOND, (13, 20), features(3))
    assert kept(ring) == [1, 2, 3]


def test_cleared():
    ring = history([1, 2, 3])
    ring.clear()
    assert ring.newest is None and ring.since(0) == []
    ring.add(3, 4 * SECOND, (13, 20), features(3))
    assert kept(ring) == [3]


def test_the_last_image_before_a_pause_can_be_prompted_after_it():
    """Or where the network takes longer than `history_s`; but not where only one image is kept."""
    ring = history([1, 2], history_s=2)
    assert found(ring, 2, now=60) == found(ring, 2.1, now=60) == 1
    with pytest.raises(sam2.Stale, match="2000000000 to 60000000000 ns, got 1900000000"):
        found(ring, 1.9, now=60)
    with pytest.raises(sam2.Stale):
        found(history([1, 2], history_frames=1), 2, now=60)


def test_numpy_s_integers_are_stamps_like_any():
    """Differences of unsigned ones wrap around: an image of before seemed the farthest."""
    ring = History(sam2.Limits())
    for index in range(3):
        frame = sam2.Frame(np.zeros((4, 4, 3), np.uint8), np.uint64((index + 1) * 10**8))
        assert type(frame.stamp_ns) is int
        ring.add(index, frame.stamp_ns, frame.size_hw, features(index))
    prompt = sam2.Prompt("a", [(1, 1)], [1], stamp_ns=np.uint64(140_000_000))
    assert ring.find(prompt.stamp_ns, ring.newest.stamp_ns).index == 0


def test_before_the_next_image_is_there_a_prompt_is_for_a_kept_one_or_for_that():
    """None is too new then; too old is what is too old for the newest image."""
    ring = history([1, 2, 3], history_s=1.5)

    def place(seconds: float, frame: sam2.Frame | None = None) -> tuple:
        prompt = sam2.Prompt("a", [(1, 1)], [1], stamp_ns=round(seconds * SECOND))
        return locate([prompt], frame, ring, next_frame=3)[0][1:3]

    assert place(2) == (1, (11, 20)) and place(3) == place(50) == place(0) == (3, (12, 20))
    with pytest.raises(sam2.Stale, match="2000000000 to 3000000000"):
        place(1)
    coming = sam2.Frame(np.zeros((4, 5, 3), np.uint8), round(3.1 * SECOND))
    assert place(2, coming) == (1, (11, 20)) and place(3.1, coming) == place(0, coming) == (3, (4, 5))
    with pytest.raises(sam2.BadInput, match="at most the newest frame's"):
        place(50, coming)
