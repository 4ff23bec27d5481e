"""The node as a process, over real DDS: lifecycle states, signals and exit codes."""

import gc
import os
import signal
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from fakes import FakeTracker
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_rig import NodeProcess, click, start_tracking
from std_srvs.srv import Trigger

import sam2
from sam2_ros.msg import TrackArray
from sam2_ros.node import NETWORK_ENDING, TrackNode
from sam2_ros.requests import Add, Code, Remove
from sam2_ros.srv import AddObjects, ListObjects, RemoveObjects
from sam2_ros.worker import Phase

pytestmark = pytest.mark.ros


HOW = "start the node again or, if no parameter has to change, configure and activate it"


def failing(settings):
    raise sam2.BadCheckpoint("weights.pt: no such file")


def test_a_model_that_does_not_load_takes_the_node_back_and_the_reason_stays_visible(rig):
    with NodeProcess(tracker={"load_error": "weights.pt is not there; run sam2_ros weights"}) as node:
        rig.wait_for_state("unconfigured")
        said = rig.diagnostics()
        rig.until(lambda: any("run sam2_ros weights" in s.message for m in said for s in m.status))
        refused = rig.call(ListObjects, "/sam2/list_objects")
        assert refused.code == Code.NOT_ACTIVE and "run sam2_ros weights" in refused.sentence
        assert rig.change_state("configure")
        node.end()


def test_a_wrong_model_name_fails_to_configure(rig):
    with NodeProcess(parameters={"model": "giant", "autostart": False}) as node:
        assert not rig.change_state("configure")
        assert rig.state() == "unconfigured"
        assert "giant" in rig.call(ListObjects, "/sam2/list_objects").sentence
        node.end()
        assert "giant" in node.output


def test_a_model_that_fails_before_the_node_is_active_is_said_once_and_as_what_it_is(rig):
    node = TrackNode(failing, context=rig.context)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    node._worker._thread.join()
    said = []
    node._logger = SimpleNamespace(error=said.append)
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE and not said
    node._on_worker_changed()
    assert len(said) == 1 and "no such file" in said[0] and node._state == "unconfigured"
    code, sentence = node.why_closed()
    assert code == Code.NOT_ACTIVE and sentence == said[0] and sentence.endswith(HOW)
    node.destroy_node()


def test_a_network_that_fails_while_it_is_ending_is_not_waited_for_in_silence(rig, monkeypatch):
    monkeypatch.setattr("sam2_ros.node.STOP_TIMEOUT_S", 0.0)
    loaded = threading.Event()
    node = TrackNode(lambda settings: loaded.wait() and failing(settings), context=rig.context)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_cleanup() == TransitionCallbackReturn.FAILURE
    loaded.set()
    node._worker._thread.join()
    said = []
    node._logger = SimpleNamespace(error=said.append)
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert said == [NETWORK_ENDING] == [node.why_closed()[1]]
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node.why_closed()[1] == "the node is unconfigured; configure and activate it (ros2 lifecycle set)"
    node.destroy_node()


def test_a_wrong_transition_is_refused_and_survived(rig):
    with NodeProcess() as node:
        rig.wait_for_state("active")
        assert not rig.change_state("configure") and not rig.change_state("nonsense")
        assert rig.state() == "active"
        node.end()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize("situation", ["unconfigured", "inactive", "active", "loading", "inference", "service"])
def test_a_signal_ends_it_well_in_every_state(rig, situation, number):
    tracker = {"loading": {"load": 3600}, "inference": {"delay": 3600}}.get(situation, {})
    parameters = {"autostart": situation not in ("unconfigured", "inactive"), "prompt_wait_s": 60.0, "max_age_s": 0.05}
    with NodeProcess(tracker, parameters) as node:
        answers = []
        if situation == "inactive":
            assert rig.change_state("configure")
        elif situation != "unconfigured":
            rig.wait_for_state("active")
        if situation in ("inference", "service"):
            camera = rig.camera()
            camera.wait_for_subscriber()
            rig.until(lambda: rig.call(ListObjects, "/sam2/list_objects").code == Code.OK)
            answers.append(rig.start_call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[click()])))
            if situation == "inference":
                said = rig.diagnostics()
                camera.publish_until(lambda: any("busy with one image" in s.message for m in said for s in m.status))
                answers.append(rig.start_call(RemoveObjects, "/sam2/remove_objects"))
                answers.append(rig.start_call(Trigger, "/sam2/reset"))
            rig.call(ListObjects, "/sam2/list_objects")  # so that the other calls have arrived
        rig.state()
        node.signal(number)
        assert node.exit_code() == 0, node.output
        assert "Traceback" not in node.output, node.output
        for answer in answers:
            rig.until(answer.done)
            assert "the node is stopping" in str(answer.result())


def test_a_lost_device_ends_the_process_with_its_own_code(rig):
    with NodeProcess(tracker={"raise_on": {"step": "DeviceLost"}}) as node:
        camera = rig.camera()
        camera.wait_for_subscriber()
        camera.publish_until(lambda: node.process.poll() is not None)
        assert node.exit_code() == 70
        assert "told to step" in node.output and "Traceback" not in node.output


