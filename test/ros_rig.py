"""The ROS side of a test: starts the node in its own process, talks to it over DDS, and waits for what must happen.

Nothing here sleeps until something is ready: `until` spins until a condition holds, and fails the test if it does not.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2_ros.handshake import Handshake
from sam2_ros.image_out import image_message
from sam2_ros.msg import Prompt
from sam2_ros.requests import Code
from sam2_ros.ros_time import time_message
from sam2_ros.srv import AddObjects, ListObjects

HERE = Path(__file__).parent
PATIENCE_S = 60.0  # a test that waits this long has failed
STOP_S = 5.0  # within which a signal must end the node
ON_FAST_DDS = get_rmw_implementation_identifier().startswith("rmw_fastrtps")


# Checked in the output: if warnings were errors, other packages' imports would end the process.
OUR_WARNING = re.compile(r"/(sam2|sam2_ros)/\w+\.py:\d+: \w*Warning")


def children_path() -> str:
    """PYTHONPATH of a child: our folders, then those of a sourced ROS 2, where its rclpy is."""
    return os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


class NodeProcess:
    """`fake_node.py` as a child process, killed at the latest when the test ends.

    tracker: its JSON options. parameters: of the node. real: with the real network instead. remap: names, as after -r.
    environment: additional variables.
    """

    def __init__(
        self,
        tracker: dict | None = None,
        parameters: dict | None = None,
        real: bool = False,
        remap: dict | None = None,
        environment: dict | None = None,
    ) -> None:
        ros = [word for name, value in (parameters or {}).items() for word in ("-p", f"{name}:={_yaml(value)}")]
        ros += [word for name, value in (remap or {}).items() for word in ("-r", f"{name}:={value}")]
        fake = [str(HERE / "fake_node.py"), json.dumps(tracker or {})]
        command = [sys.executable, *(["-m", "sam2_ros.main"] if real else fake)]
        self.process = subprocess.Popen(
            [*command, "--ros-args", *ros] if ros else command,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE.parent,
            env={
                **os.environ, "PYTHONPATH": children_path(),
                "PYTHONWARNINGS": "default", **(environment or {}),
            },
        )  # fmt: skip
        self.output = ""

    def __enter__(self) -> "NodeProcess":
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()  # closes its pipes

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self, within_s: float = STOP_S) -> int:
        """Waits for the process to exit; `output` then holds its stdout and stderr."""
        out, err = self.process.communicate(timeout=within_s)
        self.output = out + err
        return self.process.returncode

    def end(self) -> None:
        """Sends SIGINT and checks for a clean exit: code 0, no traceback, no warning from our code."""
        self.signal(signal.SIGINT)
        assert self.exit_code() == 0, self.output
        assert "Traceback" not in self.output, self.output
        assert not OUR_WARNING.search(self.output), self.output


class Rig:
    """A node of the test with its own context, spun only inside `until` and `call`."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("test", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.clients = {}

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def until(self, condition, within_s: float = PATIENCE_S):
        """Spins until `condition()` is true and returns what it gave."""
        end = time.monotonic() + within_s
        while not (got := condition()):
            assert time.monotonic() < end, "waited in vain"
            self.executor.spin_once(timeout_sec=0.05)
        return got

    def spin_some(self) -> None:
        self.executor.spin_once(timeout_sec=0)

    def start_call(self, kind, name: str, request=None):
        """Returns the future of a call, sent as soon as the service is ready."""
        if name not in self.clients:
            self.clients[name] = self.node.create_client(kind, name)
            handshake = Handshake(self.node, self.clients[name])
            self.until(handshake.done)
            handshake.close()
        self.until(self.clients[name].service_is_ready)
        return self.clients[name].call_async(request or kind.Request())

    def call(self, kind, name: str, request=None):
        future = self.start_call(kind, name, request)
        self.until(future.done)
        return future.result()

    def state(self) -> str:
        return self.call(GetState, "/sam2/get_state").current_state.label

    def wait_for_state(self, label: str) -> None:
        self.until(lambda: self.state() == label)

    def change_state(self, transition: str) -> bool:
        request = ChangeState.Request(transition=Transition(label=transition))
        return self.call(ChangeState, "/sam2/change_state", request).success

    def collect(self, kind, topic: str, depth: int = 100) -> list:
        """Returns a list that collects the messages of a topic, once a publisher is matched."""
        got = []
        subscription = self.node.create_subscription(kind, topic, got.append, QoSProfile(depth=depth))
        self.until(lambda: subscription.get_publisher_count() > 0)
        return got

    def camera(self, reliable: bool = True, topic: str = "image") -> "FakeCamera":
        return FakeCamera(self, reliable, topic)

    def diagnostics(self) -> list:
        return self.collect(DiagnosticArray, "/diagnostics")


