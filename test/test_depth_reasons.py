"""Why there is nothing 3-D: calibration and depth that are absent, of another size, or out of the range that is set."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import CameraInfo
from test_depth import NOW_NS, SIZE_HW, STEP_NS, depth_message, scene
from test_depth_out import SETTINGS, Rigged, depth_camera, points_of

from sam2_ros.geometry import Pinhole
from sam2_ros.refused import Refused

pytestmark = pytest.mark.ros


def test_calibration_of_another_size_is_told_and_nothing_is_made_of_it():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("tracks", "objects/cloud", "objects/poses")
    rig.camera.pinhole = Pinhole(50.0, 50.0, 31.5, 23.5, (24, 32))
    rig.depth(metres)
    rig.image(mask)
    assert rig.counters.depth_trouble == (
        "the camera_info is of 32x24 pixels and the image of 64x48; expected that of the image's camera"
    )
    track = rig.got("tracks").tracks[0]
    assert (track.area, track.depth_share) == (mask.sum(), 0.0)
    assert rig.got("objects/cloud") is rig.got("objects/poses") is None


@pytest.mark.parametrize("is_somewhere", [True, False])
def test_what_is_seen_and_nobody_knows_where_lacks_no_depth(is_somewhere):
    rig, (_, mask) = Rigged(), scene()
    rig.hear("objects/cloud")
    rig.depth(np.full(SIZE_HW, np.nan))
    rig.image(mask & is_somewhere)
    assert rig.counters.depth_trouble == ("too little depth on cup" if is_somewhere else "")


def test_calibration_of_another_camera_of_the_same_size_is_used_and_told():
    """As of the depth camera beside the colour camera, whose focal length is another."""
    rig, (metres, mask), camera = Rigged(), scene(), depth_camera()
    rig.hear("tracks")
    info = CameraInfo(width=64, height=48, k=[80.0, 0, 31.5, 0, 80, 23.5, 0, 0, 1])
    for number, (frame_id, trouble) in enumerate({"depth_optical": True, "camera_optical": False, "": False}.items()):
        info.header.frame_id = frame_id
        camera._on_info(info)
        rig.camera.pinhole, rig.camera.pinhole_frame = camera.pinhole, camera.pinhole_frame
        rig.depth(metres, NOW_NS + number * STEP_NS)
        rig.image(mask, NOW_NS + number * STEP_NS)
        assert ("camera_info is in the frame 'depth_optical'" in rig.counters.depth_trouble) == trouble
        assert rig.got("tracks").tracks[0].depth_share == 1.0


def missing(camera):
    """What the camera says is missing."""
    with pytest.raises(Refused) as refused:
        camera.find(NOW_NS)
    return str(refused.value)


def test_what_has_never_come_is_told():
    """And if nobody publishes it, what to do."""
    camera = depth_camera("front/")
    nobody, to = ", where nobody publishes sensor_msgs/msg/", "; remap it, for example -r front/"
    depth, info = "no depth image on /front/depth/image", "no valid calibration on /front/camera_info"
    assert missing(camera) == f"{depth}{nobody}Image{to}depth/image:=/camera/depth/image_raw"
    for kind, is_ours in (("CompressedImage", False), ("Image", True)):
        camera._depth.offers = [SimpleNamespace(topic_type=f"sensor_msgs/msg/{kind}")]
        assert (missing(camera) == depth) == is_ours
    camera.buffer.newest_ns, camera.pinhole = NOW_NS, None
    assert missing(camera) == f"{info}{nobody}CameraInfo{to}camera_info:=/camera/camera_info"
    camera._info.offers = [SimpleNamespace(topic_type="sensor_msgs/msg/CameraInfo")]
    assert missing(camera) == info


def test_a_calibration_that_is_refused_in_the_midst_of_an_image_is_still_that_image_s():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("objects/cloud")
    find = rig.camera.buffer.find
    rig.camera.buffer.find = lambda stamp_ns: setattr(rig.camera, "pinhole", None) or find(stamp_ns)
    rig.depth(metres)
    rig.image(mask)
    assert rig.got("objects/cloud") is not None and not rig.counters.failures and rig.counters.depth_matched == 1


def test_what_the_camera_says_is_missing_is_the_reason_in_the_diagnostics():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("tracks", "objects/cloud")
    rig.camera.pinhole = None
    rig.depth(metres)
    rig.image(mask)
    assert rig.counters.depth_trouble.startswith("no valid calibration on /camera_info, where nobody publishes")
    assert rig.got("tracks").tracks[0].area == mask.sum() and rig.got("objects/cloud") is None


def test_calibration_that_is_no_good_any_more_is_counted_and_not_used():
    camera = depth_camera()
    camera._on_info(CameraInfo(width=64, height=48, k=[50.0, 0, 31.5, 0, 50, 23.5, 0, 0, 1]))
    assert camera.pinhole == Pinhole(50.0, 50.0, 31.5, 23.5, SIZE_HW)
    camera._on_info(CameraInfo(width=64, height=48))
    assert "focal lengths 0, 0 and centre 0, 0: the camera" in camera._counters.depth_trouble
    assert camera.pinhole is None and camera._counters.depth_refused == {"camera_info": 1}


@pytest.mark.parametrize("change", [dict(depth_nearest_m=1.5), dict(depth_farthest_m=0.5)])
def test_depth_outside_the_range_that_is_set_now_is_not_used(change):
    rig, (metres, mask) = Rigged(), scene()  # the object is 1 m away
    rig.hear("tracks")
    rig.depth(metres)
    rig.image(mask)
    assert rig.got("tracks").tracks[0].depth_share == 1.0
    rig.outputs.settings = replace(SETTINGS, **change)
    rig.depth(metres, NOW_NS + STEP_NS)
    rig.image(mask, NOW_NS + STEP_NS)
    assert rig.got("tracks").tracks[0].depth_share == 0.0


def test_what_is_farther_than_the_range_is_neither_object_nor_scene():
    rig, (metres, mask) = Rigged(), scene()  # the rest is 2 m away
    rig.outputs.settings = replace(SETTINGS, depth_farthest_m=1.5)
    rig.hear("objects/tracks", "scene_cloud")
    rig.depth(metres)
    mask[5:35, 15:45] = True  # the mask is too large
    rig.image(mask)
    track = rig.got("objects/tracks").tracks[0]
    assert track.depth_share == pytest.approx(400 / 900) and track.box_size.x == pytest.approx(0.38, abs=1e-3)
    assert np.isnan(points_of(rig.got("scene_cloud"))[:, :3]).all()


def test_that_the_newest_depth_was_refused_is_told_until_one_is_kept():
    """That the nearest is old is only half of the reason."""
    rig, (metres, mask), camera = Rigged(), scene(), depth_camera()
    rig.hear("objects/poses")
    camera._node.simulated_time = SimpleNamespace(passed_ns=0)
    rig.outputs._depth._camera = camera
    for number, is_bad in enumerate((False, True, False)):
        message = depth_message(metres, NOW_NS + 99 * number * STEP_NS)
        message.is_bigendian = int(is_bad)
        camera._on_depth(message)
        rig.image(mask, NOW_NS + 99 * number * STEP_NS)
        assert ("the newest was refused: depth image is big-endian" in rig.counters.depth_trouble) == is_bad
    assert camera.refusal == ""


def test_what_was_wrong_with_depth_is_over_when_nobody_wants_it():
    rig, (_, mask) = Rigged(), scene()
    rig.hear("objects/poses")
    for number in range(2):
        rig.image(mask, NOW_NS + number * STEP_NS)
    assert rig.counters.depth_trouble
    rig.outputs.publishers["objects/poses"].subscribers = 0
    rig.image(mask, NOW_NS + 2 * STEP_NS)
    assert not rig.counters.depth_trouble
