"""Clouds, poses and tracks with depth: what consumers assume of them, and what happens when depth is late or bad."""

import queue
import struct
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from ros_rig import NodeProcess, start_tracking
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from test_depth import NOW_NS, SIZE_HW, STEP_NS, depth_message, scene
from test_track_out import FakePublisher

import sam2
from sam2_ros import depth_in
from sam2_ros.counters import Counters
from sam2_ros.depth_buffer import MOST_BEHIND_NS
from sam2_ros.depth_camera import DepthCamera
from sam2_ros.depth_out import MOST_WAITING, DepthOut
from sam2_ros.geometry import Pinhole
from sam2_ros.msg import TrackArray
from sam2_ros.outputs import Outputs
from sam2_ros.params import Settings
from sam2_ros.refused import Refused
from sam2_ros.ros_time import stamp_ns, time_message
from sam2_ros.transforms import rotation_of

pytestmark = pytest.mark.ros
SETTINGS = Settings(depth_enabled=True, depth_scene_stride=1)


def track_of(mask, name="cup"):
    return sam2.Track(
        object_id=name, class_name="", label=7, state=sam2.State.VISIBLE, object_score=5.0, presence=0.99,
        predicted_iou=0.9, last_seen_ns=NOW_NS, frames_since_seen=0, size_hw=SIZE_HW,
        low_res_logits=np.where(mask, 4.0, -4.0).astype(np.float32),
    )  # fmt: skip


def depth_camera(prefix=""):
    """Without a node, and calibrated."""
    node = SimpleNamespace(resolve_topic_name=lambda name: f"/{name}")
    made = DepthCamera(node, (f"{prefix}depth/image", f"{prefix}camera_info"), SETTINGS, Counters(), lambda: None)
    made.pinhole = Pinhole(50.0, 50.0, 31.5, 23.5, SIZE_HW)
    return made


class FakeFrames:
    """TF that knows one transform, up to a stamp. What may come is what is newer."""

    def __init__(self, turn=None, at=(0, 0, 0), name="camera_optical", known_ns=2**62):
        self.turn, self.at, self.name, self.known_ns = np.eye(3) if turn is None else turn, at, name, known_ns

    def to_target(self, header):
        if self.may_come(header):
            raise Refused("transform", "extrapolation into the future")
        return np.asarray(self.turn, float), np.array(self.at, float), self.name

    def may_come(self, header):
        return stamp_ns(header.stamp) > self.known_ns


