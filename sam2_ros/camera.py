"""The image subscription: checks images cheaply and posts the newest one to the mailbox.

Knows topics and stamps. Reads no pixels: callbacks run on the executor and cost the same for any image.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rclpy.event_handler import QoSMessageLostInfo, QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.qos import qos_policy_name_from_kind
from sensor_msgs.msg import CompressedImage, Image

from sam2_ros import fast_dds, image_in, reach
from sam2_ros.counters import Counters
from sam2_ros.image_source import ImageSource
from sam2_ros.mailbox import Arrival, Mailbox
from sam2_ros.matched_subscription import MatchedSubscription
from sam2_ros.params import Settings
from sam2_ros.readable import readable
from sam2_ros.refused import Refused
from sam2_ros.ros_time import stamp_ns
from sam2_ros.stamps import Stamp, StampWatch, steady_ns
from sam2_ros.track_out import drawn_beside

if TYPE_CHECKING:
    from sam2_ros.node import TrackNode

LOG_EVERY_S = 5.0  # warnings of one kind
LOOK_EVERY_NS = 1_000_000_000  # between searches for other image topics: a robot may have hundreds


class Camera:
    """Subscribes between `open` and `close`; posts every image to the mailbox, or refuses and counts it.

    image: base name of the topic. enabled: returns whether images are wanted now. arrived: called with the stamp of
    each image before it is posted to the mailbox.
    """

    def __init__(
        self, node: "TrackNode", image: str, settings: Settings, counters: Counters, source: ImageSource,
        enabled: Callable[[], bool], arrived: Callable[[int], None], log: RcutilsLogger,
    ) -> None:  # fmt: skip
        self.frame_id = ""  # of the newest image
        self.newest_ns = 0  # stamp of the newest image since `open`, which may not be processed yet; 0 = none has one
        self._is_compressed = settings.image_transport == "compressed"
        self._topic = f"{image}/compressed" if self._is_compressed else image
        self._name = image.rpartition("/")[0]  # "" = the only one
        self._node, self._settings, self._counters, self._source = node, settings, counters, source
        self._enabled, self._arrived, self._log = enabled, arrived, log
        self._watch = StampWatch(int(settings.clock_jump_s * 1e9))
        self._mailbox = Mailbox(0)  # `open` replaces it
        self._log_due_ns: dict[str, int] = {}  # by reason
        self._addresses = reach.addresses()
        self._look_again_ns = 0  # when to search for other image topics again
        events = SubscriptionEventCallbacks(
            incompatible_qos=self._on_incompatible, message_lost=self._on_lost, use_default_callbacks=False
        )
        kind = CompressedImage if self._is_compressed else Image
        self._subscription = MatchedSubscription(
            node, kind, self._topic, self._on_image, 1, settings.image_reliability, events
        )

    def open(self, mailbox: Mailbox) -> None:
        self._mailbox, self.newest_ns = mailbox, 0
        self._subscription.open()
        self._note_publishers()
        self._note_subscribed()

    def close(self) -> None:
        self._subscription.close()
        self.discard_image()

    def discard_image(self) -> None:
        """Discards an image that waits for the worker."""
        if self._mailbox.discard_image():
            self._counters.ignored += 1

    def tick(self) -> None:
        """Looks at the publishers; resubscribes if their QoS has changed."""
        if self._subscription.is_open:
            if self._subscription.follow():
                self._note_subscribed()
            self._note_publishers()

    def _note_subscribed(self) -> None:
        self._source.topic, self._source.remap_from = self._subscription.topic_name, self._topic
        self._source.reliability = self._subscription.reliability.name.lower()
        self._source.incompatible_qos = ""

    def _note_publishers(self) -> None:
        ours, kind = self._subscription.publishers, self._subscription.type_name
        others = [offer.topic_type for offer in self._subscription.offers if offer.topic_type != kind]
        self._source.publishers = len(ours)
        self._source.is_remote = self._is_remote(ours)
        self._source.other_type = next(iter(others), "")
        if ours:
            self._source.elsewhere, self._source.other_transport, self._look_again_ns = (), "", 0
        elif time.monotonic_ns() >= self._look_again_ns:
            self._source.elsewhere, self._source.other_transport = self._other_topics()
            self._source.reach = reach.limit() or reach.came_later(self._addresses) + reach.server()
            self._look_again_ns = time.monotonic_ns() + LOOK_EVERY_NS

    def _is_remote(self, publishers: list) -> bool:
        """Whether any of them is on another machine, as far as the middleware tells."""
        if not (publishers and self._source.middleware.startswith(fast_dds.NAME)):
            return False
        here = {fast_dds.host_of(own.endpoint_gid) for own in self._subscription.own_endpoints()}
        return bool(here) and any(fast_dds.host_of(one.endpoint_gid) not in here for one in publishers)

    def _other_topics(self) -> tuple[tuple[str, ...], str]:
        """Finds image topics that the user may have meant, likely names first, and our own topic under the other
        image_transport ("" = none). The former have our type, but are not depth, outputs of a node like this one, or
        topics that this node subscribes to."""
        topic, kind = self._subscription.topic_name, self._subscription.type_name
        own = f"{self._node.get_fully_qualified_name()}/"
        taken = {subscription.topic_name for subscription in self._node.subscriptions}
        topics = self._node.get_topic_names_and_types()
        taken |= drawn_beside(name for name, kinds in topics if "sam2_ros/msg/TrackArray" in kinds)
        found = [name for name, kinds in topics if kind in kinds]
        free = [name for name in found if not name.startswith(own) and name not in taken]
        meant = [name for name in free if "depth" not in name.lower()]
        beside = topic.removesuffix("/compressed") if self._is_compressed else f"{topic}/compressed"
        there = beside if self._node.count_publishers(beside) else ""
        # Without regard to this camera's name, each of several cameras would be told to take the same topic.
        likely = sorted(meant, key=lambda name: (self._name not in name, not _is_called_image(name)))
        return tuple(name for name in likely if self._node.count_publishers(name)), there

    def _on_image(self, msg: Image | CompressedImage) -> None:
        now_ns = time.monotonic_ns()
        counters, stamp = self._counters, stamp_ns(msg.header.stamp)
        counters.receive_image(now_ns, len(msg.data))
        self._source.incompatible_qos = ""
        if not self._enabled():
            counters.ignored += 1
            return
        try:
            image_in.check(msg, self._settings.max_pixels)
            verdict = self._watch.judge(stamp, steady_ns(), self._node.simulated_time.passed_ns)
            if not verdict.usable:
                raise Refused(verdict.value, f"image with stamp {stamp / 1e9:.9f}: {verdict.complaint}")
        except Refused as error:
            counters.refuse_image(error.reason, str(error))
            self._warn(error.reason, f"refused: {error}", now_ns)
            return
        counters.note_stamp(is_known=verdict is not Stamp.UNKNOWN)
        if verdict is Stamp.STEP_BACK:
            self._warn(verdict.value, "the clock was set back a little; objects are kept", now_ns)
        self._note_frame(msg.header.frame_id, now_ns)
        self.newest_ns = stamp
        self._arrived(stamp)
        if self._mailbox.post_image(Arrival(msg, stamp, now_ns, verdict.is_jump)):
            counters.drop_image()

    def _note_frame(self, frame_id: str, now_ns: int) -> None:
        if self.frame_id and frame_id != self.frame_id:  # happens with every image if two cameras share the topic
            self._warn("frame_id", f"frame_id changed from {self.frame_id!r} to {frame_id!r}", now_ns)
        self.frame_id = frame_id

    def _warn(self, reason: str, sentence: str, now_ns: int) -> None:
        """Logs at most one warning per reason in LOG_EVERY_S."""
        if now_ns >= self._log_due_ns.get(reason, 0):
            self._log_due_ns[reason] = now_ns + int(LOG_EVERY_S * 1e9)
            self._log.warning(readable(sentence))

    def _on_incompatible(self, event: QoSRequestedIncompatibleQoSInfo) -> None:
        self._source.incompatible_qos = qos_policy_name_from_kind(event.last_policy_kind)

    def _on_lost(self, event: QoSMessageLostInfo) -> None:
        self._counters.lose_on_the_way(event.total_count_change)


def _is_called_image(topic: str) -> bool:
    """Whether it has a name that camera drivers and image_proc use: image, image_raw, image_rect ..."""
    return topic.removesuffix("/compressed").rpartition("/")[2].startswith("image")