def test_objects_survive_deactivation_and_nothing_comes_out_meanwhile(rig):
    with NodeProcess(tracker={"delay": 0.2}) as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a")
        got = rig.collect(TrackArray, "/sam2/tracks")
        number = camera.publish_until(lambda: got, first=number)
        camera.publish(number)  # is being processed while the node is deactivated
        assert rig.change_state("deactivate")
        rig.call(ListObjects, "/sam2/list_objects")  # a round trip: what was published before the answer is here, too
        before = len(got)
        for _ in range(3):
            assert rig.call(ListObjects, "/sam2/list_objects").code == Code.NOT_ACTIVE
        assert len(got) == before
        assert rig.change_state("activate")
        camera.wait_for_subscriber()
        newest = got[-1].header.stamp
        camera.publish_until(lambda: got[-1].header.stamp != newest, first=number + 1)
        stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in got]
        assert stamps == sorted(stamps) and [t.object_id for t in got[-1].tracks] == ["a"]
        node.end()


def test_a_prompt_that_waits_for_an_image_is_answered_when_the_node_is_deactivated(rig):
    with NodeProcess() as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a")
        late = click("b", stamp=camera.message(number + 5).header.stamp)
        asked = rig.start_call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[late]))
        rig.call(ListObjects, "/sam2/list_objects")  # a round trip: the prompt has come
        assert rig.change_state("deactivate")
        rig.until(asked.done)
        assert asked.result().code == Code.STOPPING
        node.end()


def test_what_waits_behind_a_prompt_that_is_given_up_at_deactivation_does_not_wait_for_its_deadline(rig):
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    (channel,) = node.channels
    channel.configure(threading.Condition(), transforms=None)
    answers = []
    channel.inputs.post_request(Add([], 2**62, lambda answer: answers.append(answer.code)))
    channel.inputs.post_request(Remove(["cup"], lambda answer: answers.append(answer.code)))
    assert len(channel.pipeline.mailbox.take().requests) == 2 and not channel.pipeline.mailbox.has_work
    channel.close()
    assert answers == [Code.STOPPING] and channel.pipeline.mailbox.has_work
    channel.release()
    node.destroy_node()


def test_ten_rounds_of_the_whole_lifecycle(rig):
    with NodeProcess(parameters={"autostart": False}) as node:
        for transition in ("configure", "activate", "deactivate", "cleanup") * 10:
            assert rig.change_state(transition), transition
        assert rig.change_state("configure") and rig.change_state("activate")
        start_tracking(rig, rig.camera(), "a")
        node.end()
        assert node.output.count("autostart is false: a lifecycle manager") == 1


def test_a_network_that_hangs_is_said_everybody_is_answered_and_the_node_can_be_stopped(rig):
    parameters = {"hang_after_s": 0.5, "prompt_wait_s": 0.5}
    with NodeProcess(tracker={"delay": 3600}, parameters=parameters) as node:
        camera, said = rig.camera(), rig.diagnostics()
        camera.wait_for_subscriber()
        camera.publish_until(lambda: any("busy with one image" in s.message for m in said for s in m.status))
        add = rig.call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[click()]))
        reset = rig.call(Trigger, "/sam2/reset")
        assert add.code == Code.INTERNAL and "hangs" in add.sentence and "hangs" in reset.message
        assert rig.change_state("deactivate") and not rig.change_state("cleanup") and rig.state() == "inactive"
        node.end()


@pytest.mark.slow
def test_a_cleanup_that_ran_out_of_patience_leaves_no_node_that_looks_alive(rig):
    """It has told the worker to end; activated, the node would take images for ever and answer nothing."""
    with NodeProcess(tracker={"slow_on": [0, 1, 12.0]}, parameters={"hang_after_s": 0.2}) as node:
        camera, said = rig.camera(), rig.diagnostics()
        camera.wait_for_subscriber()
        camera.publish_until(lambda: any("busy with one image" in s.message for m in said for s in m.status))
        assert rig.change_state("deactivate") and not rig.change_state("cleanup")
        assert not rig.change_state("activate") and rig.state() == "inactive"
        rig.until(lambda: rig.change_state("cleanup"))
        assert rig.change_state("configure") and rig.change_state("activate")
        rig.until(lambda: rig.call(ListObjects, "/sam2/list_objects").code == Code.OK)
        node.end()


@pytest.mark.slow
def test_a_thousand_lifecycles_leave_nothing_behind(rig):
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    rig.executor.add_node(node)

    def cycle(times):
        for _ in range(times):
            for trigger in (
                node.trigger_configure,
                node.trigger_activate,
                node.trigger_deactivate,
                node.trigger_cleanup,
            ):
                assert trigger() == TransitionCallbackReturn.SUCCESS
                rig.spin_some()
        gc.collect()
        entities = len(list(node.publishers)), len(list(node.subscriptions)), len(node._managed_entities)
        return threading.active_count(), len(os.listdir("/proc/self/fd")), entities, len(gc.get_objects())

    threads, files, entities, objects = cycle(20)
    cycles = 1000
    assert cycle(cycles)[:3] == (threads, files, entities)
    # One object more per cycle would be a leak; the interpreter's own caches move by a few.
    assert cycle(0)[3] - objects < cycles // 2
    rig.executor.remove_node(node)
    node.destroy_node()


def test_lifecycles_with_the_network_leave_no_tensor(rig):
    pytest.importorskip("torch", reason="the network needs torch")
    from small_stream import live_tensors

    override = [Parameter("device", value="cpu")]
    node = TrackNode(context=rig.context, parameter_overrides=override)
    rig.executor.add_node(node)

    def cycle(times: int) -> tuple[int, int]:
        for _ in range(times):
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
            rig.until(lambda: node._worker.phase is not Phase.LOADING)
            assert node._worker.phase is Phase.READY
            for trigger in (node.trigger_activate, node.trigger_deactivate, node.trigger_cleanup):
                assert trigger() == TransitionCallbackReturn.SUCCESS
        return live_tensors()

    assert cycle(2) == cycle(10)
    rig.executor.remove_node(node)
    node.destroy_node()
