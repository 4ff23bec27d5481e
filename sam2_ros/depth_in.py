"""Depth images and camera calibration: messages -> metres and a pinhole, or a named reason why not.

Depth by REP 118: 32FC1 in metres or 16UC1 in millimetres, of the same pixels as the camera image (registered to it).
Knows message fields. Does not know topics, nor which depth belongs to which image.
"""

from typing import TYPE_CHECKING

import numpy as np

from sam2_ros.geometry import Pinhole
from sam2_ros.refused import Refused

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo, Image

MIN_FOCAL, MAX_PLACE = 1e-3, 1e7  # pixels; outside of these, positions overflow
NOTHING_M = 1e-6  # depth up to this counts as not measured
_METRES_PER_UNIT = {"32FC1": (np.float32, 1.0), "16UC1": (np.uint16, 0.001), "mono16": (np.uint16, 0.001)}


def check_depth(msg: "Image", max_pixels: int) -> None:
    """Raises Refused unless `to_metres(msg)` can work: empty_image, too_large, encoding, bigendian, bad_step,
    short_data. Reads no pixels."""
    if msg.width == 0 or msg.height == 0:
        raise Refused("empty_image", f"depth image of {msg.width}x{msg.height} pixels")
    if msg.width * msg.height > max_pixels:
        raise Refused("too_large", f"depth image of {msg.width}x{msg.height}: expected at most {max_pixels} pixels")
    if msg.encoding not in _METRES_PER_UNIT:
        raise Refused("encoding", f"depth image with encoding {msg.encoding!r}: expected 32FC1 (m) or 16UC1 (mm)")
    if msg.is_bigendian:
        raise Refused("bigendian", "depth image is big-endian: expected is_bigendian = 0")
    item = np.dtype(_METRES_PER_UNIT[msg.encoding][0]).itemsize
    if msg.step < msg.width * item:
        raise Refused("bad_step", f"step {msg.step}: a row of {msg.width} depth pixels has {msg.width * item} bytes")
    if len(msg.data) > max_pixels * item:
        raise Refused("too_large", f"{len(msg.data)} bytes of depth: expected those of at most {max_pixels} pixels")
    if len(msg.data) != msg.step * msg.height:
        raise Refused("short_data", f"{len(msg.data)} bytes of depth: step x height are {msg.step * msg.height}")


def to_metres(msg: "Image", nearest_m: float, farthest_m: float) -> np.ndarray:
    """(H, W) float32 metres of a message that passed `check_depth`; infinity beyond `farthest_m` (REP 117), NaN below
    `nearest_m` or where nothing is measured.

    Raises Refused("range") unless nearest_m < farthest_m; the two are independent parameters.
    """
    if nearest_m >= farthest_m:
        raise Refused("range", f"depth.nearest_m is {nearest_m:g}: expected less than depth.farthest_m, {farthest_m:g}")
    kind, unit = _METRES_PER_UNIT[msg.encoding]
    rows = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)[:, : msg.width * np.dtype(kind).itemsize]
    metres = np.ascontiguousarray(rows).view(kind).astype(np.float32) * np.float32(unit)  # (H, W), a copy
    with np.errstate(invalid="ignore"):
        is_measured = (metres > NOTHING_M) & (metres >= nearest_m)  # no NaN
        metres[metres > farthest_m] = np.inf
    metres[~is_measured] = np.nan
    return metres


def to_pinhole(info: "CameraInfo") -> Pinhole:
    """The rectified camera of a sensor_msgs/CameraInfo, as depth_image_proc reads it: from P, or from K if P is empty,
    with region of interest and binning. Distortion is ignored, because depth is of rectified pixels (REP 118).

    Raises Refused("camera_info") if it is not calibrated.
    """
    matrix = (info.p[0], info.p[5], info.p[2], info.p[6]) if info.p[0] else (info.k[0], info.k[4], info.k[2], info.k[5])
    focal, centre = np.array(matrix[:2]), np.array(matrix[2:])
    if not ((focal >= MIN_FOCAL) & (focal <= MAX_PLACE) & (np.abs(centre) <= MAX_PLACE)).all():  # NaN fails, too
        raise Refused(
            "camera_info", "camera_info with focal lengths {:g}, {:g} and centre {:g}, {:g}: the camera is not "
            "calibrated".format(*matrix)
        )  # fmt: skip
    roi, bin_x, bin_y = info.roi, max(info.binning_x, 1), max(info.binning_y, 1)
    width, height = (roi.width, roi.height) if roi.width else (info.width, info.height)
    fx, fy, cx, cy = matrix
    return Pinhole(
        fx / bin_x, fy / bin_y, (cx - roi.x_offset) / bin_x, (cy - roi.y_offset) / bin_y,
        (height // bin_y, width // bin_x),
    )  # fmt: skip
