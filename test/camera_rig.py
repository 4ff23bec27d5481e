"""A `Camera` in front of a node that only takes notes."""

from types import SimpleNamespace

import numpy as np
from rclpy.qos import DurabilityPolicy
from std_msgs.msg import Header

from sam2_ros.camera import Camera
from sam2_ros.counters import Counters
from sam2_ros.image_out import image_message
from sam2_ros.image_source import ImageSource
from sam2_ros.mailbox import Mailbox
from sam2_ros.params import Settings
from sam2_ros.ros_time import time_message


class NotingNode:
    """What `Camera` asks of a node. offers: (topic, type, reliability) of each publisher there is, and its durability,
    if it is not volatile."""

    simulated_time = SimpleNamespace(passed_ns=0)

    def __init__(self, *offers):
        self.offers, self.subscriptions, self.said = list(offers), [], []

    def create_subscription(self, kind, topic, callback, qos, callback_group, event_callbacks):
        made = SimpleNamespace(
            kind=kind, topic_name=f"/{topic}", hear=callback, qos=qos, group=callback_group, events=event_callbacks
        )
        self.subscriptions.append(made)
        return made

    def destroy_subscription(self, subscription):
        if subscription in self.subscriptions:  # as rclpy, which does not mind another time
            self.subscriptions.remove(subscription)

    def resolve_topic_name(self, topic):
        return f"/{topic}"

    def get_publishers_info_by_topic(self, topic):
        found = [(kind, *qos, DurabilityPolicy.VOLATILE)[:3] for name, kind, *qos in self.offers if name == topic]
        qos = [(kind, SimpleNamespace(reliability=policy, durability=kept)) for kind, policy, kept in found]
        return [SimpleNamespace(topic_type=kind, qos_profile=profile) for kind, profile in qos]

    def get_topic_names_and_types(self):
        return [(name, [kind]) for name, kind, *_ in self.offers]

    def count_publishers(self, topic):
        return len(self.get_publishers_info_by_topic(topic))

    def get_fully_qualified_name(self):
        return "/sam2"


class Rigged:
    """An open camera with its node, counters and mailbox; `arrived` notes stamps."""

    def __init__(self, *offers, image="image", **settings):
        self.node, self.counters, self.mailbox = NotingNode(*offers), Counters(), Mailbox(4)
        self.source = ImageSource()
        self.enabled, self.arrived = True, []
        self.camera = Camera(
            self.node, image, Settings(**settings), self.counters, self.source, lambda: self.enabled,
            self.arrived.append, SimpleNamespace(warning=self.node.said.append),
        )  # fmt: skip
        self.camera.open(self.mailbox)

    @property
    def subscription(self):
        (only,) = self.node.subscriptions
        return only

    def image(self, stamp_ns, frame_id="camera_optical", side=20):
        header = Header(frame_id=frame_id, stamp=time_message(stamp_ns))
        self.subscription.hear(image_message(header, np.zeros((side, side, 3), np.uint8), "rgb8"))
