"""The way into another frame: what TF knows, what it may still learn, and results that wait for it.

The same tests run against a stand-in for tf2 and, where it is installed, against tf2.
"""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from geometry_msgs.msg import PoseArray, TransformStamped
from rclpy.time import Time
from ros_rig import NodeProcess, start_tracking
from std_msgs.msg import Header
from std_srvs.srv import Empty
from test_depth import NOW_NS, STEP_NS, scene
from test_depth_out import FakeFrames, Rigged, with_depth

from sam2_ros import transforms
from sam2_ros.depth_out import MOST_WAITING
from sam2_ros.geometry import quaternion_of
from sam2_ros.msg import TrackArray
from sam2_ros.refused import Refused
from sam2_ros.ros_time import stamp_ns, time_message
from sam2_ros.transforms import SET_BACK_NS, Transforms, rotation_of

pytestmark = pytest.mark.ros


class TransformException(Exception):
    pass


class StandIn:
    """Of tf2_ros.Buffer: one transform; what Transforms uses, as tf2 answers it."""

    def __init__(self, node):
        self.known, self.static = {}, None  # stamp ns -> TransformStamped
        self.srv = node.create_service(Empty, "tf2_frames", lambda request, response: response)
        self.jump_handle = SimpleNamespace(_clock="its", unregister=lambda: vars(self.jump_handle).update(_clock=None))

    def can_transform(self, target, source, time):
        assert (target, source) == ("base_link", "optical")
        return self.static is not None or any(t <= time.nanoseconds <= max(self.known) for t in self.known)

    def get_latest_common_time(self, target, source):
        assert (target, source) == ("base_link", "optical")
        if self.static is not None:
            return Time(nanoseconds=0)
        if not self.known:
            raise TransformException("not connected")
        return Time(nanoseconds=max(self.known))

    def lookup_transform(self, target, source, time):
        if not self.static and not self.known:
            raise TransformException(f'"{target}" passed to lookupTransform argument target_frame does not exist. ')
        if not self.can_transform(target, source, time):
            raise TransformException("Lookup would require extrapolation")
        return self.static or min(self.known.items(), key=lambda item: abs(item[0] - time.nanoseconds))[1]

    def clear(self):
        self.known.clear()


class StandInListener:
    def __init__(self, buffer, node):
        self.buffer = buffer

    def callback(self, data):
        for one in data.transforms:
            self.buffer.known[stamp_ns(one.header.stamp)] = one

    def static_callback(self, data):
        (self.buffer.static,) = data.transforms

    def unregister(self):
        pass


@pytest.fixture(params=["a stand-in", "tf2"])
def tf2(request, monkeypatch):
    if request.param == "tf2":
        pytest.importorskip("tf2_ros")
        return
    module = SimpleNamespace(Buffer=StandIn, TransformListener=StandInListener, TransformException=TransformException)
    monkeypatch.setattr(transforms, "tf2_ros", module)


class Told:
    """Transforms of a node, which hear what `say` says, and how often they told that there are news."""

    def __init__(self, node):
        self.news = 0
        self.transforms = Transforms(node, "base_link", self.hear)

    def hear(self):
        self.news += 1

    def say(self, *stamps_ns, x=0.0):
        for stamp in stamps_ns:
            self.transforms._listener.callback(SimpleNamespace(transforms=[transform(stamp, x)]))


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
    monkeypatch.setattr(transforms, "tf2_ros", None)
    with pytest.raises(Refused, match="depth.target_frame is 'base_link'.*tf2_ros is not installed"):
        Transforms(None, "base_link", print)
    here = Transforms(None, "", print)
    rotation, translation, frame_id = here.to_target(Header(frame_id="optical"))
    assert np.array_equal(rotation, np.eye(3)) and not translation.any() and frame_id == "optical"
    assert not here.may_come(Header(frame_id="optical"))
    here.close()


