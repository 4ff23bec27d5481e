"""The subscriptions to depth and calibration. Callbacks run on the executor and cost the same for any image.

Knows topics and QoS. Problems are counted by reason and shown in the diagnostics; they do not stop the 2-D outputs.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sensor_msgs.msg import CameraInfo, Image

from sam2_ros import depth_in
from sam2_ros.counters import Counters
from sam2_ros.depth_buffer import DepthBuffer
from sam2_ros.geometry import Pinhole
from sam2_ros.matched_subscription import MatchedSubscription
from sam2_ros.params import Settings
from sam2_ros.refused import Refused
from sam2_ros.ros_time import stamp_ns
from sam2_ros.stamps import steady_ns

if TYPE_CHECKING:
    from sam2_ros.node import TrackNode

QUEUE = 5  # messages
EXAMPLES = "/camera/depth/image_raw", "/camera/camera_info"  # topics to remap to


class DepthCamera:
    """Subscribes to depth and calibration between `open` and `close`.

    topics: of the depth image and of the calibration. arrived: called after each depth image that was kept.
    """

    def __init__(
        self, node: "TrackNode", topics: tuple[str, str], settings: Settings, counters: Counters,
        arrived: Callable[[], None],
    ) -> None:  # fmt: skip
        self.buffer = DepthBuffer(int(settings.clock_jump_s * 1e9))
        self.pinhole: Pinhole | None = None  # None = no valid calibration yet
        self.pinhole_frame = ""  # frame_id of the calibration
        self._node, self._settings, self._counters, self._arrived = node, settings, counters, arrived
        self._topics = depth_topic, info_topic = topics
        self._depth = MatchedSubscription(node, Image, depth_topic, self._on_depth, QUEUE)
        # Latched, because a calibration may be sent only once.
        self._info = MatchedSubscription(node, CameraInfo, info_topic, self._on_info, QUEUE, latched=True)
        self.refusal = ""  # why the newest depth image was refused, if it was

    def open(self) -> None:
        self.refusal = ""
        self._info.open()
        self._depth.open()

    def close(self) -> None:
        self._depth.close()
        self._info.close()

    def tick(self) -> None:
        """Resubscribes where the QoS of the publishers has changed."""
        self._info.follow()
        self._depth.follow()

    def find(self, stamp: int) -> tuple[Image, Pinhole]:
        """The depth image for the image with this stamp, and the calibration. Raises Refused if either is missing.
        Called by the worker."""
        refusal, pinhole = self.refusal, self.pinhole  # read once: the executor may replace them meanwhile
        if not self.buffer.newest_ns:
            never = f"no depth image on {self._depth.topic_name}{self._cure(self._depth, 0)}"
            raise Refused("missing", refusal or never)
        if pinhole is None:
            raise Refused("missing", f"no valid calibration on {self._info.topic_name}{self._cure(self._info, 1)}")
        message, why = self.buffer.find(stamp)
        if message is None:
            raise Refused("stamp", f"{why}; the newest was refused: {refusal}" if refusal else why)
        return message, pinhole

    def _cure(self, subscription: MatchedSubscription, which: int) -> str:
        """What to do if nobody publishes what is missing, as a clause; "" if somebody does."""
        if subscription.publishers:
            return ""
        remapping = f"-r {self._topics[which]}:={EXAMPLES[which]}"
        return f", where nobody publishes {subscription.type_name}; remap it, for example {remapping}"

    def _on_depth(self, msg: Image) -> None:
        try:
            depth_in.check_depth(msg, self._settings.max_pixels)
            stamp = stamp_ns(msg.header.stamp)
            if stamp == 0:
                raise Refused("no_stamp", "depth image: expected the stamp of its image, got 0; let its driver set it")
            verdict = self.buffer.add(stamp, msg, steady_ns(), self._node.simulated_time.passed_ns)
            if not verdict.usable:
                raise Refused(verdict.value, f"depth image with stamp {stamp / 1e9:.9f}: {verdict.complaint}")
        except Refused as error:
            self.refusal = str(error)
            self._counters.refuse_depth(error.reason, self.refusal)
            return
        self.refusal = ""
        self._counters.depth_received += 1
        self._arrived()

    def _on_info(self, msg: CameraInfo) -> None:
        try:
            self.pinhole, self.pinhole_frame = depth_in.to_pinhole(msg), msg.header.frame_id
        except Refused as error:
            self.pinhole = None
            self._counters.refuse_depth(error.reason, str(error))
