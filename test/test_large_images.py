"""Images that do not fit into a middleware's buffers: room for them, and the remedy if nothing arrives."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from bench import seen
from fakes import FakeTracker
from rclpy.utilities import get_rmw_implementation_identifier
from ros_rig import PATIENCE_S, children_path

from sam2_ros import channel, cyclone_dds, fast_dds, socket_buffers
from sam2_ros.health import Situation, report
from sam2_ros.node import TrackNode
from sam2_ros.params import Settings

pytestmark = pytest.mark.ros
S = 1_000_000_000
VGA_BYTES, USUAL_BYTES = 640 * 480 * 3, 208 * 1024  # an image; the most that a usual kernel gives to a receive buffer
FAST_DDS, CYCLONE_DDS = "fastdds_shm.xml", "sysctl -w net.core.rmem_max="


def why_silent(**change) -> str:
    fields = dict(publishers=1, topic="/image", received=1, largest_image_bytes=VGA_BYTES) | change
    return report(*seen(**fields), Situation("active", "ready", since_ns=0), Settings(), 1000 * S)[0].sentence


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
    room = USUAL_BYTES if middleware == cyclone_dds.NAME else 0
    small = why_silent(
        middleware=middleware, reliability=reliability, largest_image_bytes=1000, receive_buffer_bytes=room
    )
    assert small.endswith("nothing arrives")


@pytest.mark.parametrize(("kind", "is_large"), [("", True), ("/compressed", False)])
def test_while_none_has_come_a_compressed_image_is_taken_for_smaller_than_a_raw_one(kind, is_large):
    none = dict(received=0, largest_image_bytes=0, receive_buffer_bytes=USUAL_BYTES, remap_from=f"image{kind}")
    for middleware, remedy in (("rmw_fastrtps_cpp", FAST_DDS), ("rmw_cyclonedds_cpp", CYCLONE_DDS)):
        assert (remedy in why_silent(middleware=middleware, reliability="best_effort", **none)) == is_large
    remote = why_silent(middleware="rmw_fastrtps_cpp", is_remote=True, **none)
    assert (CYCLONE_DDS in remote, "net.ipv4.ipfrag_time=" in remote) == (is_large, not is_large)


@pytest.mark.parametrize(
    "room, is_said", [(VGA_BYTES - 1, True), (VGA_BYTES, False), (0, False)], ids=["tight", "enough", "not known"]
)
def test_that_cyclone_dds_may_lose_some_is_said_while_others_arrive(room, is_said):
    """It does not report them."""
    counters, source = seen(
        publishers=1, topic="/image", received=2, largest_image_bytes=VGA_BYTES, receive_buffer_bytes=room,
        middleware=cyclone_dds.NAME, last_image_ns=1000 * S,
    )  # fmt: skip
    counters.arrivals_ns.extend(S * (990 + n) for n in range(11))
    finding = report(counters, source, Situation("active", "ready", since_ns=0), Settings(), 1000 * S)[0]
    assert finding.level == 0 and "1.0 images/s" in finding.sentence
    assert (CYCLONE_DDS in finding.sentence) == is_said


def test_the_kernels_limit_is_read_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setattr(socket_buffers, "MOST", tmp_path / "rmem_max")
    assert socket_buffers.most_bytes() == 0  # as in some containers
    socket_buffers.MOST.write_text("212992\n")
    assert socket_buffers.most_bytes() == 212992


def test_a_node_knows_its_middleware(rig):
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    assert node.channels[0].source.middleware == get_rmw_implementation_identifier()
    node.stop()
    node.destroy_node()


@pytest.mark.parametrize(
    "middleware, room", [(cyclone_dds.NAME, USUAL_BYTES), ("rmw_fastrtps_cpp", 1000), ("rmw_zenoh_cpp", 0)]
)
def test_only_with_dds_the_kernels_limits_count(rig, monkeypatch, middleware, room):
    monkeypatch.setattr(socket_buffers, "most_bytes", lambda: USUAL_BYTES)
    monkeypatch.setattr(fast_dds, "receive_buffer_bytes", lambda: 1000)
    monkeypatch.setattr(channel, "get_rmw_implementation_identifier", lambda: middleware)
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    assert node.channels[0].source.receive_buffer_bytes == room
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
