"""The subscriptions to depth and calibration. Callbacks run on the executor and cost the same for any image.

Knows topics and QoS. Problems are counted by reason and shown in the diagnostics; they do not stop the 2-D outputs.
"""

from collections.abc import Callable

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from sam2_ros import depth_in
from sam2_ros.counters import Counters
from sam2_ros.depth_buffer import DepthBuffer
from sam2_ros.geometry import Pinhole
from sam2_ros.matched_subscription import MatchedSubscription
from sam2_ros.params import Settings
from sam2_ros.refused import Refused
from sam2_ros.ros_time import simulated_ns, stamp_ns
from sam2_ros.stamps import steady_ns

QUEUE = 5  # messages


class DepthCamera:
    """Subscribed between `open` and `close`.

    topics: of the depth image and of the calibration. arrived: called after each depth image that was kept.
    """

    def __init__(
        self, node: LifecycleNode, topics: tuple[str, str], settings: Settings, counters: Counters,
        arrived: Callable[[], None],
    ) -> None:  # fmt: skip
        self.buffer = DepthBuffer(int(settings.clock_jump_s * 1e9))
        self.pinhole: Pinhole | None = None  # None = no valid calibration yet
        self._node, self._settings, self._counters, self._arrived = node, settings, counters, arrived
        depth_topic, self._info_topic = topics
        self._depth = MatchedSubscription(node, Image, depth_topic, self._on_depth, QUEUE)
        self._info = None

    def open(self) -> None:
        group = MutuallyExclusiveCallbackGroup()  # callback groups never forget an entity
        qos = QoSProfile(depth=QUEUE, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._info = self._node.create_subscription(
            CameraInfo, self._info_topic, self._on_info, qos, callback_group=group
        )
        self._depth.open()

    def close(self) -> None:
        self._depth.close()
        if self._info is not None:
            self._node.destroy_subscription(self._info)
        self._info = None

    def tick(self) -> None:
        """Follows the publishers of depth."""
        if self._depth.is_open:
            self._depth.follow()

    def missing(self) -> str:
        """What has not come yet, as a sentence; "" if everything has."""
        if not self.buffer.newest_ns:
            return f"no depth image on {self._depth.topic_name}"
        if self.pinhole is None:
            return f"no valid calibration on {self._node.resolve_topic_name(self._info_topic)}"
        return ""

    def _on_depth(self, msg: Image) -> None:
        try:
            depth_in.check_depth(msg, self._settings.max_pixels)
            verdict = self.buffer.add(stamp_ns(msg.header.stamp), msg, steady_ns(), simulated_ns(self._node))
            if not verdict.usable:
                raise Refused(verdict.value, f"depth image: {verdict.value} stamp")
        except Refused as error:
            self._counters.refuse_depth(error.reason, str(error))
            return
        self._counters.depth_received += 1
        self._arrived()

    def _on_info(self, msg: CameraInfo) -> None:
        try:
            self.pinhole = depth_in.to_pinhole(msg)
        except Refused as error:
            self.pinhole = None
            self._counters.refuse_depth(error.reason, str(error))
