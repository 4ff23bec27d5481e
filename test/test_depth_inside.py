"""The subscriptions to depth and calibration, what is kept of them, and what is made for whom."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from test_camera_inside import IMAGE, NotingNode
from test_depth import NOW_NS, SIZE_HW, STEP_NS, depth_message, filled, scene
from test_depth_out import SETTINGS, FakeFrames, Rigged, track_of
from test_depth_reasons import missing

import sam2
from sam2_ros import cloud_out
from sam2_ros import depth_camera as depth_camera_module
from sam2_ros.counters import Counters
from sam2_ros.depth_buffer import KEPT, MOST_BEHIND_NS, DepthBuffer
from sam2_ros.depth_camera import DepthCamera
from sam2_ros.depth_out import DepthOut
from sam2_ros.geometry import Pinhole, find_surface
from sam2_ros.outputs import Outputs
from sam2_ros.ros_time import time_message
from sam2_ros.stamps import Stamp

pytestmark = pytest.mark.ros
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
LATCHED, VOLATILE = DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE
TOPICS, INFO = ("/depth/image", "/camera_info"), "sensor_msgs/msg/CameraInfo"


@pytest.fixture
def camera(monkeypatch):
    """An open one; `came` notes that something did. Depth that arrives is as old as its stamp says."""
    node, came = NotingNode(("/depth/image", IMAGE, RELIABLE)), []
    clock = itertools.count(NOW_NS, STEP_NS)
    monkeypatch.setattr(depth_camera_module, "steady_ns", lambda: next(clock))
    camera = DepthCamera(node, ("depth/image", "camera_info"), SETTINGS, Counters(), lambda: came.append(1))
    camera.came = came
    camera.open()
    return camera


def asked(camera):
    return {one.topic_name: one for one in camera._node.subscriptions}


def test_depth_is_heard_as_its_publisher_offers_it_and_calibration_from_anybody(camera):
    kinds = {topic: (one.kind, one.qos.reliability, one.qos.depth) for topic, one in asked(camera).items()}
    assert kinds == {TOPICS[0]: (Image, RELIABLE, 5), TOPICS[1]: (CameraInfo, BEST_EFFORT, 5)}
    before = asked(camera)
    camera.tick()
    assert asked(camera) == before
    camera._node.offers[:] = [("/depth/image", IMAGE, BEST_EFFORT)]
    camera.tick()
    after = asked(camera)
    assert len(camera._node.subscriptions) == 2 and after[TOPICS[0]].qos.reliability == BEST_EFFORT
    assert after[TOPICS[1]] is before[TOPICS[1]] and after[TOPICS[0]].group is not before[TOPICS[0]].group
    camera._node.offers.append(("/depth/image", "sensor_msgs/msg/CompressedImage", BEST_EFFORT))
    camera._node.offers[0] = ("/depth/image", IMAGE, RELIABLE)
    camera.tick()
    assert asked(camera)[TOPICS[0]].qos.reliability == RELIABLE  # of another type: it is not heard, and has no say


def test_a_calibration_that_was_sent_once_is_asked_for_if_all_its_publishers_keep_it(camera):
    def durability():
        camera.tick()
        return asked(camera)["/camera_info"].qos.durability

    kept, sent = ("/camera_info", INFO, RELIABLE, LATCHED), ("/camera_info", INFO, RELIABLE)
    seen = []
    for offers in ([], [kept], [kept, sent], [kept], []):
        camera._node.offers[:] = offers
        seen.append(durability())
    assert seen == [VOLATILE, LATCHED, VOLATILE, LATCHED, VOLATILE]
    camera._node.offers[:] = [kept, ("/depth/image", IMAGE, RELIABLE, LATCHED)]
    assert durability() is LATCHED and asked(camera)["/depth/image"].qos.durability is VOLATILE


def test_depth_without_a_stamp_is_refused_and_the_reason_why_there_is_none(camera):
    asked(camera)["/depth/image"].hear(depth_message(scene()[0], 0))
    assert camera._counters.depth_refused == {"no_stamp": 1} and not camera._counters.depth_received
    assert missing(camera).startswith("depth image: expected the stamp of its image, got 0")
    camera.close()
    camera.open()
    assert missing(camera) == "no depth image on /depth/image"


def test_what_is_closed_hears_nothing_any_more(camera):
    camera.close()
    assert not camera._node.subscriptions
    camera._node.offers[:] = []  # and the publisher goes
    camera.tick()
    camera.close()
    assert not camera._node.subscriptions
    camera.open()
    assert asked(camera).keys() == set(TOPICS)


def test_depth_that_is_kept_is_counted_and_told_and_what_is_not_is_refused_by_name(camera):
    hear, counters = asked(camera)[TOPICS[0]].hear, camera._counters
    metres, _ = scene()
    hear(depth_message(metres, NOW_NS))
    assert (counters.depth_received, camera.came, counters.depth_refused) == (1, [1], {})
    assert camera.buffer.find(NOW_NS)[1] == ""
    hear(depth_message(metres, NOW_NS))
    assert "the one before had the same" in counters.depth_trouble
    wrong = depth_message(metres, NOW_NS + STEP_NS)
    wrong.encoding = "rgb8"
    hear(wrong)
    assert (counters.depth_received, camera.came) == (1, [1])
    assert counters.depth_refused == {"duplicate": 1, "encoding": 1} and "expected 32FC1" in counters.depth_trouble
    asked(camera)[TOPICS[1]].hear(CameraInfo(width=64, height=48, k=[50.0, 0, 31.5, 0, 51.0, 23.5, 0, 0, 1.0]))
    assert camera.pinhole == Pinhole(50.0, 51.0, 31.5, 23.5, SIZE_HW) and camera.find(NOW_NS)[1] is camera.pinhole


def test_depth_without_a_stamp_belongs_to_no_image():
    buffer = DepthBuffer(5 * 10**9)
    assert buffer.add(0, "when?", 1) is Stamp.UNKNOWN
    assert buffer.newest_ns == 0 and buffer.find(0) == (None, "no depth image has come")
    assert not buffer.may_come(NOW_NS)


def test_when_the_images_clock_is_set_back_depth_of_before_belongs_to_none():
    """Its own watch takes three messages to notice."""
    buffer = filled()
    buffer.note_image(NOW_NS + 3 * STEP_NS)
    back_ns = NOW_NS + STEP_NS
    assert buffer.find(back_ns)[0] is not None
    buffer.note_image(0)
    assert buffer.find(back_ns)[0] is not None, "an image without a stamp sets nothing back"
    buffer.note_image(back_ns)
    assert buffer.find(back_ns) == buffer.find(NOW_NS) == (None, "no depth image has come")


def test_an_image_without_a_stamp_keeps_no_depth():
    """The oldest there is would be the nearest, for ever."""
    buffer = filled()
    buffer.want([0])
    buffer.note_image(0)
    assert not buffer._held
    assert buffer.find(0) == (None, "the image has no stamp, by which its depth would be found")


def test_how_far_away_the_nearest_depth_is_is_told_either_way():
    buffer = filled()
    assert buffer.find(NOW_NS - 10 * STEP_NS) == (
        None, "the nearest depth image is 0.330 s newer than the image; expected at most 0.017 s",
    )  # fmt: skip
    assert buffer.find(NOW_NS + 4 * STEP_NS)[1].startswith("the nearest depth image is 0.033 s older than the image;")


def test_half_a_frame_is_that_of_the_depth_camera_there_is_now():
    """Another recording may be faster; its frames would be mistaken for each other."""
    buffer = filled(count=KEPT, step_ns=10**8)
    back_ns = NOW_NS - 10 * 10**9
    for number in range(3):
        buffer.add(back_ns + number * STEP_NS, number, (KEPT + number) * 10**8)
    assert buffer.slop_ns == STEP_NS // 2


def test_depth_is_as_far_away_as_half_a_frame_and_no_further():
    buffer = DepthBuffer(5 * 10**9)
    for number in range(3):
        buffer.add(NOW_NS + number * 100, number, number * 100)
    last_ns = NOW_NS + 200
    assert buffer.slop_ns == 50
    assert buffer.find(last_ns + 50) == (2, "") and buffer.find(last_ns + 51)[0] is None
    assert not buffer.may_come(last_ns + 50) and buffer.may_come(last_ns + 51), "what matches is not waited for"
    assert buffer.may_come(last_ns + MOST_BEHIND_NS) and not buffer.may_come(last_ns + MOST_BEHIND_NS + 1)


@pytest.mark.parametrize("before_it_came", [False, True])
def test_depth_of_an_image_that_has_just_come_is_kept(before_it_came):
    """The oldest there is, or one that comes only after its image."""
    buffer = DepthBuffer(5 * 10**9)
    if before_it_came:
        buffer.add(NOW_NS - STEP_NS, "before", 0)
        buffer.note_image(NOW_NS)
    for number in range(KEPT):
        buffer.add(NOW_NS + number * STEP_NS, number, number * STEP_NS)
    if not before_it_came:
        buffer.note_image(NOW_NS)
    for number in range(KEPT, 2 * KEPT):
        buffer.add(NOW_NS + number * STEP_NS, number, number * STEP_NS)
    assert buffer.find(NOW_NS) == (0, "")


def test_the_depth_of_an_image_that_is_being_decoded_is_kept_when_the_next_one_comes():
    """The worker has taken it and not named it yet: it may turn out to be broken."""
    buffer = DepthBuffer(5 * 10**9)
    buffer.note_image(NOW_NS)
    for number in range(2 * KEPT):
        buffer.add(NOW_NS + number * STEP_NS, number, number * STEP_NS)
    buffer.note_image(NOW_NS + 2 * KEPT * STEP_NS)
    buffer.want([NOW_NS])
    assert buffer.find(NOW_NS) == (0, "")


def test_the_depth_of_the_image_in_hand_and_of_those_that_wait_is_kept():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("objects/poses")
    rig.depth(metres, NOW_NS - STEP_NS)
    rig.image(mask)  # its depth has not come yet
    for number in range(2):
        rig.depth(metres, NOW_NS + number * STEP_NS)
    rig.outputs.begin(NOW_NS + STEP_NS)
    for number in range(2, 3 * KEPT):
        rig.depth(metres, NOW_NS + number * STEP_NS)
    found = [rig.camera.buffer.find(NOW_NS + number * STEP_NS)[1] == "" for number in range(3)]
    assert found == [True, True, False]


def test_what_nobody_wants_any_more_is_not_made_when_its_transform_comes(monkeypatch):
    rig, (metres, mask) = Rigged(FakeFrames(known_ns=0)), scene()
    rig.hear("objects/poses")
    rig.depth(metres)
    rig.image(mask)
    assert rig.outputs.waits
    rig.outputs.publishers["objects/poses"].subscribers = 0
    monkeypatch.setattr(rig.frames, "to_target", lambda header: pytest.fail("asked for nobody"))
    rig.outputs.idle()
    assert not rig.outputs.waits and rig.numbers() == []


def test_without_calibration_no_depth_is_waited_for():
    """Whatever comes later is of no use to that image."""
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("objects/poses")
    rig.camera.pinhole = None
    rig.depth(metres, NOW_NS - STEP_NS)
    rig.image(mask)
    assert not rig.outputs.waits and rig.counters.depth_missed == 1


def test_a_dozen_points_are_a_surface_and_eleven_are_none():
    depth, pinhole = np.ones(SIZE_HW, np.float32), Pinhole(50.0, 50.0, 31.5, 23.5, SIZE_HW)
    mask = np.zeros(SIZE_HW, bool)
    for count, is_seen in ((11, False), (12, True)):
        mask[30:33, 20:24] = np.arange(12).reshape(3, 4) < count
        surface = find_surface(depth, mask, pinhole)
        assert (surface is not None) == is_seen
    rows, columns = np.nonzero(mask)
    assert np.array_equal(surface.rows, rows) and np.array_equal(surface.columns, columns), "pixels of the whole image"


def test_points_have_the_colour_of_their_pixel_and_the_label_of_their_object():
    rig, (metres, mask) = Rigged(), scene()
    wall = np.zeros(SIZE_HW, bool)
    wall[35:45, 10:50] = True
    tracks = [track_of(mask), replace(track_of(wall, "wall"), label=9)]
    rig.outputs.settings = replace(SETTINGS, depth_scene_stride=2)
    rig.hear("objects/cloud", "scene_cloud")
    rig.depth(metres)
    header = Header(frame_id="camera_optical", stamp=time_message(NOW_NS))
    rig.outputs.publish(header, sam2.Frame(rig.rgb, NOW_NS), tracks)
    colours = np.frombuffer(rig.got("scene_cloud").data, cloud_out.SCENE_POINT)["rgb"].reshape(24, 32)
    assert np.array_equal(colours, cloud_out.pack_rgb(rig.rgb[::2, ::2]))
    points = np.frombuffer(rig.got("objects/cloud").data, cloud_out.OBJECT_POINT)
    assert {(label, z) for label, z in zip(points["label"], points["z"], strict=True)} == {(7, 1.0), (9, 2.0)}


def test_a_frame_that_has_no_name_is_no_other_one():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("tracks")
    message = depth_message(metres, NOW_NS)
    message.header.frame_id = ""
    rig.camera.buffer.add(NOW_NS, message, NOW_NS)
    rig.image(mask)
    assert rig.got("tracks").tracks[0].depth_share == 1.0 and rig.counters.depth_trouble == ""


def test_markers_are_thick_enough_to_be_drawn_and_go_when_nobody_renews_them():
    surface = find_surface(*scene(), Pinhole(50.0, 50.0, 31.5, 23.5, SIZE_HW))
    first, box, name = cloud_out.marker_array(None, [("cup", 7, (255, 51, 0), surface.box)]).markers
    assert first.action == first.DELETEALL
    assert (box.ns, box.id, box.type, name.ns, name.id, name.text) == ("box", 7, box.CUBE, "name", 7, "cup")
    assert box.scale.z == 0.005 and 0.3 < box.scale.y <= box.scale.x < 0.5
    assert (box.color.r, box.color.g, box.color.b, box.color.a) == pytest.approx((1.0, 0.2, 0.0, 0.4))
    assert name.scale.z == 0.05 and name.color.a == 1.0
    assert box.lifetime.sec == name.lifetime.sec == cloud_out.MARKER_LIFE_S


def test_how_many_messages_wait_for_a_slow_reader():
    """Few of what is large; none of the newest tracks is lost to one that reads ten at a time."""
    made = {}
    create = lambda kind, topic, depth, latched=False: made.setdefault(topic, (depth, latched))  # noqa: E731
    Outputs(create, SETTINGS, str, pytest.fail, DepthOut(create, SimpleNamespace(), Counters(), FakeFrames(), None))
    large = {"label_mask", "class_mask", "target_mask", "objects/cloud", "objects/markers", "scene_cloud"}
    small = {"tracks", "visibility", "objects/tracks", "objects/poses"}
    expected = {topic: (2, False) for topic in large} | {topic: (10, False) for topic in small}
    expected |= {"overlay": (1, False), "overlay/compressed": (1, False)}
    assert {topic: made[topic] for topic in expected} == expected
    assert made.get("label_info", (1, True)) == (1, True)