def test_the_transform_is_the_one_at_the_images_stamp(tf2, node):
    tf = Told(node)
    for number in range(3):
        tf.say(NOW_NS + number * STEP_NS, x=float(number))
    rotation, translation, frame_id = tf.transforms.to_target(header_at(NOW_NS + STEP_NS))
    assert frame_id == "base_link" and np.allclose(rotation @ [0, 0, 1], [1, 0, 0], atol=1e-6)
    assert translation.tolist() == [1.0, 0.0, 1.5]
    assert tf.transforms.to_target(header_at(0, "base_link"))[2] == "base_link"
    assert tf.news == 3
    tf.transforms.close()


def test_a_transform_to_nowhere_is_refused(tf2, node):
    """tf2 lets infinity pass; a cloud that says it has no such points would be full of them."""
    tf = Told(node)
    tf.say(NOW_NS, x=float("inf"))
    with pytest.raises(Refused, match=r"transform to base_link .* is \[(inf|nan)"):
        tf.transforms.to_target(header_at(NOW_NS))
    tf.transforms.close()


def test_only_what_is_newer_than_tf_may_still_come(tf2, node):
    tf = Told(node)
    assert tf.transforms.may_come(header_at(NOW_NS))  # nothing is connected yet
    assert not tf.transforms.may_come(header_at(NOW_NS, "base_link"))
    tf.say(NOW_NS, NOW_NS + STEP_NS)
    offsets = (-1, 0, STEP_NS, STEP_NS + 1)
    assert [tf.transforms.may_come(header_at(NOW_NS + offset)) for offset in offsets] == [False, False, False, True]
    for offset in (-1, STEP_NS + 1):
        with pytest.raises(Refused, match="no transform to base_link at the image's stamp: .*extrapolation"):
            tf.transforms.to_target(header_at(NOW_NS + offset))
    tf.transforms.close()


def test_a_camera_that_is_mounted_waits_for_nothing(tf2, node):
    tf = Told(node)
    tf.transforms._listener.static_callback(SimpleNamespace(transforms=[transform(0)]))
    assert not tf.transforms.may_come(header_at(NOW_NS)) and tf.news == 1
    assert tf.transforms.to_target(header_at(NOW_NS))[1].tolist() == [0.0, 0.0, 1.5]
    tf.transforms.close()


@pytest.mark.parametrize("back_ns", [2 * SET_BACK_NS, 20 * SET_BACK_NS])
def test_transforms_that_start_over_leave_nothing_of_the_time_before(tf2, node, back_ns):
    """Otherwise tf2 finds the old ones between the new ones, or refuses the new ones as old."""
    tf = Told(node)
    tf.say(NOW_NS + back_ns, NOW_NS + back_ns + STEP_NS, x=9.0)
    tf.say(NOW_NS, NOW_NS + STEP_NS)
    assert tf.transforms.to_target(header_at(NOW_NS))[1].tolist() == [0.0, 0.0, 1.5]
    assert tf.transforms.may_come(header_at(NOW_NS + 2 * STEP_NS))
    tf.transforms.close()


def test_of_frames_that_start_over_one_after_the_other_all_are_known(tf2, node):
    tf, old_ns = Told(node), NOW_NS + 9 * SET_BACK_NS
    for message in (dict(optical=old_ns, hand=old_ns), dict(optical=NOW_NS, new=NOW_NS), dict(hand=NOW_NS + STEP_NS)):
        said = [transform(at_ns) for at_ns in message.values()]
        for one, child in zip(said, message, strict=True):
            one.child_frame_id = child
        tf.transforms._listener.callback(SimpleNamespace(transforms=said))
    assert tf.transforms.to_target(header_at(NOW_NS))[2] == "base_link"
    assert tf.transforms.may_come(header_at(NOW_NS + 2 * STEP_NS))
    tf.transforms.close()


