"""Tracks and depth -> clouds, poses and the 3-D part of a track. Runs in the worker's thread.

If something cannot be made, the diagnostics say why. Headers are those of the source image; with a target frame,
clouds, poses and markers are in that frame, at the image's stamp. If depth or TF lag behind, a few images wait for
them; 2-D outputs never do.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from geometry_msgs.msg import PoseArray
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

import sam2
from sam2_ros import cloud_out, depth_in, track_out
from sam2_ros.counters import Counters
from sam2_ros.depth_camera import DepthCamera
from sam2_ros.geometry import OrientedBox, Pinhole, Surface, find_surface, organised_points
from sam2_ros.msg import TrackArray
from sam2_ros.overlay import colour_of
from sam2_ros.params import Settings
from sam2_ros.readable import reason_of
from sam2_ros.refused import Refused
from sam2_ros.ros_time import stamp_ns
from sam2_ros.transforms import Transforms

MOST_WAITING = 4  # images; at 30 per second enough for depth or transforms at 10 per second
REGISTERED, CALIBRATED = "depth registered to the image", "that of the image's camera"
RIM_PIXELS = 4  # removed from the scene around each object, since masks are not exact and depth is mixed there


@dataclass(frozen=True)
class View:
    """One image with its depth."""

    header: Header
    rgb: np.ndarray  # (H, W, 3) uint8
    tracks: list[sam2.Track]
    depth_m: np.ndarray  # (H, W) float32, NaN where there is none, infinity where it is too far
    depth_frame: str  # frame_id of the depth image
    pinhole: Pinhole
    surfaces: dict[str, Surface]  # by object id, of visible objects with enough depth


@dataclass(eq=False)
class _Waiting:
    """An image that waits for its depth, or then for the transform at its stamp."""

    header: Header
    frame: sam2.Frame
    tracks: list[sam2.Track]
    view: View | None = None  # None = its depth has not come


class DepthOut:
    """Publishes the 3-D outputs. create: as `Outputs` takes it."""

    def __init__(
        self, create: Callable, camera: DepthCamera, counters: Counters, transforms: Transforms, log: RcutilsLogger
    ) -> None:
        self._camera, self._counters, self._transforms, self._log = camera, counters, transforms, log
        self._waiting: deque[_Waiting] = deque()  # oldest first
        topics = (
            ("objects/tracks", TrackArray, 10), ("objects/cloud", PointCloud2, 2), ("objects/poses", PoseArray, 10),
            ("objects/markers", MarkerArray, 2), ("scene_cloud", PointCloud2, 2),
        )  # fmt: skip
        self.publishers = {topic: create(kind, topic, length) for topic, kind, length in topics}

    @property
    def is_wanted(self) -> bool:
        return any(publisher.get_subscription_count() > 0 for publisher in self.publishers.values())

    @property
    def waits(self) -> bool:
        """Whether an image waits for depth or transforms, so that `retry` should be called when some come."""
        return bool(self._waiting)

    def begin(self, stamp: int) -> None:
        """Keeps the depth of the image with this stamp, which the worker now processes, and of images that wait."""
        self._camera.buffer.want([stamp, *(stamp_ns(one.header.stamp) for one in self._waiting)])

    def forget(self) -> None:
        """Drops the images that wait."""
        self._waiting.clear()

    def take(self, header: Header, frame: sam2.Frame, tracks: list[sam2.Track], settings: Settings) -> View | None:
        """Takes the newest image's result. Returns its view if its depth is here already. `retry` publishes the
        result, now or later."""
        self._counters.depth_wanted = self.is_wanted
        newest = _Waiting(header, frame, tracks)
        self._waiting.append(newest)
        self._look_at_waiting(settings)
        return newest.view

    def rest(self) -> None:
        """Called when nobody wants 3-D output of the newest image: earlier trouble with depth no longer matters."""
        self._counters.depth_wanted = False
        self._counters.forget_depth_trouble()

    def retry(self, settings: Settings) -> None:
        """Publishes images that wait, oldest first, up to the first that may still get its depth or transform. Counts
        those that are given up, with the reason."""
        self._look_at_waiting(settings)
        while self._waiting and self._waiting[0].view is not None:
            view, may_wait = self._waiting[0].view, len(self._waiting) <= MOST_WAITING
            if may_wait and self.is_wanted and self._transforms.may_come(view.header):
                return
            self._waiting.popleft()
            if self.is_wanted:
                self._publish(view, settings)

    def _look_at_waiting(self, settings: Settings) -> None:
        """Finds depth for images that wait, oldest first, up to the first whose depth may still come, because tracks
        with depth must go out in order."""
        too_many = len(self._waiting) - MOST_WAITING  # how many of the oldest may not wait any longer
        for index, one in enumerate(list(self._waiting)):
            if one.view is not None:
                continue
            if index >= too_many and self._depth_may_come(one.header):
                return
            one.view = self._look(one.header, one.frame, one.tracks, settings)
            if one.view is None:
                self._waiting.remove(one)

    def _depth_may_come(self, header: Header) -> bool:
        return self._camera.pinhole is not None and self._camera.buffer.may_come(stamp_ns(header.stamp))

    def _look(self, header: Header, frame: sam2.Frame, tracks: list[sam2.Track], settings: Settings) -> View | None:
        """Finds an image's depth and publishes its `objects/tracks`; None if that fails, with the reason counted."""
        try:
            view = self._view(header, frame, tracks, settings)
            self._send("objects/tracks", lambda: track_out.track_array(header, tracks, view.surfaces))
        except Refused as error:
            self._counters.miss_depth(str(error))
            return None
        except Exception as error:  # whatever it is, 2-D results are not affected
            self._counters.note_failure("depth", error, self._log)
            self._counters.miss_depth(f"depth failed: {reason_of(error)}")
            return None
        self._counters.match_depth(self._other_frame(view) or self._unseen(view))
        return view

    def _publish(self, view: View, settings: Settings) -> None:
        """Publishes whatever has a subscriber. If outputs fail, the others are still published; then the first error is
        raised."""
        try:
            rotation, translation, frame_id = self._transforms.to_target(view.header)
        except Refused as error:
            self._counters.miss_depth(str(error))
            return
        header = Header(stamp=view.header.stamp, frame_id=frame_id)
        shown = [(t, view.surfaces[t.object_id]) for t in view.tracks if t.object_id in view.surfaces]
        boxes = [_moved(surface.box, rotation, translation) for _, surface in shown]
        named = [(t.object_id, t.label, colour_of(t.label), box) for (t, _), box in zip(shown, boxes, strict=True)]
        rotation, translation = rotation.astype(np.float32), translation.astype(np.float32)  # the precision of clouds
        failure = None
        for topic, make in (
            ("objects/poses", lambda: cloud_out.pose_array(header, boxes)),
            ("objects/markers", lambda: cloud_out.marker_array(header, named)),
            ("objects/cloud", lambda: self._objects_cloud(header, view, shown, rotation, translation)),
            ("scene_cloud", lambda: self._scene_cloud(header, view, rotation, translation, settings)),
        ):
            try:
                self._send(topic, make)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _view(self, header: Header, frame: sam2.Frame, tracks: list[sam2.Track], settings: Settings) -> View:
        message, pinhole = self._camera.find(stamp_ns(header.stamp))
        for what, size_hw, expected in (
            ("depth image", (message.height, message.width), REGISTERED),
            ("camera_info", pinhole.size_hw, CALIBRATED),
        ):
            if size_hw != frame.size_hw:
                raise Refused(
                    "size", f"the {what} is of {size_hw[1]}x{size_hw[0]} pixels and the image of "
                    f"{frame.size_hw[1]}x{frame.size_hw[0]}; expected {expected}"
                )  # fmt: skip
        depth_m = depth_in.to_metres(message, settings.depth_nearest_m, settings.depth_farthest_m)
        found = {t.object_id: find_surface(depth_m, t.mask, pinhole) for t in tracks if t.state is sam2.State.VISIBLE}
        surfaces = {name: surface for name, surface in found.items() if surface is not None}
        return View(header, frame.rgb, tracks, depth_m, message.header.frame_id, pinhole, surfaces)

    def _other_frame(self, view: View) -> str:
        """What is in another frame than the image, as a sentence; "" = nothing. Depth or calibration of another camera
        of the same size would give plausible but wrong positions."""
        ours = view.header.frame_id
        for what, theirs, expected in (
            ("depth", view.depth_frame, REGISTERED),
            ("camera_info", self._camera.pinhole_frame, CALIBRATED),
        ):
            if ours and theirs and ours != theirs:
                return f"{what} is in the frame {theirs!r} and the image in {ours!r}; expected {expected}"
        return ""

    @staticmethod
    def _unseen(view: View) -> str:
        shown = [t.object_id for t in view.tracks if t.state is sam2.State.VISIBLE and t.box_xywh is not None]
        unseen = [name for name in shown if name not in view.surfaces]
        return f"too little depth on {', '.join(unseen)}" if unseen else ""

    def _objects_cloud(
        self, header: Header, view: View, shown: list, rotation: np.ndarray, translation: np.ndarray
    ) -> PointCloud2:
        total = sum(len(surface.points) for _, surface in shown)
        points, at = np.empty(total, cloud_out.OBJECT_POINT), 0
        for track, surface in shown:
            part = points[at : at + len(surface.points)]
            part["x"], part["y"], part["z"] = (surface.points @ rotation.T + translation).T
            part["rgb"] = cloud_out.pack_rgb(view.rgb[surface.rows, surface.columns])
            part["label"] = track.label
            at += len(part)
        return cloud_out.cloud_message(header, points, is_dense=True)

    def _scene_cloud(
        self, header: Header, view: View, rotation: np.ndarray, translation: np.ndarray, settings: Settings
    ) -> PointCloud2:
        """The organised cloud of everything but the objects: NaN at objects and where no usable depth is measured."""
        objects = np.zeros(view.depth_m.shape, np.uint8)
        for track in view.tracks:
            objects |= track.mask.view(np.uint8)
        removed = cv2.dilate(objects, np.ones((2 * RIM_PIXELS + 1,) * 2, np.uint8))
        stride = settings.depth_scene_stride
        rest = np.where((removed == 0) & np.isfinite(view.depth_m), view.depth_m, np.float32(np.nan))
        xyz = organised_points(rest, view.pinhole, stride)  # (h, w, 3)
        points = np.empty(xyz.shape[:2], cloud_out.SCENE_POINT)
        points["x"], points["y"], points["z"] = np.moveaxis(xyz @ rotation.T + translation, -1, 0)
        points["rgb"] = cloud_out.pack_rgb(view.rgb[::stride, ::stride])
        return cloud_out.cloud_message(header, points, is_dense=False)

    def _send(self, topic: str, make: Callable) -> None:
        if self.publishers[topic].get_subscription_count() > 0:
            self.publishers[topic].publish(make())


def _moved(box: OrientedBox, rotation: np.ndarray, translation: np.ndarray) -> OrientedBox:
    return replace(box, centre=rotation @ box.centre + translation, rotation=rotation @ box.rotation)
