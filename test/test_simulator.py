"""The simulated camera: one header per frame on every topic, true labels, and frames counted from zero."""

import re
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

import sam2
from sam2_ros.msg import Track, TrackArray
from sam2_ros.simulator import FASTEST, MOST_PIXELS, SLOWEST, Simulator, camera_info, check_camera

pytestmark = pytest.mark.ros
SIZE_HW = (24, 32)


class TwoSquares:
    """The second object is not visible in odd frames."""

    size_hw = SIZE_HW

    def frame(self, t):
        masks = np.zeros((2, *SIZE_HW), bool)
        masks[0, 2:6, 3:9] = True
        masks[1, 10:20, 20:22] = t % 2 == 0
        return SimpleNamespace(
            rgb=np.full((*SIZE_HW, 3), t, np.uint8), masks=masks, visible=masks.any(axis=(1, 2)),
            depth_m=np.linspace(1, 9, 24 * 32, dtype=np.float32).reshape(SIZE_HW),
            intrinsics=np.array([[32.0, 0, 15.5], [0, 32.0, 11.5], [0, 0, 1]]),
        )  # fmt: skip


@pytest.fixture
def recorded(rig):
    """Everything that four frames publish, by topic."""
    topics = {
        "image": Image, "depth/image": Image, "camera_info": CameraInfo, "camera/ground_truth": TrackArray,
        "camera/ground_truth/label_mask": Image,
    }  # fmt: skip
    node = Simulator(TwoSquares(), rate=100.0, frames=4, wait=True, context=rig.context)
    # The image last: the simulator begins when it has a subscriber.
    got = {topic: rig.collect(kind, f"/{topic}") for topic, kind in reversed(topics.items())}
    rig.executor.add_node(node)
    rig.until(lambda: node.done and all(len(messages) == 4 for messages in got.values()))
    rig.executor.remove_node(node)
    node.destroy_node()
    return got


def test_four_frames_on_every_topic(recorded):
    headers = [[m.header for m in messages] for messages in recorded.values()]
    assert all(h == headers[0] for h in headers) and headers[0][0].frame_id == "camera_optical_frame"
    assert len({(h.stamp.sec, h.stamp.nanosec) for h in headers[0]}) == 4
    assert [m.data[0] for m in recorded["image"]] == [0, 1, 2, 3]
    depth = recorded["depth/image"][0]
    assert (depth.encoding, depth.width, depth.step) == ("32FC1", 32, 128)
    metres = np.frombuffer(depth.data, np.float32).reshape(SIZE_HW)
    assert np.array_equal(metres, TwoSquares().frame(0).depth_m)
    for t, (truth, labels) in enumerate(
        zip(recorded["camera/ground_truth"], recorded["camera/ground_truth/label_mask"], strict=True)
    ):
        true_masks = TwoSquares().frame(t).masks
        assert np.array_equal(
            np.frombuffer(labels.data, np.uint8).reshape(SIZE_HW), true_masks[0] + 2 * true_masks[1].astype(np.uint8)
        )
        first, second = truth.tracks
        assert (first.object_id, first.label, first.state, first.area) == ("object_1", 1, Track.VISIBLE, 24)
        assert (first.centroid_x, first.centroid_y) == (6.0, 4.0)
        assert second.state == (Track.OCCLUDED if t % 2 else Track.VISIBLE)
        assert second.frames_since_seen == t % 2
        assert (first.presence, second.presence, second.predicted_iou) == (1.0, 1 - t % 2, 1.0)
        assert first.object_score > 0 and (second.object_score > 0) == (t % 2 == 0)
        assert second.last_seen == recorded["camera/ground_truth"][t - t % 2].header.stamp
        crop = sam2.rle_decode(np.array(first.mask.counts), (first.mask.height, first.mask.width))
        assert crop.all() and (first.mask.x, first.mask.y, first.mask.width, first.mask.height) == (3, 2, 6, 4)


