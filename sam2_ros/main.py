"""The process: signals, executor, exit code. Knows no topic.

SIGINT, SIGTERM and SIGHUP end it with 0 in every state, without a traceback; a second one ends it at once. A lost
device ends it with 70, for a supervisor to start it again.
"""

import gc
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from sam2_ros import cyclone_dds, fast_dds, heap
from sam2_ros.log_files import log_arguments, say
from sam2_ros.rcl_errors import sentence_of

if TYPE_CHECKING:
    from rclpy.executors import SingleThreadedExecutor

    from sam2_ros.load_tracker import MakeTracker
    from sam2_ros.node import TrackNode

USAGE = """usage: sam2_ros track [--ros-args -r FROM:=TO -p PARAMETER:=VALUE --params-file FILE ...]

The tracking node /sam2, for example
  sam2_ros track --ros-args -r image:=/camera/image_raw -p model:=tiny
Topics, services and parameters are in the README; every parameter with its default is in config/track.yaml.
"""
FAREWELL_S = 1.5  # to send the last answers: three hundred took 0.6 s on a busy machine
LINGER_S = 0.1  # for clients to read them: unread data in Fast DDS's shared memory goes with the participant
EXIT_AT_ONCE = 130
TOO_MANY = 1000  # failed rounds of the executor in a row: nothing works any more


class _Signals:
    """Notes the first signal. The second ends the process at once, and so does the first during start-up, when there is
    nothing to clean up yet.

    rclpy's own handlers would raise KeyboardInterrupt wherever the interpreter happens to be, or end the context before
    the last answers are sent.
    """

    def __init__(self) -> None:
        self.came = False
        self.is_starting = True
        is_kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup ignores it
        for number in (signal.SIGINT, signal.SIGTERM, *(() if is_kept else (signal.SIGHUP,))):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            os._exit(EXIT_AT_ONCE)
        if self.is_starting:
            os._exit(0)
        self.came = True


def _leave_removed_folder() -> None:
    """Changes to / if the working directory was removed; otherwise Intel's MKL, which PyTorch uses, would not find its
    own library and would end the process."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")
        say("sam2_ros track: the folder that it was started in is gone; it runs in /")


def _give_up(sentence: str, code: int) -> NoReturn:
    say(f"sam2_ros track: {sentence}")
    os._exit(code)


def main(argv: list[str] | None = None, make_tracker: "MakeTracker | None" = None) -> NoReturn:
    """Runs the node until it is told to stop, and ends the process. argv: ROS arguments, by default the process's.

    make_tracker: for `TrackNode`, instead of `load_tracker`.
    """
    words = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        os._exit(0)
    signals = _Signals()  # before the imports, which take seconds
    _leave_removed_folder()
    heap.keep_freed()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `sam2_ros.cli`, without which `ros2 run` starts this
    heap.bound_kernels()
    fast_dds.make_room()
    cyclone_dds.make_room()
    sys.setswitchinterval(0.0005)  # otherwise the worker may wait 5 ms while the executor holds the interpreter
    import rclpy

    _check_arguments(words)
    import sam2_ros.node  # noqa: F401, imported now: it takes seconds, in which a signal may simply end the process

    signals.is_starting = False
    sentence = ""
    try:
        code = _live(signals, [*words, *log_arguments()], make_tracker)
    except _CannotStart as error:
        sentence = str(error)
    gc.collect()  # frees the node and its DDS participant, whose shared memory would otherwise stay behind
    if sentence:  # outside `except`, since the error refers to the half-made node
        _give_up(sentence, code=1)
    rclpy.shutdown()
    for stream in (sys.stdout, sys.stderr):  # either may be closed, or on a full disk
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    # A normal exit would tear torch down first, for up to a second, and could crash on a busy network.
    os._exit(code)


def _check_arguments(words: list[str]) -> None:
    """Ends the process with an error message unless all words are ROS arguments."""
    from rclpy.utilities import remove_ros_args

    before = words[: words.index("--ros-args")] if "--ros-args" in words else words
    if bare := next((word for word in before if ":=" in word), ""):  # as in ROS 1; rcl would take it for a remapping
        _give_up(f"{bare!r} must come after --ros-args: -p {bare} sets a parameter, -r {bare} remaps a name", code=2)
    try:
        unknown = remove_ros_args(args=["sam2_ros", *words])[1:]
    except RuntimeError as error:  # rclpy's own exception has no public name
        _give_up(sentence_of(error), code=2)
    except UnicodeEncodeError as error:
        _give_up(f"an argument: expected UTF-8, got {error.object!r}", code=2)
    if unknown:
        _give_up(f"unknown argument {unknown[0]!r}; parameters are given as --ros-args -p model:=tiny", code=2)


class _CannotStart(Exception):
    """The node cannot be made; the message says why."""


def _make_node(arguments: list[str], make_tracker: "MakeTracker | None") -> "TrackNode":
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
        raise _CannotStart(sentence_of(error)) from error  # a parameter, a name, or the middleware: keys, transports
    for sentence in strangers(arguments, node.get_fully_qualified_name()):
        node.get_logger().warning(sentence)
    return node


def _live(signals: _Signals, arguments: list[str], make_tracker: "MakeTracker | None") -> int:
    """Runs the node until its end; returns the exit code."""
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
    code = node.done.result() or int(failed == TOO_MANY)  # no result until it is done
    node.stop()
    if failed < TOO_MANY:
        _say_farewell(node, executor)
    executor.shutdown()
    node.destroy_node()
    return code


def _say_farewell(node: "TrackNode", executor: "SingleThreadedExecutor") -> None:
    """Answers clients that still wait, and requests that came while the node stopped, which may take two seconds."""
    end = time.monotonic() + FAREWELL_S
    while (began := time.monotonic()) < end:
        _spin(node, executor, timeout_s=LINGER_S)
        if time.monotonic() - began >= LINGER_S and not node.has_waiting_clients:
            return  # nothing more came
    time.sleep(LINGER_S)


def _spin(node: "TrackNode", executor: "SingleThreadedExecutor", timeout_s: float) -> bool:
    """Spins once; False if rclpy raised an error around a callback of ours, for instance because of a parameter
    without a type, a /clock before 1970 or a response that it cannot send. Only that one call is lost."""
    try:
        executor.spin_once(timeout_sec=timeout_s)
    except Exception as error:
        node.note_failure(error)
        _serve_again(node)
        return False
    return True


def _serve_again(node: "TrackNode") -> None:
    """Releases the entity whose callback rclpy was about to run when it failed: rclpy still marks it as running, so
    neither it nor its callback group would ever run again."""
    entities: list[Any] = [*node.subscriptions, *node.services, *node.clients, *node.timers, *node.guards]
    for entity in [*entities, *node.waitables]:
        if getattr(entity, "_executor_event", False):
            entity._executor_event = False
            with suppress(AssertionError, AttributeError):  # its callback group is not running it, or it has none
                entity.callback_group.ending_execution(entity)


if __name__ == "__main__":
    main()
