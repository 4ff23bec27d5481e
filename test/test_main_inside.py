"""The process from its node's first round to its last, with a node, an executor and a clock that only take notes."""

import os
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.impl.implementation_singleton import rclpy_implementation

from sam2_ros import main

pytestmark = pytest.mark.ros
KINDS = "subscriptions", "services", "clients", "timers", "guards", "waitables"


@pytest.fixture
def noted(monkeypatch):
    """What is done with the node and the executor, in order."""
    noted = []

    class Executor:
        add_node = staticmethod(lambda node: noted.append("add"))
        shutdown = staticmethod(lambda: noted.append("shut down"))
        spin_once = staticmethod(lambda timeout_sec: noted.append(timeout_sec))

    monkeypatch.setattr("rclpy.executors.SingleThreadedExecutor", Executor)
    return noted


def node_of(noted, autostart=True, rounds_until_done=99, code=None):
    logger = SimpleNamespace(info=lambda sentence: noted.append(sentence.partition(":")[0]))

    def is_done():
        return noted.count(0.2) >= rounds_until_done

    done = SimpleNamespace(done=is_done, result=lambda: code if is_done() else None)
    return SimpleNamespace(
        settings=SimpleNamespace(autostart=autostart), autostart=lambda: noted.append("autostart"), done=done,
        get_logger=lambda: logger, stop=lambda: noted.append("stop"), destroy_node=lambda: noted.append("destroy"),
    )  # fmt: skip


@pytest.mark.parametrize(("autostart", "told"), [(True, "autostart"), (False, "autostart is false")])
@pytest.mark.parametrize(("done_after", "code"), [(2, 70), (99, 0)])
def test_a_life_from_the_first_round_to_the_last(autostart, told, done_after, code, noted, monkeypatch):
    """It ends by a signal, or when only a new process can go on, whose code is that of this one."""
    node = node_of(noted, autostart, done_after, code=70)
    monkeypatch.setattr(main, "_make_node", lambda arguments, make_tracker: node)
    monkeypatch.setattr(main, "_say_farewell", lambda whose, _: noted.append("farewell" if whose is node else whose))

    class Signals:
        came = property(lambda self: noted.count(0.2) >= 3)

    assert main._live(Signals(), [], None) == code
    rounds = [0.2] * (2 if code else 3)
    assert noted == ["add", told, *rounds, "stop", "farewell", "shut down", "destroy"]


@pytest.mark.parametrize(
    ("took_s", "waiting", "rounds", "lingers"),
    [
        ([0.0, 0.01, 0.1], False, 3, False),  # two answers were sent, then nothing came
        ([0.1] * 19, True, 15, True),  # somebody waits for as long as it lasts
        ([0.01] * 199, False, 150, True),  # always something more
    ],
)
def test_a_farewell_lasts_until_nobody_waits_and_1_5_s_at_most(took_s, waiting, rounds, lingers, monkeypatch):
    """In the end it gives clients time to read the last answers."""
    clock, asked, slept, took = SimpleNamespace(now=1000.0), [], [], iter(took_s)

    def spin(node, executor, timeout_s):
        asked.append(timeout_s)
        clock.now += next(took) + 1e-6

    monkeypatch.setattr(main, "_spin", spin)
    monkeypatch.setattr(main, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=slept.append))
    main._say_farewell(SimpleNamespace(has_waiting_clients=waiting), executor=None)
    assert asked == [0.1] * rounds and slept == [0.1] * lingers


def test_whatever_rclpy_was_about_to_serve_is_served_again():
    """Of each kind one that it marked, one that it did not, and one without a group or whose group knows better."""
    ended = []

    def group(has_begun=True):
        def ending_execution(entity):
            assert has_begun
            ended.append(entity)

        return SimpleNamespace(ending_execution=ending_execution)

    kinds = {
        kind: [
            SimpleNamespace(_executor_event=marked, callback_group=its_group)
            for marked, its_group in ((True, group()), (False, group()), (True, None), (True, group(has_begun=False)))
        ] + [object()]
        for kind in KINDS
    }  # fmt: skip
    main._serve_again(SimpleNamespace(**kinds))
    assert ended == [entities[0] for entities in kinds.values()]
    assert not any(entity._executor_event for entities in kinds.values() for entity in entities[:4])


