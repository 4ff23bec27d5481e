"""Faults planted inside the node, which is in the process of the test: transitions that fail, clocks, image in hand."""

import gc
import threading
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from fakes import FakeTracker
from rclpy.clock import ClockType
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_rig import PATIENCE_S, click
from std_srvs.srv import SetBool, Trigger

from sam2_ros import channel as channel_module
from sam2_ros import node as node_module
from sam2_ros import services
from sam2_ros.announcer import Announcer
from sam2_ros.msg import Track
from sam2_ros.node import TICKS_PER_REPORT, TrackNode
from sam2_ros.requests import Code, Reset
from sam2_ros.srv import AddObjects, ListObjects

pytestmark = pytest.mark.ros


@pytest.fixture
def inside(rig):
    """A node in this process, on the executor of the test, so that faults can be planted in it."""
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    rig.executor.add_node(node)
    yield node
    rig.executor.remove_node(node)
    node.stop()
    node.destroy_node()


def test_an_error_inside_a_service_is_answered_and_so_is_the_next_call(rig, inside, monkeypatch):
    def broken(needs_image):  # of the camera: the node's own is also asked for the diagnostics, once per second
        raise RuntimeError("told to break")

    with monkeypatch.context() as patch:
        patch.setattr(inside.channels[0], "why_closed", broken)
        listed = rig.call(ListObjects, "/sam2/list_objects")
        assert listed.code == Code.INTERNAL and "told to break" in listed.sentence
        assert rig.call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[click()])).code == Code.INTERNAL
        reset = rig.call(Trigger, "/sam2/reset")
        assert not reset.success and "told to break" in reset.message
    assert rig.call(ListObjects, "/sam2/list_objects").code == Code.NOT_ACTIVE


def test_a_list_that_takes_its_time_holds_nobody_up(rig, inside, monkeypatch):
    """Masks of large images are made for it, in a thread of its own; what goes wrong there is answered, too."""
    made, go_on = threading.Event(), threading.Event()

    def track_message(track, with_mask):
        made.set()
        assert go_on.wait(PATIENCE_S)
        return Track(object_id="cup") if track.object_id == "cup" else 1 / 0

    monkeypatch.setattr(services, "track_message", track_message)
    monkeypatch.setattr(channel_module.Channel, "why_closed", lambda self, needs_image: None)
    for name, code in (("cup", Code.OK), ("odd", Code.INTERNAL)):
        tracks = [SimpleNamespace(object_id=name)]  # the diagnostics, once per second, count them by their ids
        monkeypatch.setattr(channel_module.Channel, "newest", channel_module.NewestResult(tracks=tracks))
        listed = rig.start_call(ListObjects, "/sam2/list_objects")
        rig.until(made.is_set)
        assert rig.call(SetBool, "/sam2/enable", SetBool.Request(data=True)).success and not listed.done()
        go_on.set()
        rig.until(listed.done)
        assert listed.result().code == code and len({t.name for t in threading.enumerate() if "aside" in t.name}) == 1
        made.clear(), go_on.clear()


def test_what_was_listed_goes_with_its_result(rig, inside, monkeypatch):
    """Masks are made for it: 133 MB for sixteen objects in an image of 3840x2160."""
    thing = type("Thing", (), {"object_id": "cup"})  # of weak references; the diagnostics ask for the id
    newest = [channel_module.NewestResult(tracks=[thing()])]
    listed = weakref.ref(newest[0].tracks[0])
    monkeypatch.setattr(services, "track_message", lambda track, with_mask: Track(object_id="cup"))
    monkeypatch.setattr(channel_module.Channel, "why_closed", lambda self, needs_image: None)
    monkeypatch.setattr(channel_module.Channel, "newest", property(lambda self: newest[0]))
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            assert [one.object_id for one in rig.call(ListObjects, "/sam2/list_objects").objects] == ["cup"]
        newest[0] = channel_module.NewestResult()
        rig.until(lambda: listed() is None)
    finally:
        gc.enable()


STATES = ["configure", "activate", "deactivate", "cleanup"]


@pytest.mark.parametrize(
    "transition, owner, name",
    [
        ("configure", node_module.Worker, "start"),
        ("configure", channel_module, "Mailbox"),
        ("configure", channel_module, "Outputs"),
        ("activate", channel_module.Camera, "open"),
        ("activate", channel_module.Outputs, "open"),
        ("deactivate", node_module.LifecycleNode, "on_deactivate"),
        ("deactivate", channel_module.Camera, "close"),
        ("cleanup", node_module.Worker, "stop"),
    ],
)
def test_an_error_in_a_transition_leaves_the_state_before_and_the_next_try_works(
    rig, inside, transition, owner, name, monkeypatch
):
    triggers = {label: getattr(inside, f"trigger_{label}") for label in STATES}
    for label in STATES[: STATES.index(transition)]:
        assert triggers[label]() == TransitionCallbackReturn.SUCCESS
    before = rig.state(), len(list(inside.publishers)), len(list(inside.subscriptions))

    original, calls = getattr(owner, name), []

    def broken(*args, **kwargs):
        calls.append(name)
        if len(calls) > 1:  # what is taken back needs it again
            return original(*args, **kwargs)
        raise RuntimeError(f"told to {name}")

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        assert triggers[transition]() == TransitionCallbackReturn.FAILURE
    assert (rig.state(), len(list(inside.publishers)), len(list(inside.subscriptions))) == before
    for label in STATES[STATES.index(transition) :]:
        assert triggers[label]() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize("close_fails, state", [(1, "unconfigured"), (99, "finalized")])
def test_when_taking_back_fails_too_the_network_is_freed_all_the_same(rig, inside, monkeypatch, close_fails, state):
    """rclpy calls `on_error` then, once and for all."""
    assert inside.trigger_configure() == TransitionCallbackReturn.SUCCESS
    original, calls = channel_module.Camera.close, []

    def broken(*_):
        raise RuntimeError("told to break")

    def close(camera):
        calls.append(camera)
        return broken() if len(calls) <= close_fails else original(camera)

    with monkeypatch.context() as patch:
        patch.setattr(channel_module.Camera, "open", broken)
        patch.setattr(channel_module.Camera, "close", close)
        assert inside.trigger_activate() != TransitionCallbackReturn.SUCCESS
    assert rig.state() == state and inside._worker is None
    expected = Code.STOPPING if state == "finalized" else Code.NOT_ACTIVE
    assert rig.call(ListObjects, "/sam2/list_objects").code == expected
    if state == "unconfigured":
        assert inside.trigger_configure() == inside.trigger_activate() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize("transition", ["deactivate", "shutdown"])
def test_the_image_in_hand_is_not_published_after_the_transition_was_answered(rig, transition, monkeypatch):
    monkeypatch.setattr(node_module, "STOP_TIMEOUT_S", 0.05)
    gate = threading.Event()
    tracker = FakeTracker(gate=gate)
    node = TrackNode(lambda settings: tracker, context=rig.context)
    rig.executor.add_node(node)
    try:
        node.autostart()
        camera, counters = rig.camera(), node.channels[0].counters
        camera.wait_for_subscriber()
        camera.publish_until(tracker.stepping.is_set)
        worker = node._worker
        assert getattr(node, f"trigger_{transition}")() == TransitionCallbackReturn.SUCCESS
        gate.set()
        rig.until(lambda: counters.processed and not counters.busy_since_ns)
        assert (counters.processed, counters.published, counters.withheld) == (1, 0, 1)
    finally:
        gate.set()
        rig.executor.remove_node(node)
        node.stop()
        assert worker.stop(30)
        node.destroy_node()


def test_cameras_do_not_save_over_each_other(rig):
    node = TrackNode(context=rig.context, parameter_overrides=[Parameter("cameras", value=["front", "wrist"])])
    paths = [channel.saved_path("kitchen") for channel in node.channels]
    assert [path.parent.name for path in paths] == ["camera.front", "camera.wrist"] and len(set(paths)) == 2
    node.destroy_node()


def test_nodes_of_different_names_do_not_save_over_each_other(rig):
    paths = []
    for words in ([], ["-r", "__ns:=/robot1"], ["-r", "__ns:=/robot2"], ["-r", "__node:=other"]):
        node = TrackNode(context=rig.context, cli_args=["--ros-args", *words] if words else None)
        paths.append(str(node.channels[0].saved_path("kitchen").parent))
        node.destroy_node()
    root = paths[0]
    expected = [root, f"{root}/robot1/sam2", f"{root}/robot2/sam2", f"{root}/other"]
    assert paths == expected and root.endswith("sam2_objects")


