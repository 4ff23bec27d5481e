"""From the camera's optical frame to another one, by TF at the image's stamp, where tf2 is installed.

ROS 2's wheels have no tf2; without it a target frame is refused by name. Knows tf2's Python API and nothing else.
"""

import numpy as np
from rclpy.node import Node
from rclpy.task import Future
from rclpy.time import Time
from std_msgs.msg import Header

from sam2_ros.image_in import Refused

try:
    import tf2_ros
except ImportError:
    tf2_ros = None


class Frames:
    """`to_target(header)` -> (rotation (3, 3) float32, translation (3,) float32, frame id). target "" = stay."""

    def __init__(self, node: Node, target: str) -> None:
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
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def close(self) -> None:
        if self._target:
            self._listener.unregister()
            self._node.destroy_service(self._buffer.srv)  # tf2 makes it, and never takes it back
            if hasattr(self._buffer, "jump_handle"):  # not in Humble
                self._buffer.jump_handle.unregister()

    def forget(self) -> None:
        """The clock was set back: what TF knew is of another time. Static transforms stay."""
        if self._target:
            self._buffer.clear()

    def may_come(self, header: Header) -> bool:
        """Whether the transform is not known yet and can still be on its way: TF is older than the header's stamp."""
        if self._stays(header):
            return False
        at = Time.from_msg(header.stamp)
        if self._buffer.can_transform(self._target, header.frame_id, at):
            return False
        try:
            return self._buffer.get_latest_common_time(self._target, header.frame_id).nanoseconds < at.nanoseconds
        except tf2_ros.TransformException:  # nobody has said yet how the two are connected
            return True

    def expect(self, header: Header) -> Future:
        """Done, on the executor, when the transform is known; whoever gives up cancels it."""
        return self._buffer.wait_for_transform_async(self._target, header.frame_id, Time.from_msg(header.stamp))

    def to_target(self, header: Header) -> tuple[np.ndarray, np.ndarray, str]:
        """Raises Refused("transform") if TF does not know it for the header's stamp."""
        if self._stays(header):
            return np.eye(3, dtype=np.float32), np.zeros(3, np.float32), header.frame_id
        try:
            found = self._buffer.lookup_transform(self._target, header.frame_id, Time.from_msg(header.stamp)).transform
        except tf2_ros.TransformException as error:
            raise Refused("transform", f"no transform to {self._target} at the image's stamp: {error}") from error
        at, turn = found.translation, found.rotation
        return rotation_of((turn.x, turn.y, turn.z, turn.w)), np.array([at.x, at.y, at.z], np.float32), self._target

    def _stays(self, header: Header) -> bool:
        return self._target in ("", header.frame_id)


def rotation_of(quaternion: tuple[float, float, float, float]) -> np.ndarray:
    """(3, 3) float32 of a unit quaternion x, y, z, w."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ],
        np.float32,
    )