def test_a_still_world_moves_later(rig):
    node = Simulator(TwoSquares(), rate=100.0, frames=5, wait=1, still=3, context=rig.context)
    images = rig.collect(Image, "/image")
    rig.executor.add_node(node)
    rig.until(lambda: node.done and len(images) == 5)
    node._on_timer()
    assert node._t == 5, "no image comes after the last"
    rig.executor.remove_node(node)
    node.destroy_node()
    assert [image.data[0] for image in images] == [0, 0, 0, 0, 1]


def test_it_waits_for_its_first_image_only(rig):
    """A subscriber that goes away does not stop the world."""
    node = Simulator(TwoSquares(), rate=100.0, frames=5, wait=1, context=rig.context)
    node._on_timer()
    assert node._t == 0
    images = rig.collect(Image, "/image")
    rig.until(lambda: node._image.get_subscription_count() == 1)
    node._on_timer()
    rig.until(lambda: images)
    (heard,) = (one for one in rig.node.subscriptions if one.topic_name == "/image")
    rig.node.destroy_subscription(heard)
    rig.until(lambda: node._image.get_subscription_count() == 0)
    node._on_timer()
    assert node._t == 2
    node.destroy_node()


def test_camera_info_is_an_ideal_pinhole():
    info = camera_info(Header(frame_id="x"), TwoSquares().frame(0).intrinsics, SIZE_HW)
    assert list(info.k) == [32, 0, 15.5, 0, 32, 11.5, 0, 0, 1] and (info.height, info.width) == SIZE_HW
    assert list(info.p) == [32, 0, 15.5, 0, 0, 32, 11.5, 0, 0, 0, 1, 0] and list(info.d) == [0] * 5
    assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1] and info.distortion_model == "plumb_bob"
    assert info.header.frame_id == "x"


@pytest.mark.parametrize(("rate", "width"), [(SLOWEST, 32), (FASTEST, MOST_PIXELS // 32)])
def test_the_slowest_fastest_smallest_and_largest_cameras_can_be(rate, width):
    check_camera(ArgumentParser(), Namespace(rate=rate, width=width, height=32, frames=0, seed=0, wait=0))


def test_what_was_never_in_view_was_not_seen_in_any_image(rig):
    """`frames_since_seen` 0 would say that it is in this one."""

    class Hidden(TwoSquares):
        def frame(self, t):
            return super().frame(1)

    node = Simulator(Hidden(), rate=1.0, context=rig.context)
    for t in range(2):
        node._t = t
        shown, hidden = node._tracks(Header(), Hidden().frame(t))
        assert (shown.frames_since_seen, hidden.frames_since_seen, hidden.last_seen.sec) == (0, t + 1, 0)
    node.destroy_node()


def test_the_end_waits_for_who_hears_any_of_the_topics(rig, monkeypatch):
    """The depth of the last image, too: a result may wait for it."""
    node, asked = Simulator(TwoSquares(), rate=1.0, context=rig.context), []
    monkeypatch.setattr(
        Publisher, "wait_for_all_acked", lambda self, timeout: asked.append((self.topic_name, timeout.nanoseconds))
    )
    node.flush(timeout_s=60.0)
    assert [topic for topic, _ in asked] == [
        "/image", "/depth/image", "/camera_info", "/camera/ground_truth", "/camera/ground_truth/label_mask",
    ]  # fmt: skip
    left = [ns for _, ns in asked]
    assert 60e9 >= left[0] > left[-1] > 0, "all of them share the time"
    node.destroy_node()


@contextmanager
def camera_process(before):
    """`sam2_ros simulate`, once it publishes. before: what SIGHUP does when it starts; nohup ignores it."""
    script = (
        f"import signal; signal.signal(signal.SIGHUP, signal.{before}); import sam2_ros.cli as c; c.main(['simulate'])"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().startswith("publishing /image")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_0(number):
    with camera_process("SIG_DFL") as process:
        process.send_signal(number)
        assert process.wait(60) == 0


def test_nohup_keeps_it_when_its_terminal_is_closed():
    with camera_process("SIG_IGN") as process:
        ignored = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1]
        assert int(ignored, 16) & 1 << signal.SIGHUP - 1
        process.terminate()  # killed, it would leave shared memory behind
        process.wait(60)
