"""Classifies an image's stamp: next in the stream, a duplicate, late, or from a clock that was set.

Knows the clock of the stamps, a steady clock and a simulation's. Does not know images or ROS time types. Times are in
nanoseconds.
"""

import time
from enum import Enum
from typing import NamedTuple

OLDER_IN_A_ROW = 3  # this many late images, each newer than the one before, mean that the clock was set back


class Stamp(Enum):
    NEXT = "next"  # newer than all before
    UNKNOWN = "unknown"  # 0: the camera does not stamp; images count in order of arrival
    DUPLICATE = "duplicate"  # the same as the newest
    STALE = "stale"  # older than the newest: late on its way
    NEGATIVE = "negative_stamp"  # before 1970, which no clock shows
    STEP_BACK = "step_back"  # a small correction (by NTP, or after one image was stamped too late): the same stream
    JUMP_BACK = "jump_back"  # the clock went back (a bag that loops, a simulation that restarts): a new stream
    JUMP_AHEAD = "jump_ahead"  # the clock was set ahead: a new stream

    @property
    def usable(self) -> bool:
        return self not in (Stamp.DUPLICATE, Stamp.STALE, Stamp.NEGATIVE)

    @property
    def is_jump(self) -> bool:
        return self in (Stamp.JUMP_BACK, Stamp.JUMP_AHEAD)

    @property
    def complaint(self) -> str:
        """What is wrong with a stamp that is not usable, and where to look."""
        return _COMPLAINTS[self]


_COMPLAINTS = {
    Stamp.DUPLICATE: "the one before had the same; expected each to have its own, which its driver has to set",
    Stamp.STALE: "one before was newer; was it late on its way, or do two clocks stamp them?",
    Stamp.NEGATIVE: "expected a time since 1970; is the camera's clock set?",
}


def steady_ns() -> int:
    """A clock that nobody sets and that goes on while the machine is suspended, as stamps do (clock_gettime(2))."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns()


class _Seen(NamedTuple):
    """A stamp, and both clocks when its image arrived."""

    stamp_ns: int
    now_ns: int
    simulated_ns: int

    def ahead_of(self, before: "_Seen") -> int:
        """How much further the stamp has advanced since `before` than the faster of the two clocks, in nanoseconds."""
        passed_ns = max(self.now_ns - before.now_ns, self.simulated_ns - before.simulated_ns)
        return self.stamp_ns - before.stamp_ns - passed_ns


class StampWatch:
    """Compares each stamp with earlier ones and the clocks; a jump is reported once, on the first image after it.

    A stamp jumps ahead if it advances more than `jump_ns` further than both clocks, so a pause of the camera is no
    jump. Advances are measured from the last image in time, so a fresh image after held-up ones is no jump either. An
    image is held up (by the network, a driver, or because this process stood still) if it arrives more than `jump_ns`
    later than its stamp implies. Once images have been held up for `jump_ns`, the delay is taken as permanent (a player
    had paused), and they count as in time; until then a jump ahead by less than the delay goes unnoticed.

    A step back too small for a jump is accepted on the OLDER_IN_A_ROW-th late image in a row, each newer than the one
    before, so that images are not refused for ever.
    """

    def __init__(self, jump_ns: int) -> None:
        self.jump_ns = jump_ns
        self._newest_ns = 0
        self._in_time: _Seen | None = None  # the newest image in time; None = there was no image
        self._held_up: _Seen | None = None  # the first image after it that was held up
        self._late_ns = 0  # the newest of the late stamps seen in a row
        self._late_in_a_row = 0

    def judge(self, stamp_ns: int, now_ns: int, simulated_ns: int = 0) -> Stamp:
        """Says what the stamp of an image that arrived at `now_ns` means, and remembers it if usable.

        now_ns: of `steady_ns`. simulated_ns: of /clock, which may be faster, stand still or go back; 0 = none.
        """
        if stamp_ns == 0:
            return Stamp.UNKNOWN
        if stamp_ns < 0:
            return Stamp.NEGATIVE
        seen = _Seen(stamp_ns, now_ns, simulated_ns)
        verdict = self._verdict(seen)
        if verdict.usable:
            if verdict.is_jump or not self._is_held_up(seen):
                self._in_time, self._held_up = seen, None
            self._newest_ns = stamp_ns
            self._late_ns, self._late_in_a_row = 0, 0
        return verdict

    def _verdict(self, seen: _Seen) -> Stamp:
        if self._in_time is None:
            return Stamp.NEXT
        step_ns = seen.stamp_ns - self._newest_ns
        if step_ns == 0:
            return Stamp.DUPLICATE
        if step_ns > 0:
            return Stamp.JUMP_AHEAD if seen.ahead_of(self._in_time) > self.jump_ns else Stamp.NEXT
        if -step_ns > self.jump_ns:
            return Stamp.JUMP_BACK
        self._late_in_a_row = self._late_in_a_row + 1 if seen.stamp_ns > self._late_ns else 1
        self._late_ns = seen.stamp_ns
        return Stamp.STEP_BACK if self._late_in_a_row >= OLDER_IN_A_ROW else Stamp.STALE

    def _is_held_up(self, seen: _Seen) -> bool:
        if self._in_time is None or seen.ahead_of(self._in_time) >= -self.jump_ns:
            return False
        self._held_up = self._held_up or seen
        return seen.now_ns - self._held_up.now_ns <= self.jump_ns
