"""The lifecycle node: its states, and what each means for the cameras and the one worker.

Unconfigured: services answer that they cannot serve. Inactive: a worker loads the model and waits. Active: images come
in, results go out. Deactivating keeps the objects, cleaning up releases the model. Callbacks never wait for the
network, except for up to two seconds at cleanup and shutdown.
"""

import functools
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.task import Future

import sam2
from sam2_ros import vision
from sam2_ros.channel import Channel
from sam2_ros.declare_params import declare
from sam2_ros.health import Situation, silence
from sam2_ros.invalid_transitions import answer_invalid_transitions
from sam2_ros.load_tracker import MakeTracker, load_tracker
from sam2_ros.params import Settings, changed
from sam2_ros.rcl_errors import with_hints
from sam2_ros.readable import readable, reason_of
from sam2_ros.refused import Refused
from sam2_ros.requests import Code
from sam2_ros.rivals import count_rivals
from sam2_ros.simulated_time import SimulatedTime
from sam2_ros.transforms import Transforms
from sam2_ros.worker import Phase, Worker

TICK_S = 0.2  # how often the publishers of the image are checked
TICKS_PER_REPORT = 5
STOP_TIMEOUT_S = 2.0  # to finish the current image
NETWORK_ENDING = "the network is ending; call cleanup again, then configure and activate"
EXIT_DEVICE_LOST = 70


