"""What a node does at its worker's news, and what it says and asks for when it is configured; nothing spins."""

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from rclpy.lifecycle import TransitionCallbackReturn
from test_node_sentences import make, worker  # noqa: F401, a fixture

from sam2_ros import health
from sam2_ros import node as node_module
from sam2_ros.announcer import LASTING, Announcer
from sam2_ros.health import Situation
from sam2_ros.params import Settings
from sam2_ros.refused import Refused
from sam2_ros.ros_time import stamp_ns
from sam2_ros.transforms import Transforms
from sam2_ros.worker import Phase

pytestmark = pytest.mark.ros
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def told(make, monkeypatch):  # noqa: F811
    """A node, and what it logs and which transitions it asks for, in order. Each leads where it should."""
    node, told = make(cameras=["front", "wrist"]), []
    logger = SimpleNamespace(**{level: lambda said, level=level: told.append((level, said)) for level in LEVELS})
    monkeypatch.setattr(node, "get_logger", lambda: logger)
    for label, state in (("deactivate", "inactive"), ("cleanup", "unconfigured")):

        def trigger(label=label, state=state):
            told.append(label)
            node._state = state

        monkeypatch.setattr(node, f"trigger_{label}", trigger)
    yield node, told
    node._state, node._worker = "unconfigured", None


LEVELS = "info", "warning", "error"


def with_use(worker):
    worker.can_serve = worker.phase in (Phase.LOADING, Phase.READY) and not worker.is_stopping
    return worker


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.DEVICE_LOST])
@pytest.mark.parametrize(
    ("state", "asks_for"), [("active", ["deactivate", "cleanup"]), ("inactive", ["cleanup"]), ("finalized", [])]
)
def test_a_network_that_is_lost_is_told_and_released_from_any_state(phase, state, asks_for, told):
    node, told = told
    node._state, node._worker = state, with_use(worker(phase, "no memory left"))
    node._on_worker_changed()
    level, sentence = told.pop(0)
    assert level == "error" and sentence.startswith("no memory left") and told == asks_for
    assert node._trouble == (phase.value, "no memory left")
    assert ("configure and activate it" in sentence) == (phase is Phase.FAILED), "a lost device needs a new process"
    assert node.done.done() == (phase is Phase.DEVICE_LOST)
    if node.done.done():
        assert node.done.result() == node_module.EXIT_DEVICE_LOST == 70


@pytest.mark.parametrize(("phase", "said"), [(Phase.READY, [("info", "nano on cpu")]), (Phase.LOADING, [])])
def test_a_network_that_is_well_is_told_once_it_is_ready(phase, said, told):
    node, told = told
    node._state, node._worker = "active", worker(phase, "nano on cpu")
    node._on_worker_changed()
    assert (told, node._trouble, node._state, node.done.done()) == (said, ("", ""), "active", False)


def test_somebody_waits_while_any_camera_owes_an_answer(told):
    node, _ = told
    assert not node.has_waiting_clients
    for channel in node.channels:
        channel.inputs.services.waiting_clients = 1
        assert node.has_waiting_clients
        channel.inputs.services.waiting_clients = 0


@pytest.mark.parametrize(("is_enabled", "target"), [(True, "base_link"), (False, "")])
def test_transforms_are_asked_for_where_there_is_depth(is_enabled, target, make, monkeypatch):  # noqa: F811
    asked = []
    monkeypatch.setattr(
        node_module, "Transforms", lambda node, target, changed: asked.append(target) or Transforms(node, "", changed)
    )
    node = make(depth__enabled=is_enabled, depth__target_frame="base_link")
    assert node.trigger_configure() == SUCCESS and asked == [target]


@pytest.mark.parametrize(
    ("given", "is_heard", "warned"),
    [({"detector__confirm": 3}, False, True), ({"detector__confirm": 3}, True, False), ({}, False, False)],
)
def test_a_detectors_parameter_is_warned_of_where_none_is_heard(given, is_heard, warned, make, monkeypatch):  # noqa: F811
    node, told = make(**given), []
    logger = SimpleNamespace(warning=told.append, info=print, error=pytest.fail)
    monkeypatch.setattr(node_module, "vision", SimpleNamespace(INSTALLED=is_heard))
    monkeypatch.setattr(node, "get_logger", lambda: logger)
    assert node.trigger_configure() == SUCCESS
    assert any("detector.confirm is set" in said for said in told) == warned


