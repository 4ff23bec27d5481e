"""Looks up transforms from the camera's optical frame to a target frame in TF, at the image's stamp.

ROS 2's wheels have no tf2; without it a target frame is refused. Knows tf2's Python API and nothing else.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from sam2_ros.refused import Refused
from sam2_ros.ros_time import stamp_ns

try:
    import tf2_ros
except ImportError:
    tf2_ros = None

SET_BACK_NS = 1_000_000_000  # a transform that is older than the one before by more means that a bag started over
FARTHEST_M = float(np.finfo(np.float32).max)  # the largest coordinate that clouds can hold


class Transforms:
    """`to_target(header)` -> (rotation (3, 3), translation (3,), frame id). target: "" = the image's own frame. news:
    called, on the executor, whenever TF data has come."""

    def __init__(self, node: Node, target: str, news: Callable[[], None]) -> None:
        """Raises Refused("tf2") if a target is asked for and tf2 is not installed."""
        self._node, self._target = node, target
        if not target:
            return
        if tf2_ros is None:
            raise Refused(
                "tf2", f"depth.target_frame is {target!r}, and tf2_ros is not installed: install it "
                "(ros-$ROS_DISTRO-tf2-ros-py), or leave the parameter empty for the camera's own frame"
            )  # fmt: skip
        self._buffer = tf2_ros.Buffer(node=node)
        self._listener = _listen(self._buffer, node, news)

    def close(self) -> None:
        if self._target:
            self._listener.unregister()
            self._node.destroy_service(self._buffer.srv)  # tf2 creates it and never destroys it
            self._buffer.jump_handle.unregister()  # its callback keeps the buffer

    def may_come(self, header: Header) -> bool:
        """Whether the transform is unknown so far but may still come: TF is older than the header's stamp."""
        if self._stays(header):
            return False
        at = Time.from_msg(header.stamp)
        if self._buffer.can_transform(self._target, header.frame_id, at):
            return False
        try:
            return self._buffer.get_latest_common_time(self._target, header.frame_id).nanoseconds < at.nanoseconds
        except tf2_ros.TransformException:  # the two frames are not connected yet
            return True

    def to_target(self, header: Header) -> tuple[np.ndarray, np.ndarray, str]:
        """Raises Refused("transform") if TF has none for the header's stamp, or one that clouds cannot hold. Metres."""
        if self._stays(header):
            return np.eye(3), np.zeros(3), header.frame_id
        try:
            found = self._buffer.lookup_transform(self._target, header.frame_id, Time.from_msg(header.stamp)).transform
        except tf2_ros.TransformException as error:
            why = str(error).rstrip(". ")  # the diagnostics continue the sentence
            raise Refused("transform", f"no transform to {self._target} at the image's stamp: {why}") from error
        at, turn = found.translation, found.rotation
        translation = np.array([at.x, at.y, at.z])
        if not (np.abs(translation) <= FARTHEST_M).all():  # tf2 itself refuses NaN and invalid rotations
            raise Refused("transform", f"the transform to {self._target} at the image's stamp is {translation} m")
        return rotation_of((turn.x, turn.y, turn.z, turn.w)), translation, self._target

    def _stays(self, header: Header) -> bool:
        return self._target in ("", header.frame_id)


def _listen(buffer: "tf2_ros.Buffer", node: Node, news: Callable[[], None]) -> "tf2_ros.TransformListener":
    """tf2's listener, extended to clear the buffer when a clock was set back, and to call `news`.

    tf2 itself clears it only with simulated time; otherwise it mixes old transforms with new ones, or refuses the new
    ones. tf2's futures cannot replace `news`: abandoned ones are kept until there is a transform
    (`Buffer._remove_callback`).
    """

    newest_ns: dict[str, int] = {}  # by child frame

    class Listener(tf2_ros.TransformListener):
        def callback(self, data: Any) -> None:
            stamps = {one.child_frame_id: stamp_ns(one.header.stamp) for one in data.transforms}
            if any(stamp < newest_ns.get(child, 0) - SET_BACK_NS for child, stamp in stamps.items()):
                newest_ns.clear()
                buffer.clear()  # static transforms stay
            newest_ns.update(stamps)
            super().callback(data)
            news()

        def static_callback(self, data: Any) -> None:
            super().static_callback(data)
            news()

    return Listener(buffer, node)


def rotation_of(quaternion: tuple[float, float, float, float]) -> np.ndarray:
    """The rotation matrix, (3, 3), of a quaternion x, y, z, w of any length but 0."""
    x, y, z, w = np.array(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
