"""A camera on another machine: how the node recognises it, and which remedies it names when images are lost."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from bench import seen
from fakes import FakeTracker
from ros_rig import ON_FAST_DDS

from sam2_ros import cyclone_dds, fast_dds, reach, socket_buffers
from sam2_ros.health import Situation, report
from sam2_ros.node import TrackNode
from sam2_ros.node_client import NodeClient
from sam2_ros.params import Settings

pytestmark = pytest.mark.ros
S = 1_000_000_000
VGA_BYTES, USUAL_BYTES = 640 * 480 * 3, 208 * 1024  # an image; what a usual kernel gives to a receive buffer
RMW = "RMW_IMPLEMENTATION"
SEGMENT, BUFFER, NETWORK = "shared memory", "net.core.rmem_max=", "net.ipv4.ipfrag_time="


def about_images(is_losing: bool, **change) -> str:
    """The sentence about images of which every third is lost, or which have stopped."""
    fields = dict(
        publishers=1, topic="/image", received=1, middleware="rmw_fastrtps_cpp", reliability="best_effort",
        largest_image_bytes=VGA_BYTES, receive_buffer_bytes=USUAL_BYTES, last_image_ns=(1000 if is_losing else 900) * S,
    )  # fmt: skip
    counters, source = seen(**fields | change)
    counters.ways.extend([True, True, False] if is_losing else [True])
    return report(counters, source, Situation("active", "ready", since_ns=0), Settings(), 1000 * S)[0].sentence


@pytest.mark.parametrize("reliability", ["best_effort", "reliable"])
@pytest.mark.parametrize(
    "room, size, remedy",
    [(USUAL_BYTES, VGA_BYTES, BUFFER), (0, VGA_BYTES, BUFFER), (VGA_BYTES, VGA_BYTES, NETWORK), (1 << 20, 9, NETWORK)],
)
def test_shared_memory_is_not_blamed_for_the_images_of_another_machine(reliability, room, size, remedy):
    change = dict(is_remote=True, receive_buffer_bytes=room, largest_image_bytes=size, reliability=reliability)
    sentence = about_images(is_losing=True, **change)
    assert "were lost" in sentence and [word for word in (SEGMENT, BUFFER, NETWORK) if word in sentence] == [remedy]


def test_of_this_machine_it_still_is():
    for is_losing in (True, False):
        assert SEGMENT in about_images(is_losing)


@pytest.mark.parametrize("transports", ["", "UDPv4"])
def test_the_profile_to_start_the_camera_with_is_where_the_sentence_says(transports):
    (path,) = re.findall(r"PROFILES_FILE=([^\s,]+)", about_images(is_losing=True, transports=transports))
    assert Path(path).name == fast_dds.PROFILE and Path(path).is_file()


def test_a_connection_that_is_interrupted_is_not_taken_for_images_that_are_too_large():
    interrupted = about_images(is_losing=False, is_remote=True)
    assert interrupted.endswith("1 publisher(s) of /image, on another machine, but nothing arrives any more")
    assert BUFFER in about_images(is_losing=False, is_remote=True, received=0, largest_image_bytes=0)
    assert NETWORK in about_images(
        is_losing=False, is_remote=True, received=0, largest_image_bytes=0, receive_buffer_bytes=VGA_BYTES
    )
    jammed = about_images(is_losing=True, is_remote=True, last_image_ns=900 * S, receive_buffer_bytes=VGA_BYTES)
    assert "nothing arrives any more; they come from another machine" in jammed and NETWORK in jammed


@pytest.mark.skipif(not ON_FAST_DDS, reason="other middlewares do not say which machine an endpoint is on")
def test_a_node_recognises_publishers_of_another_machine(rig, monkeypatch):
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    camera = node.channels[0].camera
    rig.executor.add_node(node)
    node.autostart()
    publisher = rig.camera()
    rig.until(lambda: node.channels[0].source.publishers == 1)
    assert not node.channels[0].source.is_remote
    here = camera._subscription.publishers[0].endpoint_gid
    there = SimpleNamespace(endpoint_gid=[*here[:3], here[3] ^ 1, *here[4:]])
    assert camera._is_remote([there]) and not camera._is_remote([])
    node.channels[0].source.middleware = cyclone_dds.NAME
    assert not camera._is_remote([there])
    publisher.close()
    node.stop()
    rig.executor.remove_node(node)
    node.destroy_node()


@pytest.mark.parametrize(
    "profiles, most, expected",
    [
        ("/share/config/fastdds_shm.xml", 4 << 20, 4 << 20), ("/share/config/fastdds_shm.xml", 1 << 30, 16 << 20),
        ("/share/config/fastdds_small_shm.xml", 4 << 20, 4 << 20),
        ("/mine.xml", 4 << 20, 1000), (None, 4 << 20, 1000),
    ],
)  # fmt: skip
def test_how_much_the_kernel_keeps_is_known(profiles, most, expected, monkeypatch, tmp_path):
    monkeypatch.delenv(fast_dds.PROFILES, raising=False)
    if profiles:
        monkeypatch.setenv(fast_dds.PROFILES, profiles)
    monkeypatch.setattr(socket_buffers, "MOST", tmp_path / "rmem_max")
    monkeypatch.setattr(socket_buffers, "USUAL", tmp_path / "rmem_default")
    assert fast_dds.receive_buffer_bytes() == 0  # in some containers
    socket_buffers.MOST.write_text(f"{most}\n")
    socket_buffers.USUAL.write_text("1000\n")
    assert fast_dds.receive_buffer_bytes() == expected


@pytest.mark.parametrize(
    "environment, word",
    [
        ({}, ""),
        ({reach.RANGE: "SUBNET"}, ""),
        ({reach.RANGE: "LOCALHOST"}, "ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"),
        ({reach.RANGE: "LOCALHOST", reach.PEERS: "10.0.0.2"}, ""),
        ({reach.LOCALHOST_ONLY: "1"}, "ROS_LOCALHOST_ONLY=1"),
        ({reach.RANGE: "LOCALHOST", reach.SERVER: "10.0.0.2:11811"}, ""),
        ({reach.LOCALHOST_ONLY: "1", reach.SERVER: "10.0.0.2:11811"}, ""),
        ({reach.RANGE: "OFF", reach.SERVER: "10.0.0.2:11811"}, "ROS_AUTOMATIC_DISCOVERY_RANGE=OFF"),
        ({reach.RANGE: "LOCALHOST", reach.SERVER: "10.0.0.2:11811", RMW: "rmw_cyclonedds_cpp"}, "RANGE=LOCALHOST"),
    ],
)
def test_what_keeps_other_machines_out_is_named(environment, word, monkeypatch):
    for name in (reach.RANGE, reach.LOCALHOST_ONLY, reach.PEERS, reach.SERVER, RMW):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    limit = reach.limit()
    assert limit.endswith(word) and bool(limit) == bool(word)
    assert about_images(is_losing=False, publishers=0, received=0, reach=limit).endswith(limit)
    assert about_images(is_losing=False, publishers=0, received=0, reach=limit, elsewhere=("/a",)).endswith(":=/a")


@pytest.mark.parametrize("clause", ["limit", "server"])
def test_a_node_and_a_command_that_find_nothing_name_it(clause, rig, monkeypatch):
    for name in ("limit", "server"):
        monkeypatch.setattr(reach, name, lambda name=name: "; not seen" if name == clause else "")
    assert NodeClient(rig.node, "/nowhere", timeout_s=1).where_else().endswith("; not seen")  # no node is there yet
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    rig.executor.add_node(node)
    node.autostart()
    rig.until(lambda: node.channels[0].source.reach == "; not seen")
    node.stop()
    rig.executor.remove_node(node)
    node.destroy_node()


def test_an_address_that_came_up_later_is_named(monkeypatch):
    here = reach.addresses()
    assert "127.0.0.1" in here and not reach.came_later(here)
    monkeypatch.setattr(reach, "addresses", lambda: here | {"192.0.2.7"})
    later = reach.came_later(here)
    assert "192.0.2.7 came up after this node had started" in later and "if the camera is on that network" in later


def test_a_discovery_server_is_named_on_fast_dds(monkeypatch):
    monkeypatch.delenv(RMW, raising=False)
    monkeypatch.delenv(reach.SERVER, raising=False)
    assert not reach.server()
    monkeypatch.setenv(reach.SERVER, "10.0.0.2:11811")
    assert reach.server() == "; with ROS_DISCOVERY_SERVER=10.0.0.2:11811 only nodes that use it are seen, while it runs"
    monkeypatch.setenv(RMW, "rmw_cyclonedds_cpp")
    assert not reach.server()


@pytest.mark.parametrize("is_remote", [False, True])
@pytest.mark.parametrize(
    "transports, is_profile_named, is_unset",
    [("", True, False), ("DEFAULT", True, False), ("UDPv4", True, True), ("SHM", True, True)]
    + [(by_tcp, False, False) for by_tcp in ("LARGE_DATA", "LARGE_DATA?max_msg_size=1MB", "P2P")],
)
def test_where_transports_were_chosen_no_remedy_contradicts_them(transports, is_profile_named, is_unset, is_remote):
    """The profile's processes and those that communicate by TCP do not find each other."""
    sentence = about_images(is_losing=True, transports=transports, is_remote=is_remote)
    assert ("fastdds_shm.xml" in sentence) == is_profile_named
    assert ("without FASTDDS_BUILTIN_TRANSPORTS" in sentence) == (is_unset and not is_remote)
    assert ("FASTDDS_BUILTIN_TRANSPORTS unset" in sentence) == (is_profile_named and is_remote)


def test_over_udp_what_fits_into_the_receive_buffer_has_room():
    assert "without" not in about_images(is_losing=True, transports="UDPv4", receive_buffer_bytes=VGA_BYTES)
    assert "without" in about_images(is_losing=True, transports="UDPv4", largest_image_bytes=USUAL_BYTES + 1)


def test_chosen_transports_are_known_unless_profiles_replace_them(monkeypatch):
    for name in fast_dds._CHOICES:
        monkeypatch.delenv(name, raising=False)
    assert not fast_dds.transports()
    monkeypatch.setenv(fast_dds.TRANSPORTS, "LARGE_DATA")
    assert fast_dds.transports() == "LARGE_DATA"
    monkeypatch.setenv(fast_dds.PROFILES, "/mine.xml")
    assert not fast_dds.transports()
