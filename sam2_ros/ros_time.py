"""Times of messages, in nanoseconds. Knows builtin_interfaces/Time."""

from builtin_interfaces.msg import Time

LAST_NS = (1 << 31) * 1_000_000_000 - 1  # a stamp has 31 bits of seconds; its nanoseconds may exceed a second


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds. Also of the class that rosbags has for a Time."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def time_message(nanoseconds: int) -> Time:
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)