def test_a_quaternion_is_that_of_its_rotation():
    for numbers in np.random.default_rng(0).normal(size=(20, 4)):
        quaternion = numbers / np.linalg.norm(numbers) * np.sign(numbers[3])  # q and -q are one rotation
        assert quaternion_of(rotation_of(quaternion)) == pytest.approx(quaternion, abs=1e-6)


def test_transforms_a_little_out_of_order_are_kept(tf2, node):
    tf = Told(node)
    tf.say(NOW_NS, NOW_NS + 4 * STEP_NS, NOW_NS + 2 * STEP_NS)
    assert not tf.transforms.may_come(header_at(NOW_NS + 3 * STEP_NS))
    tf.transforms.close()


def test_what_is_closed_leaves_nothing_at_the_node(tf2, node):
    def belongings():
        return len(list(node.services)), len(list(node.subscriptions))

    before = belongings()
    for _ in range(3):
        made = Transforms(node, "base_link", print)
        assert belongings() != before
        made.close()
        assert belongings() == before and made._buffer.jump_handle._clock is None


def behind(n_images):
    """A rig of which TF is behind, after that many images with depth."""
    rig, (metres, mask) = Rigged(FakeFrames(name="base_link", known_ns=NOW_NS - 1)), scene()
    rig.hear("objects/poses", "tracks")
    for number in range(n_images):
        rig.depth(metres, NOW_NS + number * STEP_NS)
        rig.image(mask, NOW_NS + number * STEP_NS)
    return rig


def test_what_tf_is_behind_with_is_published_when_it_has_come():
    rig = behind(3)
    tracks = list(iter(lambda: rig.got("tracks"), None))
    assert [message.tracks[0].depth_share for message in tracks] == [1.0] * 3  # these do not wait
    assert rig.numbers() == [] and not rig.counters.depth_trouble
    rig.frames.known_ns = NOW_NS + STEP_NS
    rig.outputs.idle()
    assert rig.numbers() == [0, 1]
    rig.frames.known_ns = NOW_NS + 9 * STEP_NS
    rig.outputs.idle()
    rig.outputs.idle()
    assert rig.numbers() == [2] and not rig.counters.depth_trouble and not rig.outputs.waits


def test_what_waits_for_tf_goes_out_before_what_is_newer():
    rig, (metres, mask) = behind(2), scene()
    rig.frames.known_ns = NOW_NS + 2 * STEP_NS
    rig.depth(metres, NOW_NS + 2 * STEP_NS)
    rig.image(mask, NOW_NS + 2 * STEP_NS)
    assert rig.numbers() == [0, 1, 2]


def test_of_images_that_wait_for_tf_there_are_few_and_the_oldest_is_given_up_by_name():
    rig = behind(MOST_WAITING)
    assert not rig.counters.depth_trouble
    rig = behind(MOST_WAITING + 2)
    assert rig.counters.depth_missed == 2
    rig.frames.known_ns = NOW_NS + 99 * STEP_NS
    rig.outputs.idle()
    assert rig.numbers() == [2, 3, 4, 5]


def test_nothing_waits_for_tf_beyond_deactivation_or_a_reset():
    for end in (lambda outputs: (outputs.close(), outputs.open()), lambda outputs: outputs.drop(None)):
        rig = behind(2)
        end(rig.outputs)
        rig.frames.known_ns = NOW_NS + 99 * STEP_NS
        rig.outputs.idle()
        assert rig.numbers() == [] and not rig.outputs.waits


def test_the_node_waits_for_tf(rig):
    """Through real DDS and tf2: transforms that come only after the result bring its poses, moved."""
    tf2_ros = pytest.importorskip("tf2_ros")
    with NodeProcess(parameters={"depth.enabled": True, "depth.target_frame": "base_link"}) as node:
        camera, caster = rig.camera(), tf2_ros.TransformBroadcaster(rig.node)
        number = start_tracking(rig, camera, "cup")
        tracks = rig.collect(TrackArray, "/sam2/tracks")
        poses = rig.collect(PoseArray, "/sam2/objects/poses")
        headers = with_depth(rig, camera)
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