@pytest.mark.parametrize(
    ("phase", "is_stopping", "trouble", "expected"),
    [
        (Phase.READY, False, ("", ""), ("ready", "the worker's")),
        (Phase.READY, True, ("", ""), ("ending", "the worker's")),
        (Phase.LOADING, True, ("failed", "before"), ("ending", "before")),
        (Phase.FAILED, True, ("", ""), ("failed", "the worker's")),
        (Phase.READY, False, ("failed", "before"), ("failed", "before")),
        (None, False, ("", ""), ("", "")),
    ],
)
def test_a_report_is_of_the_networks_phase_unless_there_was_trouble(
    phase, is_stopping, trouble, expected, told, monkeypatch
):
    node, _ = told
    node._worker, node._trouble = phase and with_use(worker(phase, "the worker's", is_stopping)), trouble
    sent, situations = [], []
    node._diagnostics = SimpleNamespace(publish=sent.append)
    node.channels[1].enabled = False
    monkeypatch.setattr(health, "report", lambda _, source, situation, *__: situations.append(situation) or [])
    node._report()
    assert [(one.phase, one.sentence) for one in situations] == [expected] * 2
    assert [(one.prefix, one.enabled) for one in situations] == [("~/front/", True), ("~/wrist/", False)]
    assert {(one.state, one.closed) for one in situations} == {("unconfigured", node.why_closed()[1])}
    now = node.get_clock().now().nanoseconds
    assert 0 <= now - stamp_ns(sent[0].header.stamp) < 60 * 10**9


def test_a_transform_that_came_is_news_for_every_camera(told, monkeypatch):
    node, looked = told[0], []
    for channel in node.channels:
        monkeypatch.setattr(channel, "look_again", lambda name=channel.name: looked.append(name))
    node._on_transforms()
    assert looked == ["front", "wrist"]


@pytest.mark.parametrize(("model", "word"), [("huge", "'huge'"), ("nano", "no tf2")])
def test_a_parameter_that_cannot_be_is_told_in_a_sentence_and_leaves_it_unconfigured(model, word, told, monkeypatch):
    """A model that is unknown, or a frame where there are no transforms."""
    node, told = told
    node.settings = Settings(model=model)
    monkeypatch.setattr(node_module, "Transforms", lambda *_: (_ for _ in ()).throw(Refused("no_tf2", "no tf2")))
    assert node.trigger_configure() == FAILURE
    assert node._worker is None and node._trouble[0] == "failed" and word in node._trouble[1]
    assert told == [("error", node._trouble[1])]


@pytest.mark.parametrize(("ends", "answer", "state"), [(True, SUCCESS, "unconfigured"), (False, FAILURE, "finalized")])
def test_after_an_error_a_network_that_does_not_end_in_time_ends_the_node_for_good(ends, answer, state, told):
    node, _ = told
    node._worker = worker(Phase.READY)
    node._worker.stop = lambda timeout_s: ends
    assert node.on_error(None) == answer and node._state == state


def test_no_image_comes_in_while_the_network_is_told_to_end(told, monkeypatch):
    node, order = told[0], []
    for channel in node.channels:
        monkeypatch.setattr(channel, "close_inputs", lambda: order.append("inputs"))
        monkeypatch.setattr(channel, "close", lambda for_good: order.append(for_good))
    monkeypatch.setattr(node, "_release", lambda: order.append("release"))
    node.stop()
    assert order == ["inputs", "inputs", "release", True, True]


def test_transforms_end_with_the_network_and_each_state_begins_when_it_is_entered(told):
    node, closed = told[0], []
    node._transforms, node._since_ns = SimpleNamespace(close=lambda: closed.append(1)), 1
    assert node._release() and node._release() and closed == [1] and node._since_ns == 1
    assert node._enter("active") == SUCCESS and node._since_ns > 1


def test_a_node_that_rests_does_not_say_that_images_are_back(make):  # noqa: F811
    channel, told = make().channels[0], []
    channel._announcer = Announcer(SimpleNamespace(info=told.append, warning=told.append))
    active, rests = Situation("active", "ready"), Situation("finalized", "")
    for situation in (*[active] * LASTING, rests):
        channel.statuses(situation)
    assert [sentence.partition(" for ")[0] for sentence in told] == ["images: no image"]
    channel.counters.receive_image(time.monotonic_ns(), 1)
    channel.statuses(active)
    assert told[1:] == ["images again: waiting for images"]
