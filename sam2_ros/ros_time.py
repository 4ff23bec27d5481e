"""Times of messages and of /clock, in nanoseconds. Knows builtin_interfaces/Time and a node's clock."""

from typing import TYPE_CHECKING

from builtin_interfaces.msg import Time

if TYPE_CHECKING:
    from rclpy.node import Node

LAST_NS = (1 << 31) * 1_000_000_000 - 1  # a stamp has 31 bits of seconds; its nanoseconds may exceed a second


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds. Also of the class that rosbags has for a Time."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def time_message(nanoseconds: int) -> Time:
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def simulated_ns(node: "Node") -> int:
    """What /clock says; 0 without `use_sim_time`."""
    clock = node.get_clock()
    return clock.now().nanoseconds if clock.ros_time_is_active else 0  # type: ignore[attr-defined]
