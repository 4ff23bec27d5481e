"""The way into another frame: what TF knows, what it may still learn, and results that wait for it.

The same tests run against a stand-in for tf2 and, where it is installed, against tf2.
"""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from geometry_msgs.msg import PoseArray, TransformStamped
from rclpy.task import Future
from rclpy.time import Time
from ros_rig import NodeProcess, start_tracking
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import Empty
from test_depth import NOW_NS, SIZE_HW, STEP_NS, depth_message, scene
from test_depth_out import FakeFrames, Rigged

from sam2_ros import frames
from sam2_ros.depth_out import MOST_UNMOVED
from sam2_ros.frames import Frames
from sam2_ros.image_in import Refused
from sam2_ros.image_out import time_message
from sam2_ros.msg import TrackArray
from sam2_ros.prompt_in import stamp_ns

pytestmark = pytest.mark.ros
CACHE_NS = 10 * 10**9  # how far back tf2 remembers


class TransformException(Exception):
    pass


class StandIn:
    """Of tf2_ros.Buffer: one moving transform; what Frames uses, as tf2 answers it."""

    def __init__(self, node):
        self.known, self.static, self.waiting = {}, None, []  # stamp ns -> TransformStamped
        self.srv = node.create_service(Empty, "tf2_frames", lambda request, response: response)

    def set_transform(self, transform, authority):
        self.known[stamp_ns(transform.header.stamp)] = transform
        for future, arguments in self.waiting:
            if self.can_transform(*arguments) and not future.cancelled():
                future.set_result(None)

    def set_transform_static(self, transform, authority):
        self.static = transform

    def can_transform(self, target, source, time):
        return self.static is not None or any(t <= time.nanoseconds <= max(self.known) for t in self.known)

    def get_latest_common_time(self, target, source):
        if self.static is not None:
            return Time(nanoseconds=0)
        if not self.known:
            raise TransformException("not connected")
        return Time(nanoseconds=max(self.known))

    def lookup_transform(self, target, source, time):
        if not self.can_transform(target, source, time):
            raise TransformException("Lookup would require extrapolation")
        return self.static or min(self.known.items(), key=lambda item: abs(item[0] - time.nanoseconds))[1]

    def wait_for_transform_async(self, *arguments):
        self.waiting.append((Future(), arguments))
        return self.waiting[-1][0]

    def clear(self):
        self.known.clear()


@pytest.fixture(params=["a stand-in", "tf2"])
def tf2(request, monkeypatch):
    if request.param == "tf2":
        pytest.importorskip("tf2_ros")
        return
    listener = lambda buffer, node: SimpleNamespace(unregister=lambda: None)  # noqa: E731
    module = SimpleNamespace(Buffer=StandIn, TransformListener=listener, TransformException=TransformException)
    monkeypatch.setattr(frames, "tf2_ros", module)


@pytest.fixture
def node():
    rclpy.init()
    made = rclpy.create_node("frames")
    yield made
    made.destroy_node()
    rclpy.shutdown()


def transform(at_ns, x=0.0):
    """Of the camera in base_link: 1.5 m up, z forward becomes x forward (REP 103)."""
    made = TransformStamped(header=Header(frame_id="base_link", stamp=time_message(at_ns)), child_frame_id="optical")
    turn, at = made.transform.rotation, made.transform.translation
    turn.x, turn.y, turn.z, turn.w = -0.5, 0.5, -0.5, 0.5
    at.x, at.z = x, 1.5
    return made


def header_at(at_ns, frame_id="optical"):
    return Header(frame_id=frame_id, stamp=time_message(at_ns))


def test_a_target_frame_without_tf2_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(frames, "tf2_ros", None)
    with pytest.raises(Refused, match="depth.target_frame is 'base_link'.*tf2_ros is not installed"):
        Frames(None, "base_link")
    here = Frames(None, "")
    rotation, translation, frame_id = here.to_target(Header(frame_id="optical"))
    assert np.array_equal(rotation, np.eye(3)) and not translation.any() and frame_id == "optical"
    assert not here.may_come(Header(frame_id="optical"))
    here.forget()
    here.close()


