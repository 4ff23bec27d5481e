"""A subscription whose QoS follows its publishers: a mismatch receives nothing, best effort loses large images.

Knows topics and QoS. Does not know what is received.
"""

from collections.abc import Callable, Sequence

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription


class MatchedSubscription:
    """Subscribes between `open` and `close`.

    kind: message type. depth: of the queue. asked: as `matching_reliability` takes it. latched: transient local, to get
    earlier messages too, if all publishers are. events: for QoS events.
    """

    def __init__(
        self, node: LifecycleNode, kind: type, topic: str, callback: Callable, depth: int, asked: str = "auto",
        events: SubscriptionEventCallbacks | None = None, latched: bool = False,
    ) -> None:  # fmt: skip
        self.type_name = f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
        self.offers: list = []  # TopicEndpointInfo of all publishers of the topic, when last looked at
        self.reliability: ReliabilityPolicy  # set by `open`
        self._node, self._kind, self._topic, self._callback = node, kind, topic, callback
        self._depth, self._asked, self._events, self._latched = depth, asked, events, latched
        self._durability: DurabilityPolicy | None = None  # set by `open`
        self._subscription: Subscription | None = None

    @property
    def is_open(self) -> bool:
        return self._subscription is not None

    @property
    def topic_name(self) -> str:
        """The topic after remapping. For any thread, so it does not ask the subscription, which may be gone by then."""
        return self._node.resolve_topic_name(self._topic)

    @property
    def publishers(self) -> list:
        """The publishers of our message type; only these decide the QoS."""
        return [offer for offer in self.offers if offer.topic_type == self.type_name]

    def own_endpoints(self) -> list:
        """TopicEndpointInfo of this node's subscriptions to the topic."""
        own = self._node.get_name(), self._node.get_namespace()
        all_ = self._node.get_subscriptions_info_by_topic(self.topic_name)
        return [one for one in all_ if (one.node_name, one.node_namespace) == own]

    def open(self) -> None:
        self._subscribe(*self._look())

    def close(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = None

    def follow(self) -> bool:
        """While open, looks at the publishers and resubscribes if their QoS has changed; returns whether it has."""
        if self._subscription is None or (wanted := self._look()) == (self.reliability, self._durability):
            return False
        self._node.destroy_subscription(self._subscription)
        self._durability = None  # if subscribing fails, the next call tries again, whatever is wanted by then
        self._subscribe(*wanted)
        return True

    def _look(self) -> tuple[ReliabilityPolicy, DurabilityPolicy]:
        self.offers = self._node.get_publishers_info_by_topic(self.topic_name)
        durability = matching_durability(self.publishers) if self._latched else DurabilityPolicy.VOLATILE
        return matching_reliability(self.publishers, self._asked), durability

    def _subscribe(self, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> None:
        self._subscription = self._node.create_subscription(
            self._kind, self._topic, self._callback,
            QoSProfile(
                depth=self._depth, history=HistoryPolicy.KEEP_LAST, reliability=reliability, durability=durability
            ),
            # rclpy never removes an entity from a callback group, so each subscription gets its own.
            callback_group=MutuallyExclusiveCallbackGroup(), event_callbacks=self._events,
        )  # fmt: skip
        self.reliability, self._durability = reliability, durability


def matching_reliability(publishers: Sequence, asked: str) -> ReliabilityPolicy:
    """Best effort receives from every publisher but loses large images; reliable receives from reliable ones only.

    publishers: as `get_publishers_info_by_topic` has them. asked: "reliable", "best_effort", "auto" = reliable if every
    publisher is, "auto_reliable" = likewise, and while there is none, so as not to miss a reliable one's first.
    """
    if not asked.startswith("auto"):
        return ReliabilityPolicy[asked.upper()]
    offered = [publisher.qos_profile.reliability for publisher in publishers]
    reliable = all(policy == ReliabilityPolicy.RELIABLE for policy in offered) if offered else asked != "auto"
    return ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT


def matching_durability(publishers: Sequence) -> DurabilityPolicy:
    """Transient local also receives earlier messages, from publishers that offer it, but nothing from others."""
    kept = publishers and all(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers)
    return DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE
