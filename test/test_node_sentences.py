"""What a node says it needs, counts anew and reports, in each state; it is in this process and nothing spins."""

import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

import rclpy
from fakes import FakeTracker
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy

from sam2_ros.health import Situation
from sam2_ros.msg import VisibilityArray
from sam2_ros.newest_result import NewestResult
from sam2_ros.node import NETWORK_ENDING, TICKS_PER_REPORT, TrackNode
from sam2_ros.requests import Code, Reset
from sam2_ros.rivals import count_rivals
from sam2_ros.worker import Phase

pytestmark = pytest.mark.ros
SUCCESS = TransitionCallbackReturn.SUCCESS


@pytest.fixture
def make(rig):
    """A function that makes a node with parameters."""
    nodes = []

    def make(**parameters):
        given = [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
        nodes.append(TrackNode(lambda settings: FakeTracker(), context=rig.context, parameter_overrides=given))
        return nodes[-1]

    yield make
    for node in nodes:
        node.stop()
        node.destroy_node()


def worker(phase, sentence="", is_stopping=False, turn_since_ns=0):
    return SimpleNamespace(
        phase=phase,
        sentence=sentence,
        is_stopping=is_stopping,
        turn_since_ns=turn_since_ns,
        loading_since_ns=0,
        stop=lambda timeout_s: True,
    )


def test_why_no_request_can_be_served_in_each_state(make):
    node = make()
    steps = "(ros2 lifecycle set)"
    assert node.why_closed() == (
        Code.NOT_ACTIVE, f"the node is unconfigured; configure and activate it {steps}",
    )  # fmt: skip
    node._state = "inactive"
    assert node.why_closed() == (Code.NOT_ACTIVE, f"the node is inactive; activate it {steps}")
    node._worker = worker(Phase.READY, is_stopping=True)
    assert node.why_closed() == (Code.NOT_ACTIVE, NETWORK_ENDING)
    node._state = "active"
    for phase, expected in (
        (Phase.LOADING, (Code.LOADING, "the model is being loaded; ask again")), (Phase.READY, None),
        (Phase.FAILED, (Code.INTERNAL, "why")), (Phase.DEVICE_LOST, (Code.INTERNAL, "why")),
    ):  # fmt: skip
        node._worker = worker(phase, "why")
        assert node.why_closed() == expected
    node._state = "finalized"
    assert node.why_closed() == (Code.STOPPING, "the node is shutting down")
    node._state, node._worker = "unconfigured", None


def test_what_was_wrong_with_the_network_before_is_not_told_of_the_next_one(make):
    node = make()
    node._trouble = ("failed", "no such file")
    assert node.why_closed()[1].startswith("no such file; start the node again or,")
    node._trouble = ("device lost", "the GPU is gone")
    assert node.why_closed()[1] == "the GPU is gone", "only a new process can go on"
    assert node.trigger_configure() == SUCCESS
    assert node.why_closed()[1] == "the node is inactive; activate it (ros2 lifecycle set)"


def test_a_change_that_is_heard_of_when_the_worker_has_gone_is_none(make):
    node = make()
    node._on_worker_changed()
    assert not node.done.done() and node._trouble == ("", "")


def test_a_network_hangs_when_one_turn_takes_longer_than_is_set(make):
    node = make(hang_after_s=5.0)
    assert not node.is_hanging
    for age_s, is_hanging in ((4.0, False), (6.0, True)):
        node._worker = worker(Phase.READY, turn_since_ns=time.monotonic_ns() - int(age_s * 1e9))
        assert node.is_hanging == is_hanging
    node._worker = worker(Phase.READY)
    assert not node.is_hanging, "it waits for work"
    node._worker = None


def test_what_a_callback_raises_is_counted_once_and_with_the_first_camera(make):
    node = make(cameras=["front", "wrist"])
    node.note_failure(MemoryError("full"))
    assert [channel.counters.failures for channel in node.channels] == [{"callback: MemoryError": 1}, {}]


def test_every_camera_is_looked_at_with_every_tick_and_in_every_report(make):
    node, ticked, reports = make(cameras=["front", "wrist"]), [], []
    for channel in node.channels:
        channel.tick = lambda name=channel.name: ticked.append(name)
    node._diagnostics = SimpleNamespace(publish=reports.append)
    node._on_tick()
    node._report()
    assert ticked == ["front", "wrist"]
    assert {status.name.split(": ")[1] for status in reports[-1].status} == {"front", "wrist"}
    assert all(status.name.startswith("/sam2: ") for status in reports[-1].status)


def test_a_camera_that_cannot_be_looked_at_silences_neither_the_others_nor_the_diagnostics(make):
    node, ticked, reports = make(cameras=["front", "wrist"]), [], []
    node.channels[0].tick = lambda: ticked.append("front")
    node.channels[1].tick = lambda: 1 / 0
    node._report = lambda: reports.append(node._ticks)
    for _ in range(TICKS_PER_REPORT):
        node._on_tick()
    assert len(ticked) == TICKS_PER_REPORT and reports == [TICKS_PER_REPORT]
    failures = [channel.counters.failures for channel in node.channels]
    assert failures == [{}, {"callback: ZeroDivisionError": TICKS_PER_REPORT}]


def test_of_a_camera_that_cannot_be_looked_at_answered_requests_are_let_go(make):
    """Masks in them are large, and the trouble may last."""
    node, request = make(), Reset(lambda answer: None)
    node.channels[0].camera.tick = lambda: 1 / 0
    node.channels[0].inputs._posted.add(request)
    request.answer(Code.OK)
    node._on_tick()
    assert not node.channels[0].inputs._posted


def test_how_long_the_model_has_been_loading_is_counted_from_the_configuration(make):
    """A lifecycle manager may activate the node much later."""
    node, reports = make(), []
    node._diagnostics = SimpleNamespace(publish=reports.append)
    node._state, node._since_ns = "active", time.monotonic_ns()
    node._worker = worker(Phase.LOADING)
    node._worker.loading_since_ns = node._since_ns - 100 * 10**9
    node._report()
    assert any(status.message.startswith("loading the model for 10") for status in reports[-1].status)
    node._state, node._worker = "unconfigured", None


def test_a_camera_begins_anew_with_each_network(make):
    """The failures were another one's; what was counted since the start stays."""
    node = make()
    counters = node.channels[0].counters
    counters.failures_in_a_row = counters.processed = 3
    counters.late_in_a_row = counters.unpublished_in_a_row = 3
    assert node.trigger_configure() == SUCCESS
    assert (counters.failures_in_a_row, counters.processed) == (0, 3)
    assert (counters.late_in_a_row, counters.unpublished_in_a_row) == (0, 0)


def test_a_camera_that_is_off_or_never_came_takes_no_prompt_and_lists_all_the_same(make):
    node = make(cameras=["front"])
    channel = node.channels[0]
    assert channel.why_closed(needs_image=False)[0] is Code.NOT_ACTIVE
    node._state, node._worker = "active", worker(Phase.READY)
    channel.source.topic = "/front/image"
    code, sentence = channel.why_closed(needs_image=True)
    assert code is Code.NO_IMAGE and "/front/image" in sentence and channel.why_closed(needs_image=False) is None
    channel.counters.received = 1
    assert channel.why_closed(needs_image=True) is None, "whoever was there may come back"
    pipeline = channel.configure(threading.Condition(), transforms=None)
    assert pipeline._closed() is None and "nobody publishes /front/image" in pipeline._why_no_image()
    channel.enabled = False
    assert (
        channel.why_closed(needs_image=True)
        == pipeline._closed()
        == (Code.NOT_ACTIVE, "disabled: call ~/front/enable with true")
    )
    assert channel.why_closed(needs_image=False) is None
    channel.release()
    node._state, node._worker = "unconfigured", None


def test_names_of_topics_with_and_without_a_name_of_the_camera(make):
    for cameras, prefix in (([""], ""), (["front"], "front/")):
        channel = make(cameras=cameras, depth__enabled=True).channels[0]
        assert channel.input_name("image") == f"{prefix}image" and channel.output_name("tracks") == f"~/{prefix}tracks"
        assert (channel.depth._depth._topic, channel.depth._info._topic) == (
            f"{prefix}depth/image",
            f"{prefix}camera_info",
        )


def test_how_old_the_newest_result_is(make):
    channel = make().channels[0]
    assert channel.newest == NewestResult() and channel.newest.age_s == -1.0 and channel.newest.object_ids == []
    outputs = SimpleNamespace(newest=NewestResult(came_ns=time.monotonic_ns() - 100 * 10**9))
    channel._pipeline = SimpleNamespace(outputs=outputs)
    assert 100.0 <= channel.newest.age_s < 200.0
    channel._pipeline = None


def test_how_many_objects_there_are_is_reported_with_those_that_wait_for_an_image(make):
    channel = make().channels[0]
    for ids in ((), ("cup", "mug")):
        newest = NewestResult().with_restored(ids)
        channel._pipeline = SimpleNamespace(outputs=SimpleNamespace(newest=newest))
        values = {value.key: value.value for value in channel.statuses(Situation("active", "ready"))[1].values}
        assert values["objects"] == str(len(ids))
    channel._pipeline = None


def test_depth_is_kept_for_images_that_come_and_news_of_it_wake_only_whom_they_concern(make):
    channel, woken = make(depth__enabled=True).channels[0], []
    channel.camera._arrived(7)
    assert channel.depth.buffer._newest_image_ns == 7
    mailbox = SimpleNamespace(wake=lambda: woken.append(1))
    channel.look_again()
    for waits in (False, True):
        channel._pipeline = SimpleNamespace(outputs=SimpleNamespace(waits=waits), mailbox=mailbox)
        channel.depth._arrived()
    assert woken == [1]
    channel._pipeline = None


def test_a_report_says_whose_frame_it_is_of_and_who_else_has_its_name(make, rig):
    node = make(cameras=["front", "rear"])
    node.channels[0].camera.frame_id = "front_optical"
    reports, asked, names_of = [], [], node.get_node_names_and_namespaces
    node._diagnostics.publish = lambda message: reports.append(message.status)
    node.get_node_names_and_namespaces = lambda: asked.append(1) or names_of()
    node._report()
    assert [status.hardware_id for status in reports[0]] == ["front_optical"] * 3 + [""] * 3 and len(asked) == 1
    assert [status.name.split(": ")[:2] for status in reports[0][2:4]] == [["/sam2", "front"], ["/sam2", "rear"]]
    names = ("player_of_a_bag", ""), ("sam2", "/other_robot"), ("sam2", ""), ("sam2", "")
    others = [rclpy.create_node(name, namespace=namespace, context=rig.context) for name, namespace in names]
    rig.until(lambda: len(node.get_node_names()) == 2 + len(others))
    assert count_rivals(node) == 2, "two have its name and namespace, in whatever state it and they are"
    node._state, node._trouble = "active", ("ready", "")
    node._report()
    assert sum("2 more node(s) of this name" in status.message for status in reports.pop()) == 2, "once for each camera"
    for other in others:
        other.destroy_node()
    node.get_node_names_and_namespaces = lambda: (_ for _ in ()).throw(RuntimeError("empty node name"))
    node._report()
    assert len(reports) == 2 and count_rivals(node) == 0, "a nameless node somewhere silences nobody"


def test_a_class_for_which_there_is_no_value_is_told_in_the_log(make):
    node, told = make(classes=[f"class_{number}" for number in range(254)]), []
    channel = node.channels[0]
    channel.log = SimpleNamespace(warning=told.append)
    assert node.trigger_configure() == SUCCESS
    channel.pipeline.outputs._classes.learn(["class_7", "cup"])
    assert [sentence.partition(":")[0] for sentence in told] == ["class 'cup'"]


def test_a_detector_is_expected_as_soon_as_one_publishes(make, monkeypatch):
    node = make()
    assert node.trigger_configure() == SUCCESS
    channel = node.channels[0]
    monkeypatch.setattr(type(channel.inputs), "look_for_detector", lambda self: False)
    channel.tick()
    assert not channel.pipeline.auto.is_expected
    monkeypatch.setattr(type(channel.inputs), "look_for_detector", lambda self: True)
    channel.tick()
    assert channel.pipeline.auto.is_expected


def test_each_tick_looks_at_the_image_its_depth_and_the_requests(make, monkeypatch):
    """A depth camera that comes later, too, is heard as it offers itself."""
    channel, looked_at = make(depth__enabled=True).channels[0], []
    for name in ("camera", "depth", "inputs"):
        monkeypatch.setattr(getattr(channel, name), "tick", lambda name=name: looked_at.append(name))
    channel.tick()
    assert sorted(looked_at) == ["camera", "depth", "inputs"]


def test_neither_the_image_nor_its_depth_is_heard_once_the_inputs_are_closed(make, monkeypatch):
    channel, closed = make(depth__enabled=True).channels[0], []
    for name in ("camera", "depth"):
        monkeypatch.setattr(getattr(channel, name), "close", lambda name=name: closed.append(name))
    channel.close_inputs()
    assert sorted(closed) == ["camera", "depth"]


@pytest.mark.parametrize("latched", [False, True])
def test_who_subscribes_late_gets_what_is_latched_and_nothing_else(make, latched):
    node = make()
    publisher = node.channels[0]._create_output(VisibilityArray, "any", 3, latched)
    is_kept = publisher.qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL
    assert (publisher.topic_name, publisher.qos_profile.depth, is_kept) == ("/sam2/any", 3, latched)
    node.destroy_lifecycle_publisher(publisher)
