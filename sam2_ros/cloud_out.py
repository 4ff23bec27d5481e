"""Points, poses and boxes -> messages. Knows the layout of a PointCloud2. Does not know masks.

Data is an array.array, which rclpy accepts without checking every byte. sensor_msgs_py does the same, but has no wheel.
"""

import array

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion, Vector3
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from sam2_ros.geometry import OrientedBox, quaternion_of

MARKER_LIFE_S = 5  # so that RViz does not show vanished objects for ever
SCENE_POINT = np.dtype([("x", np.float32), ("y", np.float32), ("z", np.float32), ("rgb", np.uint32)])
OBJECT_POINT = np.dtype([*SCENE_POINT.descr, ("label", np.uint32)])
_FIELD_TYPES = dict.fromkeys(("x", "y", "z", "rgb"), PointField.FLOAT32)  # PCL's rgb: 0x00RRGGBB in the bits of a float
_FIELD_TYPES["label"] = PointField.UINT32


def pack_rgb(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 -> (...) uint32 0x00RRGGBB."""
    wide = rgb.astype(np.uint32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def cloud_message(header: Header, points: np.ndarray, is_dense: bool) -> PointCloud2:
    """points: (N,) or organised (h, w) of OBJECT_POINT or SCENE_POINT. is_dense: none of them is NaN."""
    height, width = points.shape if points.ndim == 2 else (1, len(points))
    data = array.array("B", points.tobytes())
    fields = [
        PointField(name=name, offset=offset, datatype=_FIELD_TYPES[name], count=1)
        for name, (_, offset, *_) in (points.dtype.fields or {}).items()
    ]
    return PointCloud2(
        header=header, height=height, width=width, fields=fields, is_bigendian=False, data=data, is_dense=is_dense,
        point_step=points.dtype.itemsize, row_step=points.dtype.itemsize * width,
    )  # fmt: skip


def pose_message(centre: np.ndarray, rotation: np.ndarray) -> Pose:
    """centre: (3,) metres. rotation: (3, 3)."""
    x, y, z, w = map(float, quaternion_of(rotation))
    return Pose(position=point_message(centre), orientation=Quaternion(x=x, y=y, z=z, w=w))


def point_message(xyz: np.ndarray) -> Point:
    x, y, z = map(float, xyz)
    return Point(x=x, y=y, z=z)


def size_message(size: np.ndarray) -> Vector3:
    x, y, z = map(float, size)
    return Vector3(x=x, y=y, z=z)


def pose_array(header: Header, boxes: list[OrientedBox]) -> PoseArray:
    return PoseArray(header=header, poses=[pose_message(box.centre, box.rotation) for box in boxes])


def marker_array(header: Header, named: list[tuple[str, int, tuple, OrientedBox]]) -> MarkerArray:
    """A DELETEALL marker, then a translucent box and a text for each (object id, label, RGB bytes, box)."""
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for name, label, colour, box in named:
        for kind, space in ((Marker.CUBE, "box"), (Marker.TEXT_VIEW_FACING, "name")):
            marker = Marker(header=header, ns=space, id=label, type=kind, action=Marker.ADD)
            marker.lifetime.sec = MARKER_LIFE_S
            marker.pose = pose_message(box.centre, box.rotation)
            marker.scale = size_message(np.maximum(box.size, 0.005))  # RViz refuses boxes without thickness
            marker.color.r, marker.color.g, marker.color.b = (channel / 255 for channel in colour)
            marker.color.a = 0.4
            if kind == Marker.TEXT_VIEW_FACING:
                marker.text, marker.scale.z, marker.color.a = name, 0.05, 1.0
            markers.append(marker)
    return MarkerArray(markers=markers)