class Rigged:
    """Outputs with depth, publishers that note, and one object."""

    def __init__(self, frames=None):
        self.camera, self.counters, self.frames, self.told = depth_camera(), Counters(), frames or FakeFrames(), []
        create = lambda kind, topic, depth, latched=False: FakePublisher(topic)  # noqa: E731
        depth = DepthOut(create, self.camera, self.counters, self.frames, SimpleNamespace(error=self.told.append))
        self.outputs = Outputs(create, SETTINGS, str, pytest.fail, depth)
        self.outputs.open()
        self.rgb = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)

    def hear(self, *names):
        for name in names:
            self.outputs.publishers[name].subscribers = 1

    def depth(self, metres, at_ns=NOW_NS):
        self.camera.buffer.add(at_ns, depth_message(metres, at_ns), at_ns)

    def image(self, mask, at_ns=NOW_NS):
        self.outputs.begin(at_ns)
        self.publish(track_of(mask), at_ns=at_ns)

    def publish(self, *tracks, at_ns=NOW_NS):
        header = Header(frame_id="camera_optical", stamp=time_message(at_ns))
        self.outputs.publish(header, sam2.Frame(self.rgb, at_ns), list(tracks))

    def numbers(self, name="objects/poses"):
        """Of the images whose messages have come."""
        stamps = [stamp_ns(message.header.stamp) for message in iter(lambda: self.got(name), None)]
        return [(stamp - NOW_NS) // STEP_NS for stamp in stamps]

    def got(self, name):
        try:
            return self.outputs.publishers[name].sent.get_nowait()
        except queue.Empty:
            return None


def points_of(cloud):
    """Rows of (x, y, z, rgb, ...) read by the fields' own offsets, as a foreign reader does."""
    assert not cloud.is_bigendian and len(cloud.data) == cloud.row_step * cloud.height
    names = {f.name: f for f in cloud.fields}
    assert [(names[n].datatype, names[n].count) for n in ("x", "y", "z", "rgb")] == [(7, 1)] * 4
    data = bytes(cloud.data)
    return np.array(
        [
            struct.unpack_from("<fff", data, at + names["x"].offset)
            + struct.unpack_from("<I", data, at + names["rgb"].offset)
            for at in range(0, len(data), cloud.point_step)
        ]
    )


def test_the_object_in_3d():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("tracks", "objects/cloud", "objects/poses", "objects/markers", "scene_cloud")
    rig.depth(metres)
    rig.image(mask)
    (track,) = rig.got("tracks").tracks
    expected = [(29.5 - 31.5) / 50, (19.5 - 23.5) / 50, 1.0]
    assert track.depth_share == 1.0
    for point in (track.position, track.box_pose.position, rig.got("objects/poses").poses[0].position):
        assert [point.x, point.y, point.z] == pytest.approx(expected, abs=1e-5)
    assert [track.box_size.x, track.box_size.y] == pytest.approx([0.38, 0.38], abs=0.001)
    cloud = rig.got("objects/cloud")
    points = points_of(cloud)
    assert cloud.is_dense and cloud.height == 1 and np.all(points[:, 2] == 1.0)
    assert cloud.header.frame_id == "camera_optical" and cloud.header.stamp == time_message(NOW_NS)
    u, v = np.rint(points[:, 0] * 50 + 31.5).astype(int), np.rint(points[:, 1] * 50 + 23.5).astype(int)
    r, g, b = rig.rgb[v, u].astype(np.int64).T
    assert mask[v, u].all() and np.array_equal(points[:, 3], (r << 16) + (g << 8) + b)
    assert {marker.text for marker in rig.got("objects/markers").markers} >= {"cup"}


def test_the_scene_without_the_object_is_organised_like_the_image():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("scene_cloud")
    rig.depth(metres)
    rig.image(mask)
    cloud = rig.got("scene_cloud")
    # As octomap and the Nav2 layer read it: index v * width + u, NaN = nothing.
    assert (cloud.width, cloud.height, cloud.is_dense) == (64, 48, False) and cloud.row_step == 64 * cloud.point_step
    z = points_of(cloud)[:, 2].reshape(SIZE_HW)
    assert np.isnan(z[mask]).all() and np.isnan(z[8, 18]) and z[40, 5] == 2.0 and np.isnan(z[0, :3]).all()
    assert np.isfinite(z[:5, 3:]).all()


def test_without_depth_2d_is_untouched_and_the_reason_is_told():
    rig, (_, mask) = Rigged(), scene()
    rig.hear("tracks", "label_mask", "objects/cloud")
    rig.image(mask)
    assert rig.got("label_mask") and rig.got("objects/cloud") is None
    rig.image(mask, NOW_NS + STEP_NS)  # the first one waited in vain
    assert rig.got("tracks").tracks[0].depth_share == 0.0 and "no depth image" in rig.counters.depth_trouble
    rig.depth(np.full((24, 32), 1.0), NOW_NS + 2 * STEP_NS)
    rig.image(mask, NOW_NS + 2 * STEP_NS)
    assert "32x24" in rig.counters.depth_trouble and "register" in rig.counters.depth_trouble
    rig.depth(np.full(SIZE_HW, np.nan), NOW_NS + 3 * STEP_NS)
    rig.image(mask, NOW_NS + 3 * STEP_NS)
    assert rig.counters.depth_trouble == "too little depth on cup"
    assert rig.got("objects/cloud").width == 0  # depth there is, points there are none: not silence


def test_depth_of_another_frame_is_used_and_told():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("tracks")
    message = depth_message(metres)
    message.header.frame_id = "depth_optical"
    rig.camera.buffer.add(NOW_NS, message, NOW_NS)
    rig.image(mask)
    assert "frame 'depth_optical' and the image in 'camera_optical'" in rig.counters.depth_trouble


def test_an_error_in_3d_does_not_cost_the_2d_results(monkeypatch):
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("tracks", "objects/cloud")
    monkeypatch.setattr("sam2_ros.depth_out.find_surface", lambda *_: 1 / 0)
    rig.depth(metres)
    rig.image(mask)
    assert rig.got("tracks").tracks[0].area == mask.sum() and rig.got("objects/cloud") is None
    assert rig.counters.failures == {"depth: ZeroDivisionError": 1} and "division" in rig.counters.depth_trouble
    assert len(rig.told) == 1 and "Traceback" in rig.told[0], "who mends it needs the place"


def test_depth_that_comes_after_the_result_completes_it():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("objects/poses", "objects/tracks", "tracks")
    rig.depth(metres, NOW_NS - STEP_NS)
    rig.image(mask)
    assert rig.got("tracks").tracks[0].depth_share == 0.0 and rig.numbers() == [] and rig.outputs.waits
    rig.outputs.idle()
    assert rig.numbers() == []
    rig.depth(metres)
    rig.outputs.idle()
    whole = rig.got("objects/tracks")
    assert whole.header.stamp == time_message(NOW_NS) and whole.tracks[0].depth_share == 1.0
    assert rig.numbers() == [0]
    rig.outputs.idle()
    assert rig.numbers() == [] and not rig.outputs.waits


def test_depth_that_is_later_than_the_next_image_completes_both():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("objects/poses")
    rig.depth(metres, NOW_NS - STEP_NS)
    for number in range(3):
        rig.image(mask, NOW_NS + number * STEP_NS)
    for number in range(2):
        rig.depth(metres, NOW_NS + number * STEP_NS)
    rig.outputs.idle()
    assert rig.numbers() == [0, 1] and rig.counters.depth_matched == 2
    rig.depth(metres, NOW_NS + 2 * STEP_NS)
    rig.image(mask, NOW_NS + 3 * STEP_NS)
    assert rig.numbers() == [2] and not rig.counters.depth_missed


def test_of_images_that_wait_for_depth_there_are_few_and_the_oldest_is_given_up_by_name():
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("objects/poses")
    rig.depth(metres, NOW_NS - STEP_NS)
    for number in range(MOST_WAITING + 2):
        rig.image(mask, NOW_NS + number * STEP_NS)
    assert rig.counters.depth_missed == 2 and "older than the image" in rig.counters.depth_trouble
    rig.image(mask, NOW_NS + 2 * MOST_BEHIND_NS)  # nobody waits for a depth camera that has died
    assert rig.counters.depth_missed >= 3


def test_nobody_listening_costs_nothing(monkeypatch):
    rig, (metres, mask) = Rigged(), scene()
    monkeypatch.setattr(depth_in, "to_metres", lambda *_: pytest.fail("depth was looked at for nobody"))
    rig.depth(metres)
    rig.image(mask)


def test_a_target_frame_moves_what_is_3d_and_names_itself():
    turn, shift = rotation_of((-0.5, 0.5, -0.5, 0.5)), (0, 0, 1.5)  # optical to body: z forward becomes x (REP 103)
    here, there = Rigged(), Rigged(FakeFrames(turn, shift, "base_link"))
    for rig in (here, there):
        rig.hear("objects/cloud", "scene_cloud", "objects/poses", "objects/markers", "tracks")
        rig.depth(scene()[0])
        rig.image(scene()[1])
    for name in ("objects/cloud", "scene_cloud"):
        before, after = (points_of(rig.got(name))[:, :3] for rig in (here, there))
        assert after == pytest.approx(before @ turn.T + shift, abs=1e-6, nan_ok=True)
    poses = there.got("objects/poses")
    at = poses.poses[0].position
    assert poses.header.frame_id == "base_link" and poses.header.stamp == time_message(NOW_NS)
    assert [at.x, at.y, at.z] == pytest.approx([1.0, 0.04, 1.58], abs=1e-5)
    before, after = (rotation_of(quaternion(pose)) for pose in (here.got("objects/poses").poses[0], poses.poses[0]))
    assert after == pytest.approx(turn @ before, abs=1e-6)
    shown = there.got("objects/markers").markers[1:]
    assert [(marker.header, marker.pose) for marker in shown] == [(poses.header, poses.poses[0])] * 2
    assert there.got("tracks").tracks[0].position.z == 1.0  # a track stays in the frame of its header


def quaternion(pose):
    return pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w


def with_depth(rig, camera) -> list[Header]:
    """From now on the camera sends depth, 1.5 m everywhere, and calibration with each image; grows by their headers."""
    depth = rig.node.create_publisher(Image, "depth/image", 5)
    info = rig.node.create_publisher(CameraInfo, "camera_info", 5)
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
    return headers


def test_the_node_with_depth(rig):
    """Best-effort depth and reliable images through real DDS; what is heard is of the exact stamp."""
    with NodeProcess(parameters={"depth.enabled": True}) as node:
        camera, said = rig.camera(), rig.diagnostics()
        number = start_tracking(rig, camera, "cup")
        tracks, clouds = rig.collect(TrackArray, "/sam2/tracks"), rig.collect(PointCloud2, "/sam2/objects/cloud")
        number = camera.publish_until(lambda: tracks, first=number)
        assert tracks[-1].tracks[0].depth_share == 0.0
        said.clear()
        rig.until(lambda: any("no depth image on /depth/image" in s.message for m in said for s in m.status))
        with_depth(rig, camera)
        camera.publish_until(lambda: clouds and tracks[-1].tracks[0].depth_share == 1.0, first=number)
        assert tracks[-1].tracks[0].position.z == pytest.approx(1.5)
        assert clouds[-1].header.frame_id == "camera_optical" and clouds[-1].width > 20
        node.end()
