"""The demo's observer: a node that records what any user of the camera and the tracker can see.

Knows topics and services. Does not know what the recordings are used for.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

import sam2
from sam2_ros import image_in
from sam2_ros.children import Children
from sam2_ros.handshake import Handshake
from sam2_ros.health import Level
from sam2_ros.msg import TrackArray
from sam2_ros.ros_time import stamp_ns

READY_S, ANSWER_S = 180.0, 30.0  # how long to wait before giving up
DISCOVERY_S = 2.0  # enough to discover other nodes

signals: list[int] = []  # received so far


class Interrupted(Exception):
    """A signal asked the demo to stop."""


def check_signals() -> None:
    """Raises Interrupted if a signal has come."""
    if signals:
        raise Interrupted


def in_time(seconds: float) -> Callable[[], bool]:
    """A condition that becomes true after `seconds`."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


class Audience:
    """Records what any user of the camera and the tracker can see.

    spool: an open file for the images, which would not fit into memory.
    """

    def __init__(self, node: Node, executor: SingleThreadedExecutor, children: Children, spool: BinaryIO) -> None:
        self.answers: list[tuple[TrackArray, int]] = []  # with the times (ns) they arrived at
        self.truths: list[TrackArray] = []
        self._node, self._executor, self._children, self._spool = node, executor, children, spool
        self._places: dict[int, tuple[int, tuple[int, int]]] = {}  # offset in the spool and (H, W), by stamp
        self._trouble = ""
        keep_all = QoSProfile(depth=100)
        node.create_subscription(TrackArray, "/sam2/tracks", self._on_tracks, keep_all)
        node.create_subscription(TrackArray, "/camera/ground_truth", self.truths.append, keep_all)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, keep_all)

    def find_rivals(self) -> None:
        """Raises sam2.Sam2Error if another tracker or camera is already running in this domain."""
        self.until(in_time(DISCOVERY_S), READY_S, "the network")
        self._look_for_rivals(allowed=0)
        if self._trouble:
            raise sam2.Sam2Error(self._trouble)

    def _look_for_rivals(self, allowed: int) -> None:
        """Notes a topic with more than `allowed` publishers: what others send would be taken for the demo's."""
        domain = os.environ["ROS_DOMAIN_ID"]
        for topic, what in (("/sam2/tracks", "tracker"), ("/image", "camera")):
            if self._node.count_publishers(topic) > allowed:
                self._trouble = f"another {what} publishes {topic} in ROS_DOMAIN_ID={domain}; choose another domain"

    def watch(self) -> None:
        """Records images too, from now on."""
        self._node.create_subscription(Image, "/image", self._on_image, QoSProfile(depth=20))

    def until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Spins until `condition` is true. Raises sam2.Sam2Error if that takes longer than `within_s`, or a child
        process or the tracker fails; Interrupted after a signal."""
        deadline = time.monotonic() + within_s
        while not condition():
            check_signals()
            self._children.check()
            if self._trouble:
                raise sam2.Sam2Error(self._trouble)
            if time.monotonic() > deadline:
                raise sam2.Sam2Error(f"waited {within_s:.0f} s for {what} in vain; see the *.log files")
            self._executor.spin_once(timeout_sec=0.1)

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Calls a service and returns its response."""
        client: Client = self._node.create_client(kind, name)
        handshake = Handshake(self._node, client)
        self.until(lambda: client.service_is_ready() and handshake.done(), READY_S, f"the service {name}")
        handshake.close()
        future = client.call_async(request)
        self.until(future.done, ANSWER_S, f"an answer of {name}")
        self._node.destroy_client(client)
        return future.result()

    @property
    def has_image(self) -> bool:
        """Whether an image was received, and its ground truth."""
        return any(True for _ in self._seen(self.truths))

    @property
    def first_image(self) -> TrackArray:
        """The ground truth of the first image that was received. Only if `has_image`."""
        return next(self._seen(self.truths))

    @property
    def newest_image(self) -> TrackArray:
        """The ground truth of the newest image that was received. Only if `has_image`."""
        return next(self._seen(reversed(self.truths)))

    def _seen(self, truths: Iterable[TrackArray]) -> Iterator[TrackArray]:
        return (truth for truth in truths if stamp_ns(truth.header.stamp) in self._places)

    def image(self, stamp: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB; grey if the image itself was not received."""
        offset, (height, width) = self._places.get(stamp, next(iter(self._places.values())))
        if stamp not in self._places:
            return np.full((height, width, 3), 96, np.uint8)
        self._spool.seek(offset)
        return np.frombuffer(self._spool.read(height * width * 3), np.uint8).reshape(height, width, 3)

    def images(self) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB: all images received, as the camera sent them."""
        return map(self.image, sorted(self._places))

    def _on_image(self, msg: Image) -> None:
        rgb = image_in.to_rgb(msg)  # (H, W, 3)
        self._places[stamp_ns(msg.header.stamp)] = self._spool.seek(0, os.SEEK_END), rgb.shape[:2]
        self._spool.write(rgb.tobytes())

    def _on_tracks(self, msg: TrackArray) -> None:
        self.answers.append((msg, time.time_ns()))

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self._look_for_rivals(allowed=1)
        for status in msg.status:
            if status.name.endswith(": tracking") and status.level == bytes([Level.ERROR]):
                self._trouble = status.message
