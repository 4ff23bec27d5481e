"""The time that passes on /clock, without its jumps ahead. Knows a node's clock; does not know images."""

from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node

# A simulation at ten times the speed steps by this much if this process stood still for six seconds.
JUMP = Duration(seconds=60)


class SimulatedTime:
    """How much time passes on a node's /clock. A single step of JUMP or more, as when a player seeks, does not count:
    the images after it begin a new stream, whether the first arrives before or after the /clock message that steps."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._jumped_ns = 0
        ahead = JumpThreshold(min_forward=JUMP, min_backward=None, on_clock_change=False)
        self._handle = self._clock.create_jump_callback(ahead, post_callback=self._on_jump)

    @property
    def passed_ns(self) -> int:
        """Since a moment of its own, which changes when `use_sim_time` does; 0 without that parameter. Goes back with
        /clock."""
        active = self._clock.ros_time_is_active  # type: ignore[attr-defined]
        return self._clock.now().nanoseconds - self._jumped_ns if active else 0

    def close(self) -> None:
        """Must be called before this is dropped, since the clock lives on and would call what is no longer there."""
        self._handle.unregister()

    def _on_jump(self, jump: TimeJump) -> None:
        self._jumped_ns += jump.delta.nanoseconds
