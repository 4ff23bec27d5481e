"""`sam2_ros status`: how a running node is, in its own words, once or as it changes. Reads /diagnostics.

Knows a node's diagnostics by their names; what they say is the node's business.
"""

import argparse
import re
import sys
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import ExternalShutdownException

from sam2_ros.health import Level
from sam2_ros.visit import NoAnswer, Visit, add_arguments, visit

TOPIC = "/diagnostics"
SILENT_S = 3  # three reports
ROW = "{:<6} {:<18} {}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises SystemExit, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="sam2_ros status", description="How a running node is: what it lacks, and what to do about it.",
        epilog="ends with 0 if the node is active and all is well, with 1 if not, with 2 if nothing is heard of it",
    )  # fmt: skip
    parser.add_argument("--values", action="store_true", help="also what was counted")
    parser.add_argument("--watch", action="store_true", help="a line whenever something changes; ends by Ctrl-C")
    add_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """0 if the node is active and all is well, 1 if not, 2 if nothing was heard of it."""
    args = parse(argv)
    try:
        with visit(args.node, args.timeout) as asked:
            if args.watch:
                return watch(asked)
            found = hear(asked)
    except NoAnswer as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for status in found:
        print("\n".join(lines(status, asked.name, args.values)))
    return int(any(level_of(status) is not Level.OK or not is_active(status) for status in found))


def hear(asked: Visit) -> list[DiagnosticStatus]:
    """The node's next report. Raises NoAnswer."""
    got: list[DiagnosticStatus] = []
    ours = asked.node.create_subscription(DiagnosticArray, TOPIC, lambda msg: got.extend(of_node(msg, asked.name)), 10)
    end = time.monotonic() + asked.timeout_s
    while not got and (left := end - time.monotonic()) > 0:
        rclpy.spin_once(asked.node, timeout_sec=left)
    asked.node.destroy_subscription(ours)
    if not got:
        raise NoAnswer(f"nothing of {asked.name} on {TOPIC} within {asked.timeout_s:g} s: {asked.where_else()}")
    return got


def watch(asked: Visit) -> int:
    """Until Ctrl-C. Raises NoAnswer if there is no node to watch."""
    known: dict[str, tuple] = {}
    heard_s = time.monotonic()

    def tell(statuses: list[DiagnosticStatus]) -> None:
        nonlocal heard_s
        heard_s = time.monotonic()
        for line in changes(known, statuses, asked.name):
            print(line, flush=True)

    tell(hear(asked))
    asked.node.create_subscription(DiagnosticArray, TOPIC, lambda msg: tell(of_node(msg, asked.name)), 10)
    try:
        while True:
            rclpy.spin_once(asked.node, timeout_sec=0.2)
            if known and time.monotonic() - heard_s > SILENT_S:
                print(f"nothing of {asked.name} for {SILENT_S} s", flush=True)
                known.clear()  # told anew when it is heard again
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0


def of_node(message: DiagnosticArray, name: str) -> list[DiagnosticStatus]:
    """Those of a node, or of one camera of it: /sam2, /sam2/front."""
    node, _, camera = name.rpartition("/")
    return [status for status in message.status if status.name.startswith((f"{name}: ", f"{node}: {camera}: "))]


def level_of(status: DiagnosticStatus) -> Level:
    return Level(min(status.level[0], Level.ERROR))  # stale, which this node never says, is no better


def is_active(status: DiagnosticStatus) -> bool:
    return all(one.value == "active" for one in status.values if one.key == "state")


def lines(status: DiagnosticStatus, name: str, with_values: bool) -> list[str]:
    """The sentence of one status and, if asked for, its values. name: of the node, whose name needs not be said."""
    what = status.name.removeprefix(f"{name}: ").split(": ")
    said = [ROW.format(level_of(status).name, " ".join(what[-2:]), status.message)]
    return said + [f"         {one.key}: {one.value}" for one in status.values if with_values]


def changes(known: dict[str, tuple], statuses: list[DiagnosticStatus], name: str) -> list[str]:
    """Lines of what is not as in `known`, which is brought up to date. That a number changed is no news."""
    news = []
    for status in statuses:
        gist = status.level, re.sub(r"[\d.]+", "", status.message)
        if known.get(status.name) != gist:
            known[status.name] = gist
            news += lines(status, name, with_values=False)
    return news


if __name__ == "__main__":
    sys.exit(main())
