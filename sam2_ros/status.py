"""`sam2_ros status`: prints a running node's diagnostics, once or whenever they change.

Finds a node's diagnostics by their names; their sentences are the node's.
"""

import argparse
import re
import sys
import time
from contextlib import suppress

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import NodeNameNonExistentError

from sam2_ros.health import Level
from sam2_ros.node_client import SILENT_S, NoAnswer, NodeClient, add_arguments, connect, tell_waiting

TOPIC = "/diagnostics"
LOOK_AGAIN_S = 0.2  # for a node that is not there yet
ROW = "{:<6} {:<18} {}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises SystemExit, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="sam2_ros status", description="Shows the state of a running node: problems, and what to do about them.",
        epilog="exit code 0: the node is active and all is well; 1: it is not; 2: nothing was received from it",
    )  # fmt: skip
    parser.add_argument("--values", action="store_true", help="also print the counters")
    parser.add_argument("--watch", action="store_true", help="a line whenever something changes, until Ctrl-C")
    add_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 = the node is active and all is well, 1 = it is not, 2 = nothing was heard of it."""
    args = parse(argv)
    try:
        with connect(args.node, args.timeout) as client:
            if args.watch:
                return watch(client)
            found = hear(client)
    except NoAnswer as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for status in found:
        print("\n".join(lines(status, client.name, args.values)))
    return int(any(level_of(status) is not Level.OK or not is_active(status) for status in found))


def hear(client: NodeClient) -> list[DiagnosticStatus]:
    """Waits for the node's next diagnostics. Raises NoAnswer."""
    got: list[DiagnosticStatus] = []
    hear_of_it = lambda msg: got.extend(of_node(msg, client.name))  # noqa: E731
    topic, ours = TOPIC, client.node.create_subscription(DiagnosticArray, TOPIC, hear_of_it, 10)
    begin, told = time.monotonic(), False
    while not got and (left := begin + client.timeout_s - time.monotonic()) > 0:
        rclpy.spin_once(client.node, timeout_sec=min(left, LOOK_AGAIN_S))
        if not got and topic != (topic := topic_of(client)):
            client.node.destroy_subscription(ours)
            ours = client.node.create_subscription(DiagnosticArray, topic, hear_of_it, 10)
        if not (told or got) and SILENT_S < time.monotonic() - begin < client.timeout_s:
            told = True
            tell_waiting(f"nothing of {client.name} on {topic} yet")
    client.node.destroy_subscription(ours)
    if not got:
        raise NoAnswer(f"nothing of {client.name} on {topic} within {client.timeout_s:g} s: {client.where_else()}")
    return got


def topic_of(client: NodeClient) -> str:
    """The topic of the node's diagnostics, which may be remapped; TOPIC if the node is not there yet."""
    for name in filter(None, (client.name, client.name.rpartition("/")[0])):  # of a node, or of one of its cameras
        namespace, _, base = name.rpartition("/")
        with suppress(NodeNameNonExistentError):
            found = client.node.get_publisher_names_and_types_by_node(base, namespace or "/")
            return next((topic for topic, kinds in found if "diagnostic_msgs/msg/DiagnosticArray" in kinds), TOPIC)
    return TOPIC


def watch(client: NodeClient) -> int:
    """Prints changes until Ctrl-C. Raises NoAnswer if there is no node to watch."""
    known: dict[str, tuple] = {}

    def read(message: DiagnosticArray) -> list[str] | None:
        found = of_node(message, client.name)
        return changes(known, found, client.name) if found else None  # others report on the same topic

    def fall_silent() -> str:
        known.clear()  # everything is printed again when it is back
        return f"nothing of {client.name} for {SILENT_S:g} s"

    for line in changes(known, hear(client), client.name):
        print(line, flush=True)
    client.watch(DiagnosticArray, topic_of(client), read, fall_silent)
    return 0


def of_node(message: DiagnosticArray, name: str) -> list[DiagnosticStatus]:
    """The statuses of a node (/sam2), or of one of its cameras (/sam2/front)."""
    node, _, camera = name.rpartition("/")
    return [status for status in message.status if status.name.startswith((f"{name}: ", f"{node}: {camera}: "))]


def level_of(status: DiagnosticStatus) -> Level:
    return Level(min(status.level[0], Level.ERROR))  # STALE, which this node never sends, counts as an error


def is_active(status: DiagnosticStatus) -> bool:
    return all(one.value == "active" for one in status.values if one.key == "state")


def lines(status: DiagnosticStatus, name: str, with_values: bool) -> list[str]:
    """The sentence of one status and, if asked for, its values. name: of the node, which is left out of the lines."""
    what = status.name.removeprefix(f"{name}: ").split(": ")
    said = [ROW.format(level_of(status).name, " ".join(what[-2:]), status.message)]
    return said + [f"         {one.key}: {one.value}" for one in status.values if with_values]


def changes(known: dict[str, tuple], statuses: list[DiagnosticStatus], name: str) -> list[str]:
    """Lines about what differs from `known`, which is updated. A change of numbers alone does not count."""
    news = []
    for status in statuses:
        gist = status.level, re.sub(r"[\d.]+", "", status.message)
        if known.get(status.name) != gist:
            known[status.name] = gist
            news += lines(status, name, with_values=False)
    return news


if __name__ == "__main__":
    sys.exit(main())
