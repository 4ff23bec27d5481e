"""The node over every ROS middleware that is installed: the same headers, topics and answers."""

import ctypes
import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from ros_rig import HERE

pytestmark = pytest.mark.ros
SAME = "test_node_stream.py::test_header_out_is_header_in_for_every_field_on_every_topic"


def is_installed(rmw: str) -> bool:
    try:
        ctypes.CDLL(f"lib{rmw}.so")
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("rmw", ["rmw_fastrtps_cpp", "rmw_cyclonedds_cpp", "rmw_zenoh_cpp"])
def test_the_same_over_another_middleware(rmw):
    """In a process of its own: the middleware is chosen when rclpy is loaded."""
    if not is_installed(rmw):
        pytest.skip(f"{rmw} is not installed; there is no wheel of it")
    command = [sys.executable, "-m", "pytest", "-q", str(HERE / SAME)]
    done = subprocess.run(command, env={**os.environ, "RMW_IMPLEMENTATION": rmw}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
