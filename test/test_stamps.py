"""Stamps: order, duplicates, and clocks that jump. One jump is one event, and no stamp can freeze the stream."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_ros import stamps
from sam2_ros.stamps import Stamp, StampWatch

S = 1_000_000_000
T0 = 1_700_000_000 * S


def verdicts(stamps, arrivals=None, jump_ns=5 * S):
    watch = StampWatch(jump_ns)
    arrivals = arrivals or [i * S // 10 for i in range(len(stamps))]
    return [watch.judge(stamp, now) for stamp, now in zip(stamps, arrivals, strict=True)]


def test_a_steady_camera():
    assert verdicts([T0 + i * S // 10 for i in range(20)]) == [Stamp.NEXT] * 20


def test_zero_is_taken_in_order_of_arrival_and_changes_nothing():
    assert verdicts([0, 0, T0, 0, T0]) == [Stamp.UNKNOWN, Stamp.UNKNOWN, Stamp.NEXT, Stamp.UNKNOWN, Stamp.DUPLICATE]


def test_before_1970_is_no_time_and_changes_nothing():
    assert verdicts([-1, T0, -T0, T0 + 1]) == [Stamp.NEGATIVE, Stamp.NEXT, Stamp.NEGATIVE, Stamp.NEXT]
    assert not Stamp.NEGATIVE.usable


def test_the_same_stamp_again_is_a_duplicate_each_time():
    assert verdicts([T0, T0, T0, T0, T0 + 1])[1:] == [Stamp.DUPLICATE] * 3 + [Stamp.NEXT]


def test_one_late_image_is_stale_and_the_stream_goes_on():
    assert verdicts([T0, T0 + 3, T0 + 1, T0 + 4])[2:] == [Stamp.STALE, Stamp.NEXT]


def test_two_streams_interleaved_late_ones_never_become_a_jump():
    """However many there are: none is late in a row with another."""
    stamps = [T0 + 10 * n - 15 * (n % 2) for n in range(20)]
    assert verdicts(stamps)[2:] == [Stamp.NEXT, Stamp.STALE] * 9


@pytest.mark.parametrize("back_s, jump", [(10, True), (4.9, False)])
def test_a_step_back_is_a_jump_beyond_the_limit(back_s, jump):
    assert verdicts([T0, T0 - int(back_s * S)])[1] is (Stamp.JUMP_BACK if jump else Stamp.STALE)


def test_a_looping_bag_jumps_once_per_loop():
    loop = [T0 + i * S // 10 for i in range(100)]
    got = verdicts(loop * 3)
    assert [i for i, v in enumerate(got) if v is Stamp.JUMP_BACK] == [100, 200]
    assert set(got) == {Stamp.NEXT, Stamp.JUMP_BACK}


def test_a_short_looping_bag_loses_two_images_per_loop_and_is_not_refused_for_ever():
    loop = [T0 + i * S // 10 for i in range(20)]
    got = verdicts(loop * 3)
    assert [i for i, v in enumerate(got) if v is Stamp.STEP_BACK] == [22, 42]
    assert got.count(Stamp.STALE) == 4 and not any(v.is_jump for v in got)


@pytest.mark.parametrize("wrong", [dict(ahead=5 * S // 10), dict(back=2 * S // 10)])
def test_a_clock_set_right_is_no_new_stream(wrong):
    """NTP sets it back a little, or one image is stamped too late: two images are lost, and that is all."""
    stamps = [T0 + i * S // 30 for i in range(30)]
    stamps[10] += wrong.get("ahead", 0)
    stamps[11:] = [stamp - wrong.get("back", 0) for stamp in stamps[11:]]
    got = verdicts(stamps, [i * S // 30 for i in range(30)])
    assert got[11:14] == [Stamp.STALE, Stamp.STALE, Stamp.STEP_BACK] and set(got[14:]) == {Stamp.NEXT}
    assert not any(v.is_jump for v in got) and Stamp.STEP_BACK.usable


def test_a_clock_set_ahead_is_a_jump_but_a_camera_that_paused_is_not():
    hour = 3600 * S
    assert verdicts([T0, T0 + hour], [0, S // 10])[1] is Stamp.JUMP_AHEAD
    assert verdicts([T0, T0 + hour], [0, hour])[1] is Stamp.NEXT
    assert verdicts([T0, T0 + hour, T0 + hour + 1], [0, 1, 2])[2] is Stamp.NEXT


@pytest.mark.parametrize("since_boot_ns", [0, 10**15])
@pytest.mark.parametrize("simulated_ns", [0, T0])
def test_a_jump_is_what_is_further_than_the_limit_whatever_the_clocks_say(since_boot_ns, simulated_ns):
    """Only what has passed on them counts, and the later of the two."""
    for further_ns, ahead, back in ((0, Stamp.NEXT, Stamp.STALE), (1, Stamp.JUMP_AHEAD, Stamp.JUMP_BACK)):
        for step_ns, expected in ((6 * S + further_ns, ahead), (-5 * S - further_ns, back)):
            watch = StampWatch(5 * S)
            watch.judge(T0, since_boot_ns, simulated_ns)
            later = simulated_ns and simulated_ns + S // 2
            assert watch.judge(T0 + step_ns, since_boot_ns + S, later) is expected
    watch = StampWatch(5 * S)
    watch.judge(T0, since_boot_ns, T0)
    assert watch.judge(T0 + 60 * S, since_boot_ns + S, T0 + 55 * S) is Stamp.NEXT


def test_only_late_images_that_follow_one_another_are_a_clock_that_was_set():
    """Two of one place and one of another, as of a second stream, are none; nor is what was late before the newest."""
    late = [T0 - 30, T0 - 20, T0 - 25]
    assert verdicts([T0, *late])[1:] == [Stamp.STALE] * 3
    assert verdicts([T0, *late, T0 - 24])[-1] is Stamp.STALE
    assert verdicts([T0, *late, T0 - 24, T0 - 23])[-1] is Stamp.STEP_BACK
    assert verdicts([T0, T0 - 30, T0 - 20, T0 + 1, T0 - 10])[-1] is Stamp.STALE
    assert verdicts([T0, T0 - 30, T0 - 30, T0 - 30])[1:] == [Stamp.STALE] * 3


def test_a_pause_while_the_simulated_clock_stands_still_is_no_jump():
    """Nor is an image of the loop before that comes after the clock went back."""
    watch = StampWatch(5 * S)
    assert watch.judge(T0, 0, 7) is Stamp.NEXT
    assert watch.judge(T0 + 8 * S, 8 * S, 7) is Stamp.NEXT
    assert watch.judge(T0 + 9 * S, 8 * S + 1, 0) is Stamp.NEXT


def test_stamps_in_the_future_are_an_ordinary_stream():
    assert verdicts([T0 * 2, T0 * 2 + 1]) == [Stamp.NEXT] * 2


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60))
def test_whatever_came_before_an_increasing_stream_is_soon_taken(before):
    watch = StampWatch(50)
    for now, stamp in enumerate(before):
        watch.judge(stamp, now)
    got = [watch.judge(stamp, 100 + stamp) for stamp in range(300, 310)]
    assert got[0].usable and all(v is Stamp.NEXT for v in got[1:])
    # ... and so is one that starts below everything before
    again = [watch.judge(stamp, 500 + stamp) for stamp in range(1, 6)]
    assert sum(v.is_jump for v in again) == 1 and again[2:].count(Stamp.NEXT) >= 2


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux has it")
def test_the_steady_clock_goes_on_while_the_machine_is_suspended(monkeypatch):
    monkeypatch.setattr(stamps.time, "clock_gettime_ns", {time.CLOCK_BOOTTIME: 7}.get)
    assert stamps.steady_ns() == 7


def stalled(held_up):
    """A watch that saw an image at 1000 s and then, all at 1020 s, so many that had been on their way."""
    watch = StampWatch(5 * S)
    assert watch.judge(1000 * S, 1000 * S) is Stamp.NEXT
    for number in range(1, held_up + 1):
        assert watch.judge(1000 * S + number * S // 10, 1020 * S + number) is Stamp.NEXT
    return watch


@pytest.mark.parametrize("held_up", [1, 10, 150])
def test_what_is_fresh_after_images_that_were_held_up_is_no_jump(held_up):
    """By a network, a driver, or while this process stood still or the machine was suspended."""
    watch = stalled(held_up)
    for seconds in (1020, 1021, 1040):
        assert watch.judge(seconds * S, seconds * S + S // 100) is Stamp.NEXT
    assert watch.judge(1046 * S, 1040 * S + S // 5) is Stamp.JUMP_AHEAD


@pytest.mark.parametrize(
    ("stamp_s", "expected"), [(4620, Stamp.JUMP_AHEAD), (1026, Stamp.JUMP_AHEAD), (990, Stamp.JUMP_BACK)]
)
def test_a_jump_right_after_images_that_were_held_up_is_one(stamp_s, expected):
    """A camera that restarts with another clock, a bag that starts over: seen at once, and once."""
    watch = stalled(3)
    assert watch.judge(stamp_s * S, 1020 * S + S // 10) is expected
    assert watch.judge(stamp_s * S + 1, 1020 * S + S // 5) is Stamp.NEXT
    assert watch.judge(stamp_s * S + 6 * S, 1020 * S + S // 2) is Stamp.JUMP_AHEAD, "held against the new stream"


@pytest.mark.parametrize("since_pause_s, expected", [(4, Stamp.NEXT), (6, Stamp.JUMP_AHEAD)])
@pytest.mark.parametrize("clock_ns", [0, T0])
def test_after_a_pause_of_a_player_a_jump_ahead_is_seen_again_soon(clock_ns, since_pause_s, expected):
    """With its /clock, which pauses too, and without; until then the images could be catching up."""
    watch = StampWatch(5 * S)
    count = 20 + since_pause_s * 10
    for number in range(count):
        now_ns = number * S // 10 + (60 * S if number >= 20 else 0)
        assert watch.judge(T0 + number * S // 10, now_ns, clock_ns and clock_ns + number * S // 10) is Stamp.NEXT
    ahead_ns, clock_ns = 30 * S + count * S // 10, clock_ns and clock_ns + count * S // 10
    assert watch.judge(T0 + ahead_ns, now_ns + S // 10, clock_ns) is expected


def test_a_camera_that_is_late_again_and_again_loses_nothing():
    """Each time what is fresh comes in between, so lateness never becomes the rule."""
    watch = StampWatch(5 * S)
    for number in range(10):
        began_ns = T0 + number * 20 * S
        assert watch.judge(began_ns, began_ns) is Stamp.NEXT
        assert watch.judge(began_ns + S, began_ns + 15 * S) is Stamp.NEXT