def test_the_transform_is_the_one_at_the_images_stamp(tf2, node):
    made = Frames(node, "base_link")
    for number in range(3):
        made._buffer.set_transform(transform(NOW_NS + number * STEP_NS, x=float(number)), "test")
    rotation, translation, frame_id = made.to_target(header_at(NOW_NS + STEP_NS))
    assert frame_id == "base_link" and np.allclose(rotation @ [0, 0, 1], [1, 0, 0], atol=1e-6)
    assert translation.tolist() == [1.0, 0.0, 1.5] and rotation.dtype == translation.dtype == np.float32
    assert made.to_target(header_at(0, "base_link"))[2] == "base_link"
    made.close()


def test_only_what_is_newer_than_tf_may_still_come(tf2, node):
    made = Frames(node, "base_link")
    assert made.may_come(header_at(NOW_NS))  # nothing is connected yet
    assert not made.may_come(header_at(NOW_NS, "base_link"))
    for stamp in (NOW_NS, NOW_NS + STEP_NS):
        made._buffer.set_transform(transform(stamp), "test")
    offsets = (-1, 0, STEP_NS, STEP_NS + 1)
    assert [made.may_come(header_at(NOW_NS + offset)) for offset in offsets] == [False, False, False, True]
    for offset in (-1, STEP_NS + 1):
        with pytest.raises(Refused, match="no transform to base_link at the image's stamp: .*extrapolation"):
            made.to_target(header_at(NOW_NS + offset))
    made.close()


def test_a_camera_that_is_mounted_waits_for_nothing(tf2, node):
    made = Frames(node, "base_link")
    made._buffer.set_transform_static(transform(0), "test")
    made.forget()
    assert not made.may_come(header_at(NOW_NS)) and made.to_target(header_at(NOW_NS))[1].tolist() == [0.0, 0.0, 1.5]
    made.close()


def test_who_waits_is_told_when_the_transform_has_come(tf2, node):
    made, told = Frames(node, "base_link"), []
    for number in range(2):
        made.expect(header_at(NOW_NS + number * STEP_NS)).add_done_callback(
            lambda _, number=number: told.append(number)
        )
    given_up = made.expect(header_at(NOW_NS))
    given_up.cancel()
    made._buffer.set_transform(transform(NOW_NS - STEP_NS), "test")
    assert told == []
    made._buffer.set_transform(transform(NOW_NS), "test")
    assert told == [0] and given_up.cancelled()
    made._buffer.set_transform(transform(NOW_NS + STEP_NS), "test")
    assert told == [0, 1]
    made.close()


def test_a_clock_that_was_set_back_leaves_nothing_of_the_time_before(tf2, node):
    """Otherwise tf2 finds the old transforms between the new ones, and refuses new ones as old ones."""
    made = Frames(node, "base_link")
    for stamp in (NOW_NS + 2 * CACHE_NS, NOW_NS + 2 * CACHE_NS + STEP_NS):
        made._buffer.set_transform(transform(stamp, x=9.0), "test")
    made.forget()
    assert made.may_come(header_at(NOW_NS))
    for stamp in (NOW_NS, NOW_NS + STEP_NS):
        made._buffer.set_transform(transform(stamp), "test")
    assert made.to_target(header_at(NOW_NS))[1].tolist() == [0.0, 0.0, 1.5]
    made.close()


def test_what_is_closed_leaves_nothing_at_the_node(tf2, node):
    def belongings():
        return len(list(node.services)), len(list(node.subscriptions))

    before = belongings()
    for _ in range(3):
        made = Frames(node, "base_link")
        assert belongings() != before
        made.close()
        assert belongings() == before


def behind(n_images):
    """A rig of which TF is behind, after that many images with depth."""
    rig, (metres, mask) = Rigged(FakeFrames(name="base_link", known_ns=NOW_NS - 1)), scene()
    rig.hear("objects_poses", "tracks")
    for number in range(n_images):
        rig.depth(metres, NOW_NS + number * STEP_NS)
        rig.image(mask, NOW_NS + number * STEP_NS)
    return rig


def heard(rig):
    """Numbers of the images whose poses came."""
    return [
        (stamp_ns(poses.header.stamp) - NOW_NS) // STEP_NS for poses in iter(lambda: rig.got("objects_poses"), None)
    ]