def test_an_error_around_a_callback_costs_that_round_only(monkeypatch):
    noted, error = [], ValueError("told to fail")
    monkeypatch.setattr(main, "_serve_again", lambda node: noted.append("again"))
    executor = SimpleNamespace(spin_once=lambda timeout_sec: (_ for _ in ()).throw(error))
    assert main._spin(SimpleNamespace(note_failure=noted.append), executor, timeout_s=0.0) is False
    assert noted == [error, "again"]
    executor.spin_once = lambda timeout_sec: noted.append(timeout_sec)
    assert main._spin(None, executor, timeout_s=0.3) is True and noted[2:] == [0.3]


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def run(monkeypatch, noted):
    """Runs `main` with a life that answers or raises `end`; returns the exit code, and notes what is done before."""
    for name in ("keep_freed", "bound_kernels"):
        monkeypatch.setattr(main.heap, name, lambda name=name: noted.append(name))
    for middleware in (main.fast_dds, main.cyclone_dds):
        monkeypatch.setattr(middleware, "make_room", lambda name=middleware.__name__: noted.append(name))
    monkeypatch.setattr(main.sys, "setswitchinterval", noted.append)
    monkeypatch.setattr("rclpy.shutdown", lambda: noted.append("shutdown"))
    monkeypatch.setattr(main, "log_arguments", lambda: ["--log"])
    monkeypatch.setattr(main, "_Signals", lambda: SimpleNamespace(is_starting=True))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)

    def run(words, end, **streams):
        def live(signals, arguments, make_tracker):
            noted.append((signals.is_starting, arguments, make_tracker, os.environ["OMP_WAIT_POLICY"]))
            if isinstance(end, Exception):
                raise end
            return end

        def leave(code):
            raise Ended(code)

        monkeypatch.setattr(main, "_live", live)
        with monkeypatch.context() as patch, pytest.raises(Ended) as ended:
            patch.setattr(main.os, "_exit", leave)
            for name, stream in streams.items():
                patch.setattr(main.sys, name, stream)
            main.main(words, "a tracker")
        return ended.value.args[0]

    return run


BEFORE = ["keep_freed", "bound_kernels", "sam2_ros.fast_dds", "sam2_ros.cyclone_dds", 0.0005]


def test_what_is_set_before_the_node_lives_and_the_code_that_it_ends_with(run, noted):
    words = ["--ros-args", "-p", "model:=nano"]
    assert run(words, 70) == 70
    assert noted == [*BEFORE, (False, [*words, "--log"], "a tracker", "PASSIVE"), "shutdown"]


def test_without_words_of_a_caller_those_of_the_process_are_taken(run, noted, monkeypatch):
    monkeypatch.setattr(main.sys, "argv", ["sam2_ros", "--ros-args", "-r", "image:=/image"])
    assert run(None, 0) == 0 and noted[len(BEFORE)][1] == ["--ros-args", "-r", "image:=/image", "--log"]


@pytest.mark.parametrize(
    "error",
    [
        ParameterException("no such type", ["model"]), NameValidationException("topic", "a b", "no spaces", 1),
        rclpy_implementation.RCLError("no keys"),
    ],
)  # fmt: skip
def test_a_node_that_rclpy_does_not_make_cannot_start_and_any_other_error_is_a_defect(error, monkeypatch):
    monkeypatch.setattr("rclpy.init", lambda **_: None)
    for raised, expected in ((error, main._CannotStart), (ZeroDivisionError(), ZeroDivisionError)):
        monkeypatch.setattr("sam2_ros.node.TrackNode", lambda _, raised=raised: (_ for _ in ()).throw(raised))
        with pytest.raises(expected):
            main._make_node([], print)


def test_a_node_that_cannot_start_is_a_sentence_and_1(run, noted, capsys):
    assert run([], main._CannotStart("no such name")) == 1
    assert capsys.readouterr().err == "sam2_ros track: no such name\n"


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_among_other_words_is_help_before_anything_is_done(word, run, noted, capsys):
    assert run(["--ros-args", word], 1) == 0
    assert capsys.readouterr().out == main.USAGE and noted == []


def test_a_stream_that_takes_nothing_changes_no_code_and_the_other_is_flushed(run, noted):
    def full():
        raise OSError(28, "No space left on device")

    flushed = SimpleNamespace(flush=lambda: noted.append("flushed"))
    closed = open(os.devnull, "w")
    closed.close()
    for stdout in (SimpleNamespace(flush=full), closed, None):
        assert run([], 0, stdout=stdout, stderr=flushed) == 0
        assert noted[-2:] == ["shutdown", "flushed"]


@pytest.mark.parametrize(
    ("words", "said"), [(["a:=b", "--ros-args"], "'a:=b' must come after"), (["up"], "argument 'up'")]
)
def test_words_that_are_no_ros_arguments_end_it_with_2_before_it_lives(words, said, run, noted, capsys):
    assert run(words, 0) == 2 and said in capsys.readouterr().err and noted == BEFORE