def _transition(callback: Callable) -> Callable:
    """Makes a transition log its exceptions, which rclpy swallows, and return the node to the previous state. After
    `stop` no transition succeeds any more."""

    @functools.wraps(callback)
    def guarded(self: "TrackNode", state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(self, state) if self._state != "finalized" else TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().error(f"{callback.__name__} failed:\n{traceback.format_exc()}")
            self._undo(state, error)
            return TransitionCallbackReturn.FAILURE

    return guarded


class TrackNode(LifecycleNode):
    """Images in, tracks out, for each of its cameras; `channels` has one for each, in order. `done` gets an exit code
    once only a new process can continue.

    make_tracker: called with the settings, in the worker's thread. kwargs: for `LifecycleNode`.
    """

    DEFAULT_NAME = "sam2"

    def __init__(self, make_tracker: MakeTracker = load_tracker, **kwargs: Any) -> None:
        super().__init__(self.DEFAULT_NAME, **kwargs)
        answer_invalid_transitions(self)
        self.done: Future[int] = Future()
        self.settings = declare(self, self._on_settings)
        self._make_tracker = make_tracker
        self._worker: Worker | None = None
        self._transforms: Transforms | None = None
        self._state, self._since_ns = "unconfigured", time.monotonic_ns()
        self._trouble: tuple[str, str] = ("", "")  # phase and sentence of a worker or transition that failed
        self.simulated_time = SimulatedTime(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=1))
        self.channels = [Channel(self, name) for name in self.settings.cameras]
        self._worker_changed = self.create_guard_condition(self._on_worker_changed)
        # On a steady clock: a paused simulation must not silence the diagnostics.
        self._ticks, self._silent = 0, [(False, False)] * len(self.channels)
        self.create_timer(TICK_S, self._on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def autostart(self) -> None:
        """Configures and activates; a failure is logged and shown in the diagnostics."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    @_transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._trouble = ("", "")
        try:
            sam2.find_config(self.settings.model)  # the one mistake that can be found without loading anything
            target = self.settings.depth_target_frame if self.settings.depth_enabled else ""
            self._transforms = transforms = Transforms(self, target, self._on_transforms)
        except (sam2.BadInput, Refused) as error:
            self._trouble = ("failed", str(error))
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        if not vision.INSTALLED and (asked := changed(self.settings, "detector")):
            self.get_logger().warning(f"{asked[0]} is set, and there are no detections: install vision_msgs")
        bell = threading.Condition()
        pipelines = [channel.configure(bell, transforms) for channel in self.channels]
        load = functools.partial(self._make_tracker, self.settings)
        self._worker = Worker(load, pipelines, self._worker_changed.trigger, self.get_logger())
        self._worker.start()
        return self._enter("inactive")

    @_transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._worker is None or not self._worker.can_serve:
            if self._is_ending:  # otherwise `_on_worker_changed` will say what went wrong
                self.get_logger().error(NETWORK_ENDING)
            return TransitionCallbackReturn.FAILURE
        super().on_activate(state)
        for channel in self.channels:
            channel.open()
        self._trouble = ("", "")
        return self._enter("active")

    @_transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        for channel in self.channels:
            channel.close()
        super().on_deactivate(state)
        return self._enter("inactive")

    @_transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        if not self._release():
            self.get_logger().error(f"the network is still busy after {STOP_TIMEOUT_S} s; try again")
            return TransitionCallbackReturn.FAILURE
        return self._enter("unconfigured")

    @_transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called if a transition fails and cannot be undone: closes and releases whatever it can."""
        ended = [self._attempt(channel.close) for channel in self.channels]
        released = self._attempt(self._release)
        if all(ended) and released and self._worker is None:
            return self._enter("unconfigured")
        self._enter("finalized")
        return TransitionCallbackReturn.FAILURE

    def stop(self) -> None:
        """Stops the worker, in any state, if it ends in time, and answers all requests. No results come afterwards.
        Logs what fails and goes on."""
        for channel in self.channels:
            self._attempt(channel.close_inputs)
        self._enter("finalized")
        self._attempt(self._release)
        for channel in self.channels:
            self._attempt(functools.partial(channel.close, for_good=True))
        self._attempt(self.simulated_time.close)

    @property
    def has_waiting_clients(self) -> bool:
        """Whether any service still owes a response."""
        return any(channel.inputs.services.waiting_clients for channel in self.channels)

    @property
    def is_hanging(self) -> bool:
        """Whether the network has been busy with one turn for longer than `hang_after_s`."""
        began_ns = self._worker.turn_since_ns if self._worker is not None else 0
        return began_ns > 0 and time.monotonic_ns() - began_ns > self.settings.hang_after_s * 1e9

    def why_closed(self) -> tuple[Code, str] | None:
        """Why no request of any camera can be served at the moment; None if requests can be served."""
        if self._state == "finalized":
            return Code.STOPPING, "the node is shutting down"
        if self._state != "active" or self._worker is None:
            return Code.NOT_ACTIVE, self._how_to_activate()
        if self._worker.phase is Phase.LOADING:
            return Code.LOADING, "the model is being loaded; ask again"
        if self._worker.phase is not Phase.READY:
            return Code.INTERNAL, self._worker.sentence
        return None

    def note_failure(self, error: Exception) -> None:
        """Counts an exception around a callback, whose caller may get no answer, in the first camera's counters."""
        self.channels[0].counters.note_failure("callback", error, self.get_logger())

    def _how_to_activate(self) -> str:
        if self._is_ending:
            return NETWORK_ENDING
        phase, reason = self._trouble
        if phase == Phase.DEVICE_LOST.value:
            return reason
        has_failed = self._worker is not None and not self._worker.can_serve
        steps = "configure and activate it" if has_failed or self._state == "unconfigured" else "activate it"
        if reason:
            return f"{reason}; start the node again or, if no parameter has to change, {steps}"
        return f"the node is {self._state}; {steps} (ros2 lifecycle set)"

    @property
    def _is_ending(self) -> bool:
        """Whether the worker was told to stop and has not been released yet."""
        return self._worker is not None and self._worker.is_stopping

    def _attempt(self, end: Callable[[], object]) -> bool:
        """Calls `end`; False, with the traceback logged, if it raises."""
        try:
            end()
        except Exception:
            self.get_logger().error(f"after an error:\n{traceback.format_exc()}")
            return False
        return True

    def _undo(self, state: LifecycleState, error: Exception) -> None:
        """Undoes what a failed transition had begun. If this fails too, rclpy calls `on_error`."""
        for channel in self.channels:
            channel.close()
        if self._state == "active":
            super().on_activate(state)
            for channel in self.channels:
                channel.open()
        else:
            self._trouble = ("failed", readable(with_hints(reason_of(error))))
        if self._state == "unconfigured":
            self._release()

    def _release(self) -> bool:
        """Ends the worker and releases what `on_configure` made; False, keeping all, if it does not end in time."""
        if self._worker is not None and not self._worker.stop(STOP_TIMEOUT_S):
            return False
        self._worker = None
        for channel in self.channels:
            channel.release()
        if self._transforms is not None:
            self._transforms.close()
        self._transforms = None
        return True

    def _enter(self, state: str) -> TransitionCallbackReturn:
        self._state, self._since_ns = state, time.monotonic_ns()
        return TransitionCallbackReturn.SUCCESS

    def _on_settings(self, settings: Settings, names: set[str]) -> None:
        self.settings = settings
        for channel in self.channels:
            channel.take_settings(settings, names)

    def _on_worker_changed(self) -> None:
        """On the executor, shortly after the worker's phase changed."""
        if (worker := self._worker) is None:
            return
        if worker.phase is Phase.READY:
            self.get_logger().info(worker.sentence)
        elif worker.phase in (Phase.FAILED, Phase.DEVICE_LOST):
            self._trouble = (worker.phase.value, worker.sentence)
            self.get_logger().error(self._how_to_activate())
            if self._state == "active":
                self.trigger_deactivate()
            if self._state == "inactive":
                self.trigger_cleanup()
            if worker.phase is Phase.DEVICE_LOST and not self.done.done():
                self.done.set_result(EXIT_DEVICE_LOST)

    def _on_transforms(self) -> None:
        for channel in self.channels:
            channel.look_again()

    def _on_tick(self) -> None:
        for channel in self.channels:
            try:
                channel.tick()
            except Exception as error:  # no file descriptor left, say: diagnostics and the other cameras go on
                channel.counters.note_failure("callback", error, self.get_logger())
        self._ticks += 1
        began_ns = self._since_ns if self._state == "active" else 0
        now_ns = time.monotonic_ns()
        silent = [silence(channel.counters, self.settings, began_ns, now_ns) for channel in self.channels]
        if self._ticks % TICKS_PER_REPORT == 0 or silent != self._silent:  # silence is reported at once
            self._report()
        self._silent = silent

    def _report(self) -> None:
        phase, sentence = self._trouble
        loading_since_ns = self._worker.loading_since_ns if self._worker is not None else 0
        if self._worker is not None:
            if not phase:
                phase, sentence = self._worker.phase.value, self._worker.sentence
            if self._worker.is_stopping and self._worker.phase in (Phase.LOADING, Phase.READY):
                phase = "ending"
        _, closed = self.why_closed() or (None, "")
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        rivals = count_rivals(self)
        situation = Situation(self._state, phase, sentence, self._since_ns, closed, loading_since_ns, rivals)
        for channel in self.channels:
            message.status += channel.statuses(situation)
        self._diagnostics.publish(message)
