"""What counts as time that has passed on a simulation's clock, and what is a jump of it."""

import pytest

pytest.importorskip("rclpy")

from fakes import FakeTracker
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from sam2_ros.node import TrackNode
from sam2_ros.ros_time import time_message

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("clock_first", [True, False])
def test_a_pause_in_a_simulation_faster_than_the_wall_clock_is_no_jump_and_a_seek_is_one(clock_first, rig):
    """The stamps are ten seconds apart and the images a moment; /clock says ten seconds, too. A player that seeks moves
    both by more, and either may arrive first."""
    node = TrackNode(
        lambda settings: FakeTracker(), context=rig.context, parameter_overrides=[Parameter("use_sim_time", value=True)]
    )
    rig.executor.add_node(node)
    clock = rig.node.create_publisher(Clock, "/clock", 1)
    node.autostart()
    camera, counters = rig.camera(), node.channels[0].counters
    camera.wait_for_matching_subscriber()

    def tell(now_ns):
        def told():
            clock.publish(Clock(clock=time_message(now_ns)))
            return node.get_clock().now().nanoseconds == now_ns

        rig.until(told)

    def show(number, stamp_ns):
        camera.publish(number, stamp_ns=stamp_ns)
        rig.until(lambda: counters.processed == number)

    for number, now_ns in enumerate((10**12, 10**12 + 10**10), start=1):
        tell(now_ns)
        show(number, now_ns)
    assert not counters.resets
    show(3, now_ns := now_ns + 10**10)  # and the clock stands still
    assert counters.resets["clock jump"] == 1
    steps = [lambda: tell(now_ns + 61 * 10**9), lambda: show(4, now_ns + 61 * 10**9)]
    for step in steps if clock_first else reversed(steps):
        step()
    assert counters.resets["clock jump"] == 2
    tell(now_ns + 70 * 10**9)
    show(5, now_ns + 70 * 10**9)
    assert counters.resets["clock jump"] == 2
    rig.executor.remove_node(node)
    node.stop()
    node.destroy_node()
