"""The process: signals, executor, exit code. Knows no topic.

SIGINT and SIGTERM end it with 0 in every state, without a traceback; a second one ends it at once. A lost device ends
it with 70, for a supervisor to start it again.
"""

import errno
import gc
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from typing import NoReturn

from sam2_ros import fast_dds, heap
from sam2_ros.rcl_errors import sentence_of

USAGE = """usage: sam2_ros track [--ros-args -r FROM:=TO -p PARAMETER:=VALUE --params-file FILE ...]

The tracking node /sam2, for example
  sam2_ros track --ros-args -r image:=/camera/image_raw -p model:=tiny
Topics, services and parameters are in the README; every parameter with its default is in config/track.yaml.
"""
FAREWELL_S = 0.5  # to send the last answers
LINGER_S = 0.1  # for them to be read: what lies unread in Fast DDS's shared memory goes with the participant
EXIT_AT_ONCE = 130
TOO_MANY = 1000  # rounds of the executor that failed, one after another: nothing works any more


class _Signals:
    """Notes the first signal; ends the process at the second, and at the first while there is nothing to put in order.

    Own handlers: those of rclpy raise KeyboardInterrupt wherever the interpreter happens to be, or end the context
    before the last answers are sent.
    """

    def __init__(self) -> None:
        self.came = False
        self.is_starting = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number, frame) -> None:
        if self.came:
            os._exit(EXIT_AT_ONCE)
        if self.is_starting:
            os._exit(0)
        self.came = True


def _log_arguments() -> list[str]:
    """ROS arguments without which a full disk, or one that is read-only, would keep the node from starting."""
    folder = os.environ.get("ROS_LOG_DIR") or os.path.join(os.environ.get("ROS_HOME") or "~/.ros", "log")
    if folder.startswith("~") and (home := os.environ.get("HOME")):  # rcl knows no home but this
        folder = home + folder[1:]
    try:
        if folder.startswith("~"):  # rcl would end the node
            raise FileNotFoundError(errno.ENOENT, "HOME is not set")
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"?")
    except OSError as error:
        _say(f"sam2_ros: no log files: {folder}: {error.strerror}; make it writable or set ROS_LOG_DIR")
        return ["--ros-args", "--disable-external-lib-logs"]
    return []


def _say(sentence: str) -> None:
    """To whoever started us, if they can still be told: the disk may be full of what we said."""
    with suppress(OSError, ValueError, AttributeError):
        print(sentence, file=sys.stderr, flush=True)


def _give_up(sentence: str, code: int) -> NoReturn:
    _say(f"sam2_ros track: {sentence}")
    os._exit(code)


def main(argv: list[str] | None = None, make_tracker=None) -> NoReturn:
    """Runs the node until it is told to stop, and ends the process. argv: ROS arguments, default those given.

    make_tracker: what `TrackNode` takes instead of a network.
    """
    words = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        os._exit(0)
    signals = _Signals()  # before the imports, which take seconds
    heap.keep_freed()
    # Threads that wait for each other by spinning take the processor from those they wait for, as soon as anything else
    # runs on the machine; then the network takes ten times as long. Read when the library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    heap.bound_programs()
    fast_dds.make_room()
    sys.setswitchinterval(0.0005)  # the worker must not wait 5 ms for the executor's bookkeeping
    import rclpy

    import sam2_ros.node  # noqa: F401, so that what takes seconds is over

    signals.is_starting = False
    _check_arguments(words)
    sentence = ""
    try:
        code = _live(signals, [*words, *_log_arguments()], make_tracker)
    except _Unborn as error:
        sentence = str(error)
    gc.collect()  # with the node's last reference goes its participant, whose shared memory would stay behind for ever
    if sentence:  # outside `except`: the error holds what there was of the node
        _give_up(sentence, code=1)
    rclpy.shutdown()
    for stream in (sys.stdout, sys.stderr):  # either may have been closed before we came, or its disk be full
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    # The interpreter would take torch apart first, for up to a second, and trip over a network that is still busy.
    os._exit(code)


