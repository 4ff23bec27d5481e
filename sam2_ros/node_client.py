"""Calls services of a running node from the command line, with a time limit, and watches its topics.

Knows how to wait for services, answers and messages; what is called, and what they mean, is up to the commands.
"""

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import rclpy
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import uninstall_signal_handlers
from rclpy.utilities import get_rmw_implementation_identifier, try_shutdown

from sam2_ros import reach
from sam2_ros.handshake import Handshake
from sam2_ros.log_files import NO_LOG_FILES
from sam2_ros.requests import Code

ASK_AGAIN_S = 0.5
SILENT_S = 3.0  # three diagnostics reports; then a message says what is being waited for or has fallen silent
LONGEST_S = 3600  # the longest wait

Message = Any  # a generated one; they have no common base class

# If a signal ends the context while rclpy makes an executor, it complains that the half-made one lacks this.
Executor._sigint_gc = None


class NoAnswer(Exception):
    """No answer came in time; the message says from whom."""

    exit_code = 2


class NodeRefused(Exception):
    """The node refused; the message is its code and sentence."""

    exit_code = 1


def agreed(answer: Message) -> Message:
    """Returns an answer whose code is OK. Raises NodeRefused for any other."""
    if answer.code != Code.OK:
        raise NodeRefused(f"{Code(answer.code).name}: {answer.sentence}")
    return answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name the node and limit the time."""
    parser.add_argument("--node", default="/sam2", type=_node_name, help="name of the node (default: %(default)s)")
    parser.add_argument("--timeout", type=_seconds, default=30.0, help="seconds to wait (default: %(default)s)")


def _node_name(given: str) -> str:
    name = "/" + given.strip("/")
    if not re.fullmatch(r"(/[A-Za-z_]\w*)+", name):
        raise argparse.ArgumentTypeError(f"expected a name such as /sam2 or /robot/sam2/front, got {given!r}")
    return name


def _seconds(given: str) -> float:
    with suppress(ValueError):
        if 0 < float(given) <= LONGEST_S:
            return float(given)
    raise argparse.ArgumentTypeError(f"expected seconds, above 0 and up to {LONGEST_S}, got {given!r}")


def tell_waiting(why: str) -> None:
    print(f"{why}; waiting", file=sys.stderr, flush=True)


@contextmanager
def connect(name: str, timeout_s: float) -> Iterator["NodeClient"]:
    """A NodeClient, with a ROS node of its own while the block runs. Raises KeyboardInterrupt after a signal, also
    after SIGTERM."""
    os.environ.setdefault("ROS_SUPER_CLIENT", "1")  # a discovery server would not tell other clients of all nodes
    rclpy.init(args=NO_LOG_FILES)  # in Jazzy that is no context manager, and there is no rclpy.try_shutdown
    try:
        node = rclpy.create_node("sam2_command")
        try:
            yield NodeClient(node, name, timeout_s)
        finally:
            node.destroy_node()
    except NodeRefused:
        raise
    except Exception:
        if not rclpy.ok():  # a signal ended the context, after which rclpy raises various things
            raise KeyboardInterrupt from None
        raise
    finally:
        try_shutdown()
        uninstall_signal_handlers()


class NodeClient:
    """name: of the node to call, or `<node>/<camera>`. timeout_s: for all calls together."""

    def __init__(self, node: Node, name: str, timeout_s: float) -> None:
        self.node, self.name, self.timeout_s = node, name, timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._clients: dict[str, Client] = {}

    def call(
        self, kind: type, service: str, request: Message, waits_for: tuple[Code, ...] = (Code.LOADING,)
    ) -> Message:
        """The node's answer; asks again while its code is one of `waits_for`. Raises NoAnswer."""
        client = self._clients.get(service) or self._find(kind, service)
        said: set[Code] = set()
        before = ""
        while True:
            asked = time.monotonic()
            future = client.call_async(request)
            rclpy.spin_until_future_complete(self.node, future, timeout_sec=self._left_s())
            if not future.done():
                raise NoAnswer(f"no answer from {self.name} within {self.timeout_s:g} s{before}")
            answer: Message = future.result()
            now = time.monotonic()
            code = next((code for code in waits_for if _says(answer, code)), None)
            if code is None or now + ASK_AGAIN_S + (now - asked) > self._deadline:  # there is no time for another try
                return answer
            before = f"; the last one was {code.name}. What was asked may still be carried out"
            if code not in said:
                why = "the model is being loaded" if code is Code.LOADING else answer.sentence
                tell_waiting(why)
                said.add(code)
            self.wait(ASK_AGAIN_S)

    def wait(self, seconds: float) -> None:
        """Waits and keeps serving the node meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            rclpy.spin_once(self.node, timeout_sec=left)

    def watch(
        self, kind: type, topic: str, read: Callable[..., list[str] | None], fall_silent: Callable[[], str]
    ) -> None:
        """Prints, until Ctrl-C, the lines that `read` returns for each message; None = it is not from this node. When
        nothing has come from the node for SILENT_S, prints what `fall_silent` returns, once."""
        heard_s = time.monotonic()

        def hear(message: Message) -> None:
            nonlocal heard_s
            if (lines := read(message)) is not None:
                heard_s = time.monotonic()
                for line in lines:
                    print(line, flush=True)

        def notice_silence() -> None:
            nonlocal heard_s
            if time.monotonic() - heard_s > SILENT_S:
                heard_s = math.inf  # it has been said
                print(fall_silent(), flush=True)

        self.node.create_subscription(kind, topic, hear, 10)
        self.node.create_timer(0.2, notice_silence, clock=Clock(clock_type=ClockType.STEADY_TIME))
        with suppress(KeyboardInterrupt, ExternalShutdownException):
            rclpy.spin(self.node)

    def _find(self, kind: type, service: str) -> Client:
        client: Client = self.node.create_client(kind, f"{self.name}/{service}")
        found = client.wait_for_service(min(self._left_s(), SILENT_S))
        if not found and self._left_s() and rclpy.ok():  # a node that was just started may still be importing PyTorch
            tell_waiting(f"{client.srv_name} is not there yet")
            found = client.wait_for_service(self._left_s())
        if not found:
            raise NoAnswer(f"{client.srv_name} is not there within {self.timeout_s:g} s: {self.where_else()}")
        handshake = Handshake(self.node, client)  # without it the answer may be lost
        while not (answered := handshake.done()) and self._left_s():
            rclpy.spin_once(self.node, timeout_sec=0.1)
        handshake.close()
        if not answered and rclpy.ok():  # middlewares may discover each other's services, but cannot call them
            asked = f"does it hang, or is its RMW_IMPLEMENTATION not {get_rmw_implementation_identifier()}, as here?"
            raise NoAnswer(f"no answer from {self.name} within {self.timeout_s:g} s: {asked}")
        return self._clients.setdefault(service, client)

    def where_else(self) -> str:
        """A hint for when there is no node of that name."""
        found = self.node.get_service_names_and_types()
        asked = {name.removesuffix("/list_objects") for name, kinds in found if "sam2_ros/srv/ListObjects" in kinds}
        if there := sorted(asked - {self.name}):  # `name` is there because of our own client
            return f"{', '.join(there)} can be asked: give one of them as --node"
        domain = self.node.context.get_domain_id()
        hidden = reach.limit() or reach.server()
        return f"is the node running, is its name {self.name}, and its ROS_DOMAIN_ID {domain}, as here?{hidden}"

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def _says(answer: Message, code: Code) -> bool:
    """Whether an answer has this code. Responses of std_srvs have no field for it, so the node puts the code's name
    before the sentence."""
    return getattr(answer, "code", None) == code or getattr(answer, "message", "").startswith(code.name)
