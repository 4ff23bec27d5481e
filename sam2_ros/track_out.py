"""sam2.Track -> messages. Every header is that of the source image, unchanged.

Pure functions from tracks to messages; `Outputs` publishes them, each only while somebody subscribes. Knows message
fields and mask layouts. Does not know where tracks come from.
"""

import array
import threading
from collections.abc import Callable

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest

import sam2
from sam2_ros.image_out import image_message, jpeg_message, time_message
from sam2_ros.mailbox import Arrival
from sam2_ros.msg import Mask, Track, TrackArray, Visibility, VisibilityArray
from sam2_ros.overlay import Overlay
from sam2_ros.params import Settings


def track_array(header, tracks: list[sam2.Track]) -> TrackArray:
    return TrackArray(header=header, tracks=[track_message(track) for track in tracks])


def track_message(track: sam2.Track, with_mask: bool = True) -> Track:
    """The message; box, centroid and area are zero and the mask is empty unless the object is visible."""
    message = Track(
        object_id=track.object_id, class_name=track.class_name, label=track.label, state=int(track.state),
        object_score=track.object_score, presence=track.presence, predicted_iou=track.predicted_iou,
        last_seen=time_message(track.last_seen_ns), frames_since_seen=track.frames_since_seen,
    )  # fmt: skip
    message.mask.image_height, message.mask.image_width = track.size_hw
    box = sam2.bounding_box(track.mask) if track.state is sam2.State.VISIBLE else None
    if box is None:
        return message
    x, y, width, height = box
    crop = track.mask[y : y + height, x : x + width]  # (height, width) bool
    message.box = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    moments = cv2.moments(np.ascontiguousarray(crop).view(np.uint8), binaryImage=True)
    message.area = int(moments["m00"])
    # OpenCV counts pixels by their index; the centre of pixel 0 lies at 0.5
    message.centroid_x = x + moments["m10"] / moments["m00"] + 0.5
    message.centroid_y = y + moments["m01"] / moments["m00"] + 0.5
    if with_mask:
        message.mask = mask_message(crop, (x, y), track.size_hw)
    return message


def mask_message(crop: np.ndarray, xy: tuple[int, int], size_hw: tuple[int, int]) -> Mask:
    """crop: (height, width) bool, its top left pixel at `xy` in an image of `size_hw`."""
    counts = array.array("I")
    counts.frombytes(sam2.rle_encode(crop).tobytes())
    height, width = crop.shape
    return Mask(
        image_width=size_hw[1], image_height=size_hw[0], x=xy[0], y=xy[1], width=width, height=height, counts=counts
    )


def visibility_array(header, tracks: list[sam2.Track]) -> VisibilityArray:
    now_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
    return VisibilityArray(
        header=header,
        objects=[
            Visibility(
                object_id=track.object_id, state=int(track.state), presence=track.presence,
                seconds_since_seen=0.0 if track.state is sam2.State.VISIBLE else (now_ns - track.last_seen_ns) / 1e9,
            )
            for track in tracks
        ],
    )  # fmt: skip


def label_mask(header, tracks: list[sam2.Track], size_hw: tuple[int, int]) -> Image:
    """mono8: each pixel the label of its object, 0 where there is none."""
    return image_message(header, sam2.label_mask(tracks, size_hw), "mono8")


def target_mask(header, tracks: list[sam2.Track], size_hw: tuple[int, int], target: str) -> Image:
    """mono8, 255 on the object `target` ("" = the one with the lowest label), 0 elsewhere."""
    chosen = next((track for track in tracks if target in ("", track.object_id)), None)
    pixels = np.zeros(size_hw, np.uint8) if chosen is None else chosen.mask.view(np.uint8) * np.uint8(255)
    return image_message(header, pixels, "mono8")


class Outputs:
    """Publishes what came of one image, from the worker's thread. After `close` returns nothing is published.

    create: makes a publisher for (message type, topic after the node's name, depth).
    """

    def __init__(self, create: Callable, settings: Settings) -> None:
        self.settings = settings  # may be replaced at any time
        self.newest: tuple = (None, [])  # header and tracks of the newest processed image
        self._overlay = Overlay()
        self._gate = threading.Lock()
        self._open = False
        self.publishers = {
            "tracks": create(TrackArray, "tracks", 10),
            "visibility": create(VisibilityArray, "visibility", 10),
            "label_mask": create(Image, "label_mask", 2),
            "target_mask": create(Image, "target_mask", 2),
            "overlay": create(Image, "overlay", 1),
            "overlay_jpeg": create(CompressedImage, "overlay/compressed", 1),
        }

    def open(self) -> None:
        with self._gate:
            self._open = True

    def close(self) -> None:
        with self._gate:
            self._open = False

    def publish(self, arrival: Arrival, frame: sam2.Frame, tracks: list[sam2.Track]) -> bool:
        """Everything that has a subscriber; False if closed."""
        header = arrival.message.header
        with self._gate:
            if not self._open:
                return False
            self.newest = (header, tracks)
            self._send("visibility", lambda: visibility_array(header, tracks))
            self._send("tracks", lambda: track_array(header, tracks))
            self._send("label_mask", lambda: label_mask(header, tracks, frame.size_hw))
            self._send("target_mask", lambda: target_mask(header, tracks, frame.size_hw, self.settings.target))
            if self._wanted("overlay") or self._wanted("overlay_jpeg"):
                picture = self._overlay.draw(frame.rgb, tracks, self.settings.overlay_opacity)  # (H, W, 3)
                self._send("overlay", lambda: image_message(header, picture, "rgb8"))
                self._send("overlay_jpeg", lambda: jpeg_message(header, picture, self.settings.jpeg_quality))
        return True

    def _wanted(self, name: str) -> bool:
        return self.publishers[name].get_subscription_count() > 0

    def _send(self, name: str, make: Callable) -> None:
        if self._wanted(name):
            self.publishers[name].publish(make())
