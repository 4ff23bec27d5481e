"""Random sequences of lifecycle transitions, service calls, prompts and images against the real node process, beside a
model of the state it must be in. `test_fuzz_pipeline.py` does the same to the worker's part, with failures."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from ros_rig import NodeProcess, click
from std_srvs.srv import SetBool, Trigger

from sam2_ros.msg import TrackArray
from sam2_ros.requests import Code
from sam2_ros.ros_time import time_message
from sam2_ros.srv import AddObjects, ListObjects, RemoveObjects

MOVES = {
    ("unconfigured", "configure"): "inactive",
    ("inactive", "activate"): "active",
    ("active", "deactivate"): "inactive",
    ("inactive", "cleanup"): "unconfigured",
}
UP = ("configure", "activate")
IDS = st.sampled_from(["a", "b", "c"])


def stamp_of(number: int):
    return time_message(1_000_000_000_000 + number * 10_000_000)  # as FakeCamera has it


class NodeMachine(RuleBasedStateMachine):
    rig = camera = None  # given by the test: one node process serves all examples
    number = 0  # of the next image; a smaller one would be a clock jump

    def __init__(self) -> None:
        super().__init__()
        for transition in ("deactivate", "cleanup"):
            self.rig.change_state(transition)
        self.state, self.tracked = self.rig.state(), set()
        assert self.state == "unconfigured"
        self.enable(True)
        for transition in ("configure", "activate"):
            self.change(transition)

    @property
    def serves(self) -> bool:
        return self.state == "active"

    @rule(transition=st.sampled_from([move for state, move in MOVES]))
    def try_to_change(self, transition):
        """Mostly what the state does not allow."""
        self.change(transition)

    @precondition(lambda self: not (self.serves and self.enabled))
    @rule()
    def go_on(self):
        self.enable(True)
        self.change(next((move for state, move in MOVES if state == self.state and move in UP), "activate"))

    @precondition(lambda self: self.serves)
    @rule()
    def begin_again(self):
        """The objects are gone."""
        self.add("a")
        for transition in ("deactivate", "cleanup", *UP):
            self.change(transition)
        self.see()

    def change(self, transition):
        after = MOVES.get((self.state, transition))
        assert self.rig.change_state(transition) is (after is not None)
        self.state = after or self.state
        if after == "active":
            self.rig.until(lambda: self.list().code != Code.LOADING)
        if after == "unconfigured":
            self.tracked = set()

    @rule(value=st.booleans())
    def enable(self, value):
        assert self.rig.call(SetBool, "/sam2/enable", SetBool.Request(data=value)).success
        self.enabled = value

    @rule(name=IDS)
    def add(self, name):
        future = self.rig.start_call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[click(name)]))
        type(self).number = self.camera.publish_until(future.done, first=self.number)
        answer = future.result()
        if self.serves and self.enabled:
            assert (answer.code, list(answer.object_ids)) == (Code.OK, [name]), answer.sentence
            self.tracked.add(name)
        else:
            assert answer.code == Code.NOT_ACTIVE

    @rule(names=st.lists(IDS, min_size=1, max_size=2, unique=True))
    def remove(self, names):
        answer = self.rig.call(RemoveObjects, "/sam2/remove_objects", RemoveObjects.Request(object_ids=names))
        unknown = sorted(set(names) - self.tracked)
        if not self.serves:
            assert answer.code == Code.NOT_ACTIVE
            return
        assert (answer.code, list(answer.unknown_ids)) == (Code.UNKNOWN_OBJECT if unknown else Code.OK, unknown)
        self.tracked -= set(names)

    @rule()
    def reset(self):
        assert self.rig.call(Trigger, "/sam2/reset").success is self.serves
        if self.serves:
            self.tracked = set()

    @rule()
    def see(self):
        """What comes out for images sent from now on is what the model says; so is the list."""
        if not (self.serves and self.enabled):
            return
        first, got = self.number, []
        subscription = self.rig.node.create_subscription(TrackArray, "/sam2/tracks", got.append, 10)

        def fresh():
            return [message for message in got if _key(message.header.stamp) >= _key(stamp_of(first))]

        type(self).number = self.camera.publish_until(fresh, first=first)
        self.rig.node.destroy_subscription(subscription)
        for message in fresh():
            assert {track.object_id for track in message.tracks} == self.tracked
            assert message.header.frame_id == "camera_optical"
        assert {track.object_id for track in self.list().objects} == self.tracked

    @invariant()
    def the_state_is_told(self):
        assert self.rig.state() == self.state
        assert self.list().code == (Code.OK if self.serves else Code.NOT_ACTIVE)

    def list(self):
        return self.rig.call(ListObjects, "/sam2/list_objects")


def _key(stamp) -> tuple[int, int]:
    return stamp.sec, stamp.nanosec


def test_any_sequence_leaves_the_node_in_the_state_it_must_be_in(rig):
    with NodeProcess(parameters={"autostart": False}) as node:
        NodeMachine.rig, NodeMachine.camera = rig, rig.camera()
        rules = settings(
            max_examples=12, stateful_step_count=30, suppress_health_check=list(HealthCheck),
            derandomize=True,
        )  # fmt: skip
        run_state_machine_as_test(NodeMachine, settings=rules)
        node.end()
