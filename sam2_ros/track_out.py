"""sam2.Track -> messages: pure functions. Every header is that of the source image, unchanged.

Knows message fields and mask layouts. Does not know where tracks come from, nor topics.
"""

import array
from collections.abc import Iterable

import cv2
import numpy as np
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

import sam2
from sam2_ros.classes import UNLABELLED
from sam2_ros.cloud_out import point_message, pose_message, size_message
from sam2_ros.geometry import Surface
from sam2_ros.image_out import image_message
from sam2_ros.msg import Mask, Track, TrackArray, Visibility, VisibilityArray
from sam2_ros.ros_time import time_message

UNNAMED = "object"  # the class of objects that were prompted without one

DRAWN = ("label_mask", "class_mask", "target_mask", "overlay", "overlay/compressed")  # images beside a topic of tracks


def drawn_beside(topics: Iterable[str]) -> set[str]:
    """Topics of images, no camera's, that belong to the TrackArrays on `topics`: beside those of nodes like this one,
    below a simulator's ground truth."""
    beside = [topic.removesuffix("tracks") if topic.endswith("/tracks") else f"{topic}/" for topic in topics]
    return {f"{namespace}{name}" for namespace in beside for name in DRAWN}


def track_array(header: Header, tracks: list[sam2.Track], surfaces: dict[str, Surface] | None = None) -> TrackArray:
    """surfaces: each object's surface from depth, by object id."""
    seen = surfaces or {}
    return TrackArray(
        header=header, tracks=[track_message(track, surface=seen.get(track.object_id)) for track in tracks]
    )


def track_message(track: sam2.Track, with_mask: bool = True, surface: Surface | None = None) -> Track:
    """Converts one track. If its mask is empty, as always unless it is visible, box, centroid and area are zero, too;
    without a surface, the 3-D fields are zero, and the box is not rotated."""
    message = Track(
        object_id=track.object_id, class_name=track.class_name, label=track.label, state=int(track.state),
        object_score=track.object_score, presence=track.presence, predicted_iou=track.predicted_iou,
        last_seen=time_message(track.last_seen_ns), frames_since_seen=track.frames_since_seen,
    )  # fmt: skip
    message.mask.image_height, message.mask.image_width = track.size_hw
    if surface is not None:
        message.depth_share = surface.share
        message.position = point_message(surface.centroid)
        message.box_pose = pose_message(surface.box.centre, surface.box.rotation)
        message.box_size = size_message(surface.box.size)
    if track.box_xywh is not None:
        set_place(message, track.mask, track.box_xywh, with_mask)
    return message


def set_place(message: Track, mask: np.ndarray, box_xywh: tuple[int, int, int, int], with_mask: bool = True) -> None:
    """Box, area, centroid and, if wanted, run lengths of an (H, W) bool mask that is not empty."""
    x, y, width, height = box_xywh
    crop = mask[y : y + height, x : x + width]  # (height, width) bool
    message.box = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    moments = cv2.moments(np.ascontiguousarray(crop).view(np.uint8), binaryImage=True)
    message.area = int(moments["m00"])
    # OpenCV puts the centre of pixel 0 at 0; here it is at 0.5
    message.centroid_x = x + moments["m10"] / moments["m00"] + 0.5
    message.centroid_y = y + moments["m01"] / moments["m00"] + 0.5
    if with_mask:
        message.mask = mask_message(crop, (x, y), mask.shape)


def mask_message(crop: np.ndarray, xy: tuple[int, int], size_hw: tuple[int, int]) -> Mask:
    """crop: (height, width) bool, its top left pixel at `xy` in an image of `size_hw`."""
    counts = array.array("I", sam2.rle_encode(crop).tobytes())
    height, width = crop.shape
    return Mask(
        image_width=size_hw[1], image_height=size_hw[0], x=xy[0], y=xy[1], width=width, height=height, counts=counts
    )


def visibility_array(header: Header, tracks: list[sam2.Track], now_ns: int) -> VisibilityArray:
    """now_ns: the frame's time, which exists even if the header has no stamp."""
    return VisibilityArray(
        header=header,
        objects=[
            Visibility(
                object_id=track.object_id, state=int(track.state), presence=track.presence,
                seconds_since_seen=_seconds_since_seen(track, now_ns),
            )
            for track in tracks
        ],
    )  # fmt: skip


def _seconds_since_seen(track: sam2.Track, now_ns: int) -> float:
    if track.frames_since_seen == 0:
        return 0.0
    return max(now_ns - track.last_seen_ns, 0) / 1e9  # < 0 after a prompt from before a clock was set back


def label_mask(header: Header, tracks: list[sam2.Track], size_hw: tuple[int, int]) -> Image:
    """mono8: each pixel the label of its object, 0 where there is none."""
    return image_message(header, sam2.label_mask(tracks, size_hw), "mono8")


def target_mask(header: Header, tracks: list[sam2.Track], size_hw: tuple[int, int], target: str) -> Image:
    """mono8, 255 on the object `target` ("" = the one with the lowest label), 0 elsewhere."""
    chosen = next((track for track in tracks if target in ("", track.object_id)), None)
    pixels = np.zeros(size_hw, np.uint8) if chosen is None else chosen.mask.view(np.uint8) * np.uint8(255)
    return image_message(header, pixels, "mono8")


def class_mask(header: Header, tracks: list[sam2.Track], size_hw: tuple[int, int], ids: dict[str, int]) -> Image:
    """mono8: each pixel the id of the class of its object, whichever instance, 0 where there is none.

    ids: by class name; what has none is UNLABELLED.
    """
    id_of_label = np.zeros(256, np.uint8)
    for track in tracks:
        id_of_label[track.label] = ids.get(class_of(track), UNLABELLED)
    return image_message(header, id_of_label[sam2.label_mask(tracks, size_hw)], "mono8")


def class_of(track: sam2.Track) -> str:
    return track.class_name or UNNAMED
