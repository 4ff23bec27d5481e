"""What once ended the node, or kept it from starting: things of rclpy, of the surroundings, of the machine."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from fakes import FakeTracker
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.task import Future
from ros_rig import HERE, PATIENCE_S, NodeProcess, children_path, start_tracking
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2_ros import camera as camera_module
from sam2_ros import log_files, main
from sam2_ros.channel import Channel
from sam2_ros.node import TrackNode
from sam2_ros.requests import Answer, Code, Reset
from sam2_ros.srv import SaveObjects

pytestmark = pytest.mark.ros
FAILURE = "failed: callback: ValueError"


@pytest.fixture
def inside(rig):
    """A node that nobody spins."""
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    yield node
    node.stop()
    node.destroy_node()


def test_what_rclpy_raises_costs_one_call_and_is_counted(rig):
    """A parameter of no type, and a /clock before 1970."""
    with NodeProcess(parameters={"use_sim_time": True}) as node:
        camera, said = rig.camera(), rig.diagnostics()
        number = start_tracking(rig, camera, "cup")
        nothing = Parameter(name="target", value=ParameterValue(type=99))
        rig.start_call(SetParameters, "/sam2/set_parameters", SetParameters.Request(parameters=[nothing]))
        clock = rig.node.create_publisher(Clock, "/clock", 1)
        before_1970 = Clock(clock=Time(sec=-1))

        def counted() -> int:
            values = [pair for message in said for status in message.status for pair in status.values]
            return max((int(pair.value) for pair in values if pair.key == FAILURE), default=0)

        number = camera.publish_until(lambda: counted() == 1, first=number)
        # Again and again: the node hears /clock with best effort.
        camera.publish_until(lambda: clock.publish(before_1970) or counted() > 1, first=number)
        node.signal(signal.SIGTERM)
        assert node.exit_code() == 0
    assert node.output.count("Traceback") == 1 and "more of this kind are only counted" in node.output


def test_a_wrong_transition_is_answered_also_where_rclpy_raises(rig, inside, monkeypatch):
    """As Jazzy's does, if it is asked for by number, as a lifecycle manager does."""

    def raises(node, transition_id):
        raise rclpy_implementation.RCLError("Transition is not registered")

    monkeypatch.setattr(LifecycleNode, "_LifecycleNodeMixin__change_state", raises)
    rig.executor.add_node(inside)
    cleanup = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CLEANUP))
    assert not rig.call(ChangeState, "/sam2/change_state", cleanup).success and rig.state() == "unconfigured"
    rig.executor.remove_node(inside)


def test_an_output_that_cannot_be_made_is_told_and_leaves_none_of_those_before_it(rig, monkeypatch):
    """As one that is remapped to a topic of another type. The second camera's, at every try of a lifecycle manager."""
    cameras = ["--ros-args", "-p", "cameras:=[front, wrist]"]
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context, cli_args=cameras)
    make, before, told = node.create_lifecycle_publisher, len(list(node.publishers)), []
    node._diagnostics = SimpleNamespace(publish=told.append)

    def refuse(kind, topic, *args, **kwargs):
        return 1 / 0 if topic == "~/wrist/overlay" else make(kind, topic, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(node, "create_lifecycle_publisher", refuse)
        for _ in range(2):
            assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
            assert len(list(node.publishers)) == before
    assert "division by zero; start the node again" in node.why_closed()[1]
    node._report()
    assert [status.message for status in told[-1].status if status.level == b"\x02"] == ["division by zero"] * 2
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    names = [publisher.topic_name for publisher in node.publishers]
    assert len(set(names)) == len(names) > before
    node.stop()
    assert len(list(node.publishers)) == before
    node.destroy_node()


def test_an_input_that_cannot_be_made_is_told_until_it_can(inside, monkeypatch):
    """As one that is remapped to a topic of another type."""
    told = []
    inside._diagnostics = SimpleNamespace(publish=told.append)

    def errors():
        inside._report()
        return [status.message for status in told[-1].status if status.level == b"\x02"]

    assert inside.trigger_configure() == TransitionCallbackReturn.SUCCESS
    with monkeypatch.context() as patch:
        patch.setattr(inside.channels[0].camera, "open", lambda mailbox: 1 / 0)
        assert inside.trigger_activate() == TransitionCallbackReturn.FAILURE
    steps = "start the node again or, if no parameter has to change, activate it"
    assert inside.why_closed()[1] == f"division by zero; {steps}"
    assert errors() == ["division by zero"]
    assert inside.trigger_activate() == TransitionCallbackReturn.SUCCESS and "division by zero" not in errors()
    assert inside.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert inside.why_closed()[1] == "the node is inactive; activate it (ros2 lifecycle set)"


@pytest.mark.parametrize("reached", [0, 1, 2])
def test_a_node_that_was_stopped_is_not_brought_up_again(inside, reached):
    """By requests of a lifecycle manager that are answered while the process says farewell."""
    (service,) = (one for one in inside.services if one.srv_type is ChangeState)
    up, down = ("configure", "activate"), ("deactivate", "cleanup")

    def succeeds(label):
        return service.callback(ChangeState.Request(transition=Transition(label=label)), ChangeState.Response()).success

    assert all(map(succeeds, up[:reached]))
    inside.stop()
    for label in (*down, *up):
        assert not succeeds(label)
        assert inside._worker is None and inside.why_closed()[0] is Code.STOPPING


@pytest.mark.parametrize("broken", ["close_inputs", "close", "release"])
def test_an_error_while_it_stops_leaves_no_request_unanswered_and_no_worker(rig, monkeypatch, broken):
    """One camera's answer that cannot be delivered, or whatever else: otherwise the process would end at once."""
    cameras = ["--ros-args", "-p", "cameras:=[front, wrist]"]
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context, cli_args=cameras)
    node.autostart()
    answers, worker = [], node._worker
    front, wrist = (channel.inputs for channel in node.channels)
    front._posted |= {Reset(lambda answer: 1 / 0), Reset(answers.append), Reset(lambda answer: 1 / 0)}
    wrist._posted.add(Reset(answers.append))
    with monkeypatch.context() as patch:
        original, calls = getattr(Channel, broken), []

        def once(channel, *args, **kwargs):
            calls.append(channel)
            return original(channel, *args, **kwargs) if len(calls) > 1 else 1 / 0

        patch.setattr(Channel, broken, once)
        assert node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
    node.stop()  # by the process, when it ends
    assert [answer.code for answer in answers] == [Code.STOPPING] * 2
    assert node._worker is None and not worker._thread.is_alive()
    node.destroy_node()