class FakeCamera:
    """Publishes images whose pixels all equal their number, modulo 256."""

    def __init__(self, rig: Rig, reliable: bool, topic: str) -> None:
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self._rig = rig
        self.newest = -1  # number of the image published last
        # rclpy's default callback for incompatible QoS calls a deprecated method.
        events = PublisherEventCallbacks(use_default_callbacks=False)
        qos = QoSProfile(depth=10, reliability=policy)
        self._publisher = rig.node.create_publisher(Image, topic, qos, event_callbacks=events)

    @property
    def subscribers(self) -> int:
        return self._publisher.get_subscription_count()

    def wait_for_subscriber(self) -> None:
        self._rig.until(lambda: self.subscribers > 0)

    def wait_for_matching_subscriber(self) -> None:
        """A node first subscribes as best effort; an image that comes while it resubscribes as reliable is lost."""
        wanted, topic = self._publisher.qos_profile.reliability, self._publisher.topic_name
        offers = self._rig.node.get_subscriptions_info_by_topic
        self._rig.until(lambda: wanted in {offer.qos_profile.reliability for offer in offers(topic)})

    def message(
        self, number: int, size_hw=(48, 64), stamp_ns: int | None = None, frame_id: str = "camera_optical"
    ) -> Image:
        msg = image_message(Header(), np.full((*size_hw, 3), number % 256, np.uint8), "rgb8")
        msg.header.stamp = time_message(1_000_000_000_000 + number * 10_000_000 if stamp_ns is None else stamp_ns)
        msg.header.frame_id = frame_id
        return msg

    def publish(self, number: int, **kwargs) -> Image:
        msg = self.message(number, **kwargs)
        self.publish_message(msg)
        self.newest = number
        return msg

    def publish_message(self, msg: Image) -> None:
        self._publisher.publish(msg)

    def publish_until(self, condition, first: int = 0, period_s: float = 0.03, **kwargs) -> int:
        """Publishes one image per period until `condition()` is true; returns the next number."""
        number, due, end = first, 0.0, time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            if time.monotonic() >= due:
                self.publish(number, **kwargs)
                number, due = number + 1, time.monotonic() + period_s
            self._rig.executor.spin_once(timeout_sec=0.005)
        return number

    def close(self) -> None:
        self._rig.node.destroy_publisher(self._publisher)


def click(name="", x=30.0, y=20.0, stamp=None, frame_id=""):
    prompt = Prompt(object_id=name, points_xy=[x, y], point_labels=[1])
    prompt.header.frame_id = frame_id
    if stamp is not None:
        prompt.header.stamp = stamp
    return prompt


def start_tracking(rig, camera, *names):
    """Waits until the node takes requests and adds objects while images flow; returns the next image number."""
    camera.wait_for_subscriber()
    rig.until(lambda: rig.call(ListObjects, "/sam2/list_objects").code == Code.OK)
    asked, request = [], AddObjects.Request(prompts=[click(n) for n in names])

    def is_answered():
        if not asked or (asked[-1].done() and asked[-1].result().code == Code.NO_IMAGE):
            # Again, as `sam2_ros prompt` does: on a busy machine no image may come within a short prompt_wait_s.
            asked.append(rig.start_call(AddObjects, "/sam2/add_objects", request))
        return asked[-1].done()

    number = camera.publish_until(is_answered, first=100)
    assert asked[-1].result().code == Code.OK, asked[-1].result().sentence
    camera.wait_for_matching_subscriber()
    return number


def _yaml(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
