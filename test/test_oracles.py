"""Against the field's own converters, where they are installed: cv_bridge for images, sensor_msgs_py for clouds."""

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from test_depth import SIZE_HW, scene
from test_depth_out import Rigged

from sam2_ros import image_in, image_out

pytestmark = pytest.mark.ros
H, W = 18, 24
NOT_IN_CV_BRIDGE = {
    "8UC1",
    "uyvy",
    "yuyv",
    "nv12",
    "nv21",
    "nv24",
}  # some in none of its versions, others in newer ones


@pytest.fixture
def bridge():
    cv_bridge = pytest.importorskip("cv_bridge")
    return cv_bridge.CvBridge()


@pytest.mark.parametrize("encoding", sorted(set(image_in.SUPPORTED_ENCODINGS) - NOT_IN_CV_BRIDGE))
def test_an_image_is_what_cv_bridge_makes_of_it(bridge, encoding):
    """To the bit, for rows without padding; those with some it shears."""
    layout = image_in._LAYOUTS[encoding]
    step = W * layout.channels * np.dtype(layout.dtype).itemsize
    data = np.random.default_rng(0).integers(0, 256, step * H, dtype=np.uint8).tobytes()
    message = Image(height=H, width=W, encoding=encoding, step=step, data=data)
    assert np.array_equal(image_in.to_rgb(message), bridge.imgmsg_to_cv2(message, "rgb8"))


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_compressed_image_is_what_cv_bridge_makes_of_it(bridge, kind):
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8), (W, H))
    message = CompressedImage(format=f"bgr8; {kind} compressed bgr8", data=cv2.imencode(f".{kind}", image)[1].tobytes())
    assert np.array_equal(image_in.to_rgb(message), bridge.compressed_imgmsg_to_cv2(message, "rgb8"))


@pytest.mark.parametrize(("encoding", "shape"), [("rgb8", (H, W, 3)), ("mono8", (H, W))])
def test_cv_bridge_reads_our_images(bridge, encoding, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    message = image_out.image_message(Header(), pixels, encoding)
    assert np.array_equal(bridge.imgmsg_to_cv2(message), pixels)


def test_sensor_msgs_py_reads_our_clouds():
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("objects/cloud", "scene_cloud")
    rig.depth(metres)
    rig.image(mask)
    cloud = rig.got("objects/cloud")
    points = point_cloud2.read_points(cloud)
    u, v = np.rint(points["x"] * 50 + 31.5).astype(int), np.rint(points["y"] * 50 + 23.5).astype(int)
    assert len(points) > 200 and mask[v, u].all() and (points["z"] == 1.0).all() and (points["label"] == 7).all()
    packed = points["rgb"].copy().view(np.uint32)  # PCL's colour: bits in a float
    red, green, blue = rig.rgb[v, u].astype(np.uint32).T
    assert np.array_equal(packed, red << 16 | green << 8 | blue)
    rows = point_cloud2.read_points_numpy(rig.got("scene_cloud"), field_names=["x", "y", "z"])
    depth = rows[:, 2].reshape(SIZE_HW)
    assert np.isnan(depth[mask]).all() and depth[40, 5] == 2.0