def _check_arguments(words: list[str]) -> None:
    """Ends the process with a sentence if they are no ROS arguments."""
    from rclpy.utilities import remove_ros_args

    before = words[: words.index("--ros-args")] if "--ros-args" in words else words
    if bare := next((word for word in before if ":=" in word), ""):  # which rcl takes for a remapping, as ROS 1 did
        _give_up(f"{bare!r} must come after --ros-args: -p {bare} sets a parameter, -r {bare} remaps a name", code=2)
    try:
        unknown = remove_ros_args(args=["sam2_ros", *words])[1:]
    except RuntimeError as error:  # rclpy's own kind has no public name
        _give_up(sentence_of(error), code=2)
    except UnicodeEncodeError as error:
        _give_up(f"an argument: expected UTF-8, got {error.object!r}", code=2)
    if unknown:
        _give_up(f"unknown argument {unknown[0]!r}; parameters are given as --ros-args -p model:=tiny", code=2)


class _Unborn(Exception):
    """There can be no node; says why."""


def _make_node(arguments: list[str], make_tracker):
    import rclpy
    from rclpy.exceptions import NameValidationException, ParameterException
    from rclpy.impl.implementation_singleton import rclpy_implementation
    from rclpy.signals import SignalHandlerOptions

    from sam2_ros.load_tracker import load_tracker
    from sam2_ros.node import TrackNode
    from sam2_ros.params_files import strangers

    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = TrackNode(make_tracker or load_tracker)
    except (ParameterException, NameValidationException, rclpy_implementation.RCLError) as error:
        raise _Unborn(sentence_of(error)) from error  # a setting, a name, or the middleware: keys, transports
    for sentence in strangers(arguments, node.get_fully_qualified_name()):
        node.get_logger().warning(sentence)
    return node


def _live(signals: _Signals, arguments: list[str], make_tracker) -> int:
    """The node from its first moment to its last; returns the exit code."""
    from rclpy.executors import SingleThreadedExecutor

    node = _make_node(arguments, make_tracker)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    if node.settings.autostart:
        node.autostart()
    else:
        node.get_logger().info(
            "autostart is false: a lifecycle manager, or `ros2 lifecycle set`, configures and activates"
        )
    # The node's own timer makes spin_once return often enough for a signal to be seen.
    failed = 0
    while not signals.came and not node.done.done() and failed < TOO_MANY:
        failed = 0 if _spin(node, executor, timeout_s=0.2) else failed + 1
    code = node.done.result() if node.done.done() else int(failed == TOO_MANY)
    node.stop()
    farewell = time.monotonic() + FAREWELL_S
    linger_s = LINGER_S if node.has_waiting_clients else 0.0
    while node.has_waiting_clients and time.monotonic() < farewell:
        _spin(node, executor, timeout_s=0.05)
    time.sleep(linger_s)
    executor.shutdown()
    node.destroy_node()
    return code


def _spin(node, executor, timeout_s: float) -> bool:
    """One round; False if something was raised on the way to a callback of ours, or back: by rclpy, over a parameter of
    no type, a /clock before 1970 or an answer that it cannot send. That costs the one call."""
    try:
        executor.spin_once(timeout_sec=timeout_s)
    except Exception as error:
        node.note_failure(error)
        _serve_again(node)
        return False
    return True


def _serve_again(node) -> None:
    """Frees what rclpy was about to take when that failed: marked as being served, it and its group would never be."""
    for entity in (*node.subscriptions, *node.services, *node.clients, *node.timers, *node.guards, *node.waitables):
        if getattr(entity, "_executor_event", False):
            entity._executor_event = False
            with suppress(AssertionError, AttributeError):  # its group was not taken, or it has none
                entity.callback_group.ending_execution(entity)


if __name__ == "__main__":
    main()