@pytest.mark.parametrize("closed", [(1,), (1, 2)])
def test_it_needs_nobody_to_talk_to(rig, closed):
    def close() -> None:
        for number in closed:
            os.close(number)

    command = [sys.executable, str(HERE / "fake_node.py"), "{}"]
    environment = os.environ | {"PYTHONPATH": children_path()}
    process = subprocess.Popen(command, preexec_fn=close, cwd=HERE.parent, env=environment)
    try:
        rig.wait_for_state("active")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


def test_a_disk_that_is_full_of_what_was_said_does_not_keep_it_from_starting(monkeypatch):
    class Full:
        def write(self, text):
            raise OSError("No space left on device")

    monkeypatch.setenv("ROS_LOG_DIR", "/proc/no/such/place")
    monkeypatch.setattr(sys, "stderr", Full())
    assert log_files.log_arguments() == ["--ros-args", "--disable-external-lib-logs"]


def test_when_nothing_works_any_more_it_ends(monkeypatch):
    """A supervisor must see it; one good round in between and it goes on."""
    noted, stopped = [], SimpleNamespace(came=False)
    node = SimpleNamespace(
        settings=SimpleNamespace(autostart=True), autostart=lambda: None, done=Future(),
        note_failure=noted.append, stop=lambda: None, has_waiting_clients=False, destroy_node=lambda: None,
        **dict.fromkeys(("subscriptions", "services", "clients", "timers", "guards", "waitables"), ()),
    )  # fmt: skip

    class Broken:
        rounds = 0

        def add_node(self, node): ...
        def shutdown(self): ...

        def spin_once(self, timeout_sec):
            Broken.rounds += 1
            if Broken.rounds != 10:
                raise ValueError("broken")

    monkeypatch.setattr(main, "_make_node", lambda *_: node)
    monkeypatch.setattr("rclpy.executors.SingleThreadedExecutor", Broken)
    assert main._live(stopped, [], None) == 1
    assert Broken.rounds == main.TOO_MANY + 10 and len(noted) == main.TOO_MANY + 9


def test_what_cannot_be_taken_is_not_the_last(inside, rig, monkeypatch):
    """No memory for an image, say. rclpy leaves it marked as being served, and all that share its group."""
    executor = SingleThreadedExecutor(context=rig.context)
    executor.add_node(inside)
    with monkeypatch.context() as patch:
        patch.setattr(executor, "_take_timer", lambda timer: (_ for _ in ()).throw(MemoryError))
        while main._spin(inside, executor, timeout_s=1.0):
            pass
    ticks, rounds = inside._ticks, 0
    while inside._ticks < ticks + 3 and rounds < 100:
        main._spin(inside, executor, timeout_s=0.2)
        rounds += 1
    executor.shutdown()
    assert rounds < 100 and inside.channels[0].counters.failures == {"callback: MemoryError": 1}


def test_a_path_that_is_no_utf8_can_be_told(inside, monkeypatch):
    async def saved(make):
        return Answer(Code.OK, object_ids=("a",))

    services, response = inside.channels[0].inputs.services, SaveObjects.Response()
    monkeypatch.setattr(services, "_post", saved)
    monkeypatch.setattr(inside.channels[0], "saved_path", lambda name: Path("/m\udcfcller") / name)
    with pytest.raises(StopIteration):
        services._save(SaveObjects.Request(name="kitchen"), response).send(None)
    assert response.path == "/m\\udcfcller/kitchen" and response.object_ids == ["a"]


@pytest.mark.parametrize("came_s", [{1000: 10, 4600: 3610}, {1000: 10, 1001: 3609, 4600: 3610}])
def test_a_machine_that_was_suspended_begins_no_new_stream(inside, monkeypatch, came_s):
    """Its stamps go on meanwhile, and Linux's CLOCK_MONOTONIC does not; what was on its way comes first. came_s: when
    an image of that stamp comes."""
    clock, taken = iter([seconds * 10**9 for seconds in came_s.values()]), []
    monkeypatch.setattr(camera_module, "steady_ns", lambda: next(clock))
    camera = inside.channels[0].camera
    camera._mailbox = SimpleNamespace(post_image=taken.append, discard_image=lambda: False)
    for seconds in came_s:
        header = Header(stamp=Time(sec=seconds))
        camera._on_image(Image(header=header, height=20, width=20, step=60, encoding="rgb8", data=bytes(1200)))
    assert [arrival.new_stream for arrival in taken] == [False] * len(came_s)