def test_what_tf_is_behind_with_is_published_when_it_has_come():
    rig = behind(3)
    tracks = list(iter(lambda: rig.got("tracks"), None))
    assert [message.tracks[0].depth_share for message in tracks] == [1.0] * 3  # these do not wait
    assert heard(rig) == [] and not rig.counters.depth_trouble
    rig.frames.come(NOW_NS + STEP_NS)
    assert len(rig.woken) == 2 and heard(rig) == []  # the executor does not publish, it wakes the worker
    rig.outputs.idle()
    assert heard(rig) == [0, 1]
    rig.frames.come(NOW_NS + 9 * STEP_NS)
    rig.outputs.idle()
    rig.outputs.idle()
    assert heard(rig) == [2] and not rig.counters.depth_trouble


def test_what_waits_for_tf_goes_out_before_what_is_newer():
    rig, (metres, mask) = behind(2), scene()
    rig.frames.come(NOW_NS + 2 * STEP_NS)
    rig.depth(metres, NOW_NS + 2 * STEP_NS)
    rig.image(mask, NOW_NS + 2 * STEP_NS)
    assert heard(rig) == [0, 1, 2]


def test_of_images_that_wait_for_tf_there_are_few_and_the_oldest_is_given_up_by_name():
    rig = behind(MOST_UNMOVED)
    assert not rig.counters.depth_trouble
    rig = behind(MOST_UNMOVED + 2)
    assert rig.counters.depth_trouble == "extrapolation into the future"
    assert [future.cancelled() for _, future in rig.frames.expected] == [True] * 2 + [False] * MOST_UNMOVED
    rig.frames.come(NOW_NS + 99 * STEP_NS)
    assert len(rig.woken) == MOST_UNMOVED  # nobody is woken for what was given up
    rig.outputs.idle()
    assert heard(rig) == [2, 3, 4, 5]


def test_a_clock_that_was_set_back_forgets_what_waits_and_what_tf_knew():
    rig, (_, mask) = behind(2), scene()
    assert rig.frames.forgot == 0
    rig.image(mask, NOW_NS - 10 * STEP_NS)
    assert rig.frames.forgot == 1
    rig.frames.come(NOW_NS + 99 * STEP_NS)
    rig.outputs.idle()
    assert heard(rig) == []


def test_nothing_waits_for_tf_beyond_deactivation():
    rig = behind(2)
    rig.outputs.close()
    rig.outputs.open()
    rig.frames.come(NOW_NS + 99 * STEP_NS)
    rig.outputs.idle()
    assert heard(rig) == [] and not rig.woken


def test_the_node_waits_for_tf(rig):
    """Through real DDS and tf2: transforms that come only after the result bring its poses, moved."""
    tf2_ros = pytest.importorskip("tf2_ros")
    with NodeProcess(parameters={"depth.enabled": True, "depth.target_frame": "base_link"}) as node:
        camera, caster = rig.camera(), tf2_ros.TransformBroadcaster(rig.node)
        number = start_tracking(rig, camera, "cup")
        depth = rig.node.create_publisher(Image, "depth/image", 5)
        info = rig.node.create_publisher(CameraInfo, "camera_info", 5)
        tracks = rig.collect(TrackArray, "/sam2/tracks")
        poses = rig.collect(PoseArray, "/sam2/objects/poses")
        publish, headers = camera.publish, []

        def publish_all(n, **kwargs):
            msg = publish(n, **kwargs)
            metres = depth_message(np.full(SIZE_HW, 1.5))
            metres.header = msg.header
            info.publish(CameraInfo(header=msg.header, width=64, height=48, k=[50.0, 0, 31.5, 0, 50, 23.5, 0, 0, 1]))
            depth.publish(metres)
            headers.append(msg.header)
            return msg

        camera.publish = publish_all
        camera.publish_until(lambda: tracks and tracks[-1].tracks[0].depth_share == 1.0, first=number)
        assert not poses
        sent = transform(0)
        sent.child_frame_id = headers[-1].frame_id
        for stamp in (headers[0].stamp, headers[-1].stamp):
            sent.header.stamp = stamp
            caster.sendTransform(sent)
        rig.until(lambda: poses)
        assert poses[-1].header.frame_id == "base_link" and poses[-1].poses[0].position.x == pytest.approx(1.5)
        node.end()
