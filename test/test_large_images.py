"""Images that do not fit into a middleware's buffers: room for them, and the remedy if nothing arrives."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from fakes import FakeTracker
from rclpy.utilities import get_rmw_implementation_identifier
from ros_rig import PATIENCE_S, children_path

from sam2_ros import cyclone_dds
from sam2_ros.counters import Counters
from sam2_ros.health import Situation, report
from sam2_ros.node import TrackNode
from sam2_ros.params import Settings

pytestmark = pytest.mark.ros
S = 1_000_000_000
FAST_DDS, CYCLONE_DDS = "fastdds_shm.xml", "sysctl -w net.core.rmem_max="


def why_silent(**change) -> str:
    counters = Counters(publishers=1, topic="/image", received=1, largest_image_bytes=640 * 480 * 3)
    for name, value in change.items():
        setattr(counters, name, value)
    return report(counters, Situation("active", "ready", since_ns=0), Settings(), 1000 * S)[0].sentence


@pytest.mark.parametrize(
    "middleware, reliability, remedy",
    [
        ("rmw_fastrtps_cpp", "best_effort", FAST_DDS), ("rmw_fastrtps_cpp", "reliable", ""),
        ("rmw_fastrtps_dynamic_cpp", "best_effort", FAST_DDS), ("rmw_zenoh_cpp", "best_effort", ""),
        ("rmw_cyclonedds_cpp", "best_effort", CYCLONE_DDS), ("rmw_cyclonedds_cpp", "reliable", CYCLONE_DDS),
    ],
)  # fmt: skip
def test_the_remedy_is_that_of_the_middleware_in_use(middleware, reliability, remedy):
    large = why_silent(middleware=middleware, reliability=reliability)
    assert "nothing arrives" in large and [word for word in (FAST_DDS, CYCLONE_DDS) if word in large] == (
        [remedy] if remedy else []
    )
    small = why_silent(middleware=middleware, reliability=reliability, largest_image_bytes=1000)
    assert small.endswith("nothing arrives")


def test_a_node_knows_its_middleware(rig):
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    assert node._channels[0].counters.middleware == get_rmw_implementation_identifier()
    node.stop()
    node.destroy_node()


@pytest.mark.parametrize("own", ["", "<CycloneDDS/>"])
def test_the_node_asks_cyclone_dds_for_room_unless_somebody_has_configured_it(own):
    code = (
        "import os; from sam2_ros import main\n"
        "def stop(settings): print('configured', os.environ['CYCLONEDDS_URI'], flush=True); os._exit(0)\n"
        "main.main([], stop)"
    )
    environment = {name: value for name, value in os.environ.items() if name != cyclone_dds.CONFIGURATION}
    environment |= {"PYTHONPATH": children_path()} | ({cyclone_dds.CONFIGURATION: own} if own else {})
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, env=environment
    )
    said = next(line for line in ended.stdout.splitlines() if line.startswith("configured"))
    assert ("SocketReceiveBufferSize" in said) == (not own) and own in said


def test_a_demo_asks_for_it_too(monkeypatch):
    from sam2_ros import demo

    monkeypatch.delenv(cyclone_dds.CONFIGURATION, raising=False)
    demo._surroundings()
    assert "SocketReceiveBufferSize" in os.environ[cyclone_dds.CONFIGURATION]
