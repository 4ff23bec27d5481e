"""Readers downstream, imitated down to what they take for granted: if one of these fails, somebody's robot does."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from ros_rig import NodeProcess, click, start_tracking
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from test_depth import depth_message

import sam2
from sam2_ros.msg import TrackArray
from sam2_ros.requests import Code
from sam2_ros.srv import AddObjects, SetTarget

pytestmark = pytest.mark.ros
SIZE_HW = (48, 64)


class ExactTime:
    """message_filters' ExactTime policy: a set is complete when every topic has a message of one and the same stamp;
    at most `queue` stamps wait."""

    def __init__(self, topics, queue=20):
        self.waiting, self.sets, self.topics, self.queue = {}, [], set(topics), queue

    def add(self, topic, message):
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        self.waiting.setdefault(stamp, {})[topic] = message
        if self.waiting[stamp].keys() == self.topics:
            self.sets.append(self.waiting.pop(stamp))
        while len(self.waiting) > self.queue:
            del self.waiting[min(self.waiting)]


def test_the_synchroniser_here_is_as_strict_as_the_real_one():
    sync, late = ExactTime(("a", "b"), queue=2), Image()
    late.header.stamp.nanosec = 1
    sync.add("a", Image())
    sync.add("b", late)
    assert not sync.sets
    sync.add("b", Image())
    assert len(sync.sets) == 1


def nav2_layer(mask, cloud):
    """(class id, z) of every observation: semantic_segmentation_layer's loop, ids read at v * width + u."""
    if cloud.width * cloud.height != mask.width * mask.height:
        return None  # dropped with a warning
    assert mask.encoding == "mono8"
    offset = next(field.offset for field in cloud.fields if field.name == "z")
    z = np.frombuffer(bytes(cloud.data), np.uint8).reshape(-1, cloud.point_step)[:, offset : offset + 4]
    z = np.ascontiguousarray(z).view(np.float32)[:, 0]
    return [
        (mask.data[v * mask.width + u], z[v * mask.width + u]) for v in range(mask.height) for u in range(mask.width)
    ]


def mask2d(track):
    """(x, y, pixels) as MoveIt Pro's Mask2D has them: the crop's offset and a mono8 image of the crop."""
    mask = track.mask
    crop = sam2.rle_decode(np.array(mask.counts), (mask.height, mask.width))
    return mask.x, mask.y, np.where(crop, 255, 0).astype(np.uint8)


def test_foundationpose_nav2_octomap_and_moveit_pro_get_what_they_expect(rig):
    with NodeProcess(parameters={"depth.enabled": True, "depth.scene_stride": 1, "classes": ["floor", "cup"]}) as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a")
        depth = rig.node.create_publisher(Image, "depth/image", 10)
        info = rig.node.create_publisher(CameraInfo, "camera_info", 10)
        sync = ExactTime(("image", "depth", "info", "mask"))
        publish, images = camera.publish, {}

        def publish_all(n, **kwargs):
            msg = images[n] = publish(n, **kwargs)
            metres = depth_message(np.full(SIZE_HW, 1.5))
            metres.header = msg.header
            calibration = CameraInfo(header=msg.header, width=64, height=48, k=[50.0, 0, 31.5, 0, 50, 23.5, 0, 0, 1])
            info.publish(calibration)
            depth.publish(metres)
            for topic, message in (("image", msg), ("depth", metres), ("info", calibration)):
                sync.add(topic, message)
            return msg

        camera.publish = publish_all
        request = AddObjects.Request(prompts=[click("b", x=8.0, y=40.0)])
        request.prompts[0].class_name = "cup"
        future = rig.start_call(AddObjects, "/sam2/add_objects", request)
        number = camera.publish_until(future.done, first=number)
        assert future.result().code == Code.OK
        assert rig.call(SetTarget, "/sam2/set_target", SetTarget.Request(object_id="b")).code == Code.OK
        rig.node.create_subscription(Image, "/sam2/target_mask", lambda m: sync.add("mask", m), 20)
        classes, scenes = rig.collect(Image, "/sam2/class_mask"), rig.collect(PointCloud2, "/sam2/scene_cloud")
        tracks = rig.collect(TrackArray, "/sam2/tracks")
        camera.publish_until(lambda: len(sync.sets) > 5 and scenes and classes and tracks, first=number)

        # FoundationPose: exact stamp, full frame, 0 or 255, the chosen object only.
        found = sync.sets[-1]
        mask, image = found["mask"], found["image"]
        assert (mask.encoding, mask.width, mask.height, mask.step) == ("mono8", image.width, image.height, mask.width)
        assert mask.header == image.header and set(mask.data) == {0, 255}
        assert mask.data[40 * 64 + 8] == 255 and mask.data[20 * 64 + 30] == 0

        # MoveIt Pro: a crop put back at its offset is that mask.
        by_id = {t.object_id: t for t in tracks[-1].tracks}
        x, y, pixels = mask2d(by_id["b"])
        whole = np.zeros(SIZE_HW, np.uint8)
        whole[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        assert np.array_equal(whole.ravel(), np.frombuffer(mask.data, np.uint8))

        # Nav2: as many points as pixels, ids of classes and not of instances; the octomap has no object in it.
        pairs = nav2_layer(classes[-1], scenes[-1])
        ids = np.array([number for number, _ in pairs]).reshape(SIZE_HW)
        z = np.array([z for _, z in pairs]).reshape(SIZE_HW)
        assert ids[40, 8] == 2 and ids[20, 30] == 3 and set(ids.ravel()) == {0, 2, 3}
        assert np.isnan(z[ids > 0]).all() and np.nanmax(z) == np.nanmin(z) == 1.5
        assert nav2_layer(classes[-1], PointCloud2(width=1, height=1)) is None
        node.end()