def test_another_node_of_the_name_is_told_in_the_diagnostics_and_in_the_log(rig, inside):
    told = []
    inside.channels[0]._announcer = Announcer(SimpleNamespace(info=told.append, warning=told.append))
    said = rig.diagnostics()
    inside.autostart()
    rig.until(lambda: any("no object" in status.message for message in said for status in message.status))
    twin = Node("sam2", context=rig.context)  # as one that is not configured: it has no outputs
    rig.until(lambda: any("1 more node(s)" in sentence for sentence in told))
    assert [status.level for status in said[-1].status if "1 more node(s)" in status.message] == [b"\x02"]
    twin.destroy_node()


def test_only_a_network_that_hangs_makes_somebody_lose_patience(inside):
    """Not the wait for other cameras' images, however long, each of which is done in time."""
    answers, inputs = [], inside.channels[0].inputs
    request = Reset(answers.append)
    request.asked_ns -= 3600 * 10**9
    inputs._posted.add(request)
    inputs._ticked_ns, inputs._awake_since_ns = time.monotonic_ns(), 0
    for began_ns, is_hanging in ((0, False), (time.monotonic_ns() - 9 * 10**9, False), (1, True)):
        inside._worker = SimpleNamespace(turn_since_ns=began_ns)
        inputs.tick()
        assert len(answers) == is_hanging
    inside._worker = None
    assert answers[0].code is Code.INTERNAL and "hangs" in answers[0].sentence
    assert "hangs" in inside.channels[0].counters.said["request"]


def test_the_time_in_which_the_process_stood_still_makes_nobody_lose_patience(inside):
    """SIGSTOP, a suspended machine: afterwards everything is old, and only now begun."""
    answers, inputs = [], inside.channels[0].inputs
    request = Reset(answers.append)
    request.asked_ns -= 3600 * 10**9
    inputs._posted.add(request)
    inside._worker = SimpleNamespace(turn_since_ns=1)
    inputs._ticked_ns, inputs._awake_since_ns = time.monotonic_ns() - 3600 * 10**9, 0
    inputs.tick()
    inputs.tick()
    assert not answers
    inputs._awake_since_ns -= 3600 * 10**9
    inside.settings = replace(inside.settings, hang_after_s=0.1)  # less than from tick to tick
    inputs._ticked_ns -= 10**9
    inputs.tick()
    inside._worker = None
    assert answers[0].code is Code.INTERNAL


def test_diagnostics_come_once_per_second_on_a_clock_that_never_stands_still(rig, monkeypatch):
    """What the timer is made with, times how many of its ticks make a report."""
    made = []
    monkeypatch.setattr(TrackNode, "create_timer", lambda node, *args, **kwargs: made.append((args, kwargs)))
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    ((period_s, tick), options) = made[0]
    assert len(made) == 1 and options["clock"].clock_type is ClockType.STEADY_TIME
    told = []
    node._diagnostics = SimpleNamespace(publish=told.append)
    ticks = round(10.0 / period_s)
    for _ in range(ticks):
        tick()
    assert ticks * period_s == pytest.approx(10.0) and len(told) == 10
    node.destroy_node()


def test_silence_is_told_at_once_and_not_with_the_next_report(inside):
    told, counters = [], inside.channels[0].counters
    inside._report = lambda: told.append(inside._ticks)
    inside._ticks = TICKS_PER_REPORT
    inside._state, inside._since_ns = "active", time.monotonic_ns() - 10**12
    for silent_s in (0, 100, 100, 0):
        counters.last_image_ns = time.monotonic_ns() - silent_s * 10**9
        inside._on_tick()
    assert told == [TICKS_PER_REPORT + 2, TICKS_PER_REPORT + 4]


def test_the_newest_result_may_go_while_it_is_asked_for():
    """Lists are made in a thread of their own; a cleanup takes the outputs away meanwhile."""

    class Leaving(channel_module.Channel):
        def __init__(self):
            self.reads = iter([SimpleNamespace(outputs=SimpleNamespace(newest="the newest")), None])

        _pipeline = property(lambda self: next(self.reads))

    assert Leaving().newest == "the newest"
