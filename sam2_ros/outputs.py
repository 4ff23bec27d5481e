"""Publishes each image's results: every output only while it has a subscriber, and nothing once the node is inactive.

The latched label_info is published without subscribers, too. Knows topics and which module builds which message. Does
not know where tracks come from.
"""

import threading
from collections.abc import Callable, Collection

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

import sam2
from sam2_ros import image_out, track_out, vision
from sam2_ros.classes import Classes
from sam2_ros.depth_out import DepthOut, View
from sam2_ros.msg import TrackArray, VisibilityArray
from sam2_ros.newest_result import NewestResult
from sam2_ros.overlay import Overlay
from sam2_ros.params import Settings


class Outputs:
    """Publishes the results of images, from the worker's thread. Once `close` has returned, nothing is published.

    create: makes a publisher from (message type, topic relative to the camera's outputs, queue depth); latched=True
    makes it transient local. settings: may be replaced at any time. target: returns the id of the object shown on
    `target_mask`. warn: logs a sentence. depth: publishes the 3-D outputs; None without a depth camera.
    """

    def __init__(
        self, create: Callable, settings: Settings, target: Callable[[], str], warn: Callable[[str], object],
        depth: DepthOut | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.newest = NewestResult()  # replaced in the worker's thread only
        self._failure: Exception | None = None  # the first error of the current image
        self._target, self._depth = target, depth
        self._classes = Classes(settings.classes, warn)
        self._told_classes = -1  # number of those in the newest `label_info`; -1 = there was none
        self._overlay = Overlay()
        self._gate = threading.Lock()
        self._open = False
        topics = (
            ("tracks", TrackArray, 10), ("visibility", VisibilityArray, 10), ("label_mask", Image, 2),
            ("class_mask", Image, 2), ("target_mask", Image, 2), ("overlay", Image, 1),
            ("overlay/compressed", CompressedImage, 1),
        )  # fmt: skip
        self.publishers = {topic: create(kind, topic, length) for topic, kind, length in topics}
        if vision.INSTALLED:
            self.publishers["detections"] = create(vision.Detection2DArray, "detections", 10)
            self.publishers["label_info"] = create(vision.LabelInfo, "label_info", 1, latched=True)
        self.publishers |= depth.publishers if depth else {}

    def drop(self, object_ids: Collection[str] | None) -> None:
        """Takes removed objects out of the newest result, before the next image; None = all. In the worker's thread."""
        if object_ids is None and self._depth:
            with self._gate:
                self._depth.forget()
        self.newest = self.newest.without(object_ids)

    def note_restored(self, object_ids: Collection[str]) -> None:
        """Adds restored objects to the newest result; the next image will have their tracks. In the worker's thread."""
        self.newest = self.newest.with_restored(object_ids)

    def open(self) -> None:
        with self._gate:
            self._open = True

    def close(self) -> None:
        with self._gate:
            self._open = False
            if self._depth:
                self._depth.forget()

    def publish(self, header: Header, frame: sam2.Frame, tracks: list[sam2.Track]) -> bool:
        """Publishes every output that has a subscriber; returns False if closed. If outputs fail, the others are still
        published, and then the first error is raised. header: the image's, the same object for each of its results."""
        with self._gate:
            self.newest = self.newest.followed_by(header, tracks)
            if not self._open:
                return False
            self._send("visibility", lambda: track_out.visibility_array(header, tracks, frame.stamp_ns))
            self._send("label_mask", lambda: track_out.label_mask(header, tracks, frame.size_hw))
            self._send("target_mask", lambda: track_out.target_mask(header, tracks, frame.size_hw, self._target()))
            self._attempt(lambda: self._tell_classes(header, tracks))
            self._send("class_mask", lambda: track_out.class_mask(header, tracks, frame.size_hw, self._classes.ids))
            self._send("detections", lambda: vision.detections(header, tracks))
            view = self._take_depth(header, frame, tracks)
            self._send("tracks", lambda: track_out.track_array(header, tracks, view.surfaces if view else None))
            if depth := self._depth:
                self._attempt(lambda: depth.retry(self.settings))
            self._attempt(lambda: self._send_overlay(header, frame, tracks))
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return True

    def begin(self, stamp_ns: int) -> None:
        """Called when the worker begins with the image of this stamp, so that its depth is kept."""
        if self._depth:
            with self._gate:
                self._depth.begin(stamp_ns)

    @property
    def waits(self) -> bool:
        """Whether a result waits for depth or a transform; if one arrives, `idle` should be called."""
        return self._depth is not None and self._depth.waits

    def idle(self) -> None:
        """Called between images: publishes results that waited for depth or TF, if it has arrived."""
        if self._depth is not None:
            with self._gate:
                if self._open:
                    self._depth.retry(self.settings)

    def _take_depth(self, header: Header, frame: sam2.Frame, tracks: list[sam2.Track]) -> View | None:
        if self._depth is None:
            return None
        if self._depth.is_wanted or self._wanted("tracks"):
            return self._depth.take(header, frame, tracks, self.settings)
        self._depth.rest()
        return None

    def _tell_classes(self, header: Header, tracks: list[sam2.Track]) -> None:
        """Publishes `label_info` if its newest one has not all classes."""
        self._classes.learn(map(track_out.class_of, tracks))
        number = len(self._classes.ids)
        if number != self._told_classes and "label_info" in self.publishers:
            self.publishers["label_info"].publish(vision.label_info(header, self._classes.ids))
            self._told_classes = number

    def _send_overlay(self, header: Header, frame: sam2.Frame, tracks: list[sam2.Track]) -> None:
        if self._wanted("overlay") or self._wanted("overlay/compressed"):
            quality = self.settings.jpeg_quality
            picture = self._overlay.draw(frame.rgb, tracks, self.settings.overlay_opacity)  # (H, W, 3)
            self._send("overlay", lambda: image_out.image_message(header, picture, "rgb8"))
            self._send("overlay/compressed", lambda: image_out.jpeg_message(header, picture, quality))
        else:
            self._overlay.forget()

    def _wanted(self, topic: str) -> bool:
        return topic in self.publishers and self.publishers[topic].get_subscription_count() > 0

    def _send(self, topic: str, make: Callable) -> None:
        if self._wanted(topic):
            self._attempt(lambda: self.publishers[topic].publish(make()))

    def _attempt(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # one output must not prevent those after it
            self._failure = self._failure or error
