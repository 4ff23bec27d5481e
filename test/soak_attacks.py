"""The soak's attacks on the node: malformed images, calls, prompts, lifecycles, parameters, subscribers.

Everything is asynchronous: an attack sends and returns, answers are counted when they come. `Attacks` also keeps the
node busy: it prompts objects whenever there are too few.
"""

import random
import time
from collections import Counter

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from sam2_ros.msg import Prompt
from sam2_ros.srv import AddObjects, ListObjects, RemoveObjects

OBJECTS = 2  # tracked in normal operation, after the busy start
SERVICES = {
    "add_objects": AddObjects, "remove_objects": RemoveObjects, "list_objects": ListObjects, "reset": Trigger,
    "enable": SetBool, "change_state": ChangeState, "set_parameters": SetParameters,
}  # fmt: skip
MALFORMED = [
    dict(encoding="32FC1"), dict(step=7), dict(height=17), dict(width=0), dict(width=65_000, height=65_000),
    dict(encoding=""),
]  # fmt: skip
BAD_PROMPTS = [
    Prompt(object_id="x"), Prompt(object_id="x", points_xy=[float("nan"), 1.0], point_labels=[1]),
    Prompt(object_id="x", points_xy=[1e9, 1.0], point_labels=[1]), Prompt(object_id="x", points_xy=[1.0]),
    Prompt(object_id="x", box_xyxy=[9.0, 9.0, 1.0, 1.0]), Prompt(points_xy=[5.0, 5.0], point_labels=[0]),
]  # fmt: skip


class Attacks:
    """soak: the `Soak` that runs them."""

    def __init__(self, soak) -> None:
        self.soak, self.done, self.name = soak, Counter(), ""
        self.calls = self.unanswered = 0
        self._random = random.Random(soak.options.seed)
        self._spoilt = 0  # images still to be malformed
        self._later: list[tuple[float, object]] = []  # (due time, callable)
        self._adding, self._busy = False, False
        self._prompts = soak.rig.node.create_publisher(Prompt, "/sam2/prompts", QoSProfile(depth=10))
        self._all = [
            self.malformed_images, self.bad_prompts, self.flood, self.removal, self.reset, self.pause,
            self.deactivation, self.whole_lifecycle, self.bad_parameter, self.more_listeners,
            self.other_reliability, self.camera_returns,
        ]  # fmt: skip
        self._order: list = []
        self.objects = OBJECTS  # if fewer are tracked, `tick` prompts again

    def connect(self) -> None:
        for name, kind in SERVICES.items():
            harmless = {"set_parameters": SetParameters.Request(), "enable": SetBool.Request(data=True)}
            future = self.soak.rig.start_call(kind, f"/sam2/{name}", harmless.get(name))
            self.soak.rig.until(future.done)

    def next(self) -> None:
        """Starts the next attack: all kinds once in random order, then again."""
        if not self._order:
            self._order = self._random.sample(self._all, len(self._all))
        attack = self._order.pop()
        self.name = attack.__name__
        self.done[self.name] += 1
        attack()

    def tick(self) -> None:
        """Runs what is due; prompts objects if there are too few."""
        due = [what for when, what in self._later if when <= time.monotonic()]
        self._later = [(when, what) for when, what in self._later if when > time.monotonic()]
        for what in due:
            what()
        if not self._adding and not self._busy and len(self.soak.tracked) < self.objects:
            self._adding = True
            self.call("add_objects", AddObjects.Request(prompts=self._truths()), self._added)

    def restore(self) -> None:
        self._spoilt, self._busy = 0, True  # no more prompts
        self.call("enable", SetBool.Request(data=True))

    def spoil(self, msg: Image) -> Image:
        if self._spoilt > 0:
            self._spoilt -= 1
            for field, value in MALFORMED[self._spoilt % len(MALFORMED)].items():
                setattr(msg, field, value)
        return msg

    def call(self, name: str, request, then=lambda: None) -> None:
        """Calls a service and counts the call as unanswered until its response arrives; then calls `then`."""
        self.calls += 1
        self.unanswered += 1

        def answered(future) -> None:
            self.unanswered -= 1
            then()

        self.soak.rig.clients[f"/sam2/{name}"].call_async(request).add_done_callback(answered)

    def after(self, seconds: float, what) -> None:
        self._later.append((time.monotonic() + seconds, what))

    def _added(self) -> None:
        self.after(2.0, lambda: setattr(self, "_adding", False))  # time for the result to arrive

    def _truths(self) -> list[Prompt]:
        """Boxes around the objects visible in the current image."""
        truth, prompts = self.soak.truth(), []
        for number, (mask, visible) in enumerate(zip(truth.masks, truth.visible, strict=True)):
            if visible and len(prompts) < self.objects:
                rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
                box = [float(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
                prompts.append(Prompt(object_id=f"thing {number}", box_xyxy=box))
        return prompts or [Prompt(points_xy=[160.0, 120.0], point_labels=[1])]

    def _transitions(self, *labels: str) -> None:
        """Requests the transitions in order, each a second after the response to the one before."""
        self._busy = bool(labels)
        if labels:
            request = ChangeState.Request(transition=Transition(label=labels[0]))
            self.call("change_state", request, lambda: self.after(1.0, lambda: self._transitions(*labels[1:])))

    def malformed_images(self) -> None:
        self._spoilt = 30

    def bad_prompts(self) -> None:
        for prompt in BAD_PROMPTS:
            self._prompts.publish(prompt)
            self.call("add_objects", AddObjects.Request(prompts=[prompt]))

    def flood(self) -> None:
        for _ in range(1000):
            self._prompts.publish(Prompt(object_id="flood", points_xy=[100.0, 100.0], point_labels=[1]))
        self.after(5.0, lambda: self.call("remove_objects", RemoveObjects.Request(object_ids=["flood"])))

    def removal(self) -> None:
        self.call("remove_objects", RemoveObjects.Request(object_ids=[*self.soak.tracked, "nobody"]))

    def reset(self) -> None:
        self.call("reset", Trigger.Request())

    def pause(self) -> None:
        self.call("enable", SetBool.Request(data=False))
        self.after(5.0, lambda: self.call("enable", SetBool.Request(data=True)))

    def deactivation(self) -> None:
        self._transitions("deactivate", "activate")

    def whole_lifecycle(self) -> None:
        self._transitions("deactivate", "cleanup", "configure", "activate")

    def bad_parameter(self) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=1e9)
        self.call("set_parameters", SetParameters.Request(parameters=[Parameter(name="hang_after_s", value=value)]))

    def more_listeners(self) -> None:
        """Subscribes to every image output for a while."""
        node, kinds = self.soak.rig.node, {"overlay": Image, "label_mask": Image, "overlay/compressed": CompressedImage}
        listeners = [
            node.create_subscription(kind, f"/sam2/{topic}", lambda msg: None, QoSProfile(depth=1))
            for topic, kind in kinds.items()
        ]
        self.after(10.0, lambda: [node.destroy_subscription(listener) for listener in listeners])

    def other_reliability(self) -> None:
        self.soak.offer(reliable=False)
        self.after(10.0, lambda: self.soak.offer(reliable=True))

    def camera_returns(self) -> None:
        self.soak.offer(reliable=True)
