"""The process from its node's first round to its last, with a node, an executor and a clock that only take notes."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

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
    done = SimpleNamespace(done=lambda: noted.count(0.2) >= rounds_until_done, result=lambda: code)
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
    monkeypatch.setattr(main, "_say_farewell", lambda *_: noted.append("farewell"))

    class Signals:
        came = property(lambda self: noted.count(0.2) >= 3)

    assert main._live(Signals(), [], None) == code
    rounds = [0.2] * (2 if code else 3)
    assert noted == ["add", told, *rounds, "stop", "farewell", "shut down", "destroy"]


@pytest.mark.parametrize(
    ("took_s", "waiting", "rounds", "lingers"),
    [
        ([0.0, 0.01, 0.1], False, 3, False),  # two answers were sent, then nothing came
        ([0.1] * 9, True, 5, True),  # somebody waits for as long as it lasts
        ([0.01] * 99, False, 50, True),  # always something more
    ],
)
def test_a_farewell_lasts_until_nobody_waits_and_half_a_second_at_most(took_s, waiting, rounds, lingers, monkeypatch):
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
