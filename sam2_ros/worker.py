"""The one thread that uses the network: loads it, and gives every camera its turn.

A round processes at most one image of each camera, its newest at that moment. So no camera waits for more than one
image of each other camera, and a camera that sends nothing costs nothing. Only late prompts, whose objects are tracked
again over the images since, make a turn longer. Knows `sam2`'s public names. Does not know topics, services or
lifecycle states.
"""

import threading
import time
import traceback
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

import sam2
from sam2_ros import heap
from sam2_ros.mailbox import wait_for_any
from sam2_ros.pipeline import Pipeline
from sam2_ros.readable import readable, reason_of, utf8

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

IDLE_S = 3600.0  # how long to sleep when nothing waits; everything that matters wakes the thread


class Phase(Enum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"  # while loading or later; `sentence` says why
    DEVICE_LOST = "device lost"  # only a new process can continue


class Worker:
    """Owns the thread and, through it, the trackers. Phases: LOADING, READY, or FAILED or DEVICE_LOST.

    load: makes a tracker; runs in the thread and may take minutes. pipelines: one for each camera; their mailboxes
    share a bell, and each gets a warmed-up tracker on the one model. changed: called from the thread when `phase` has
    changed.
    """

    def __init__(
        self,
        load: Callable[[], sam2.Tracker],
        pipelines: list[Pipeline],
        changed: Callable[[], None],
        log: "RcutilsLogger",
    ) -> None:
        self.phase, self.sentence = Phase.LOADING, ""
        self.loading_since_ns = 0  # steady clock; set by `start`
        self._load, self._pipelines, self._changed, self._log = load, pipelines, changed, log
        self._together = False  # whether the images of several cameras are encoded as one batch
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    @property
    def can_serve(self) -> bool:
        """Whether it can serve now or once it has loaded; not after it was told to stop, even if it still runs."""
        return self.phase in (Phase.LOADING, Phase.READY) and not self.is_stopping

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop; from then on it no longer reports its phase."""
        return self._stopping.is_set()

    @property
    def turn_since_ns(self) -> int:
        """Of the pipeline whose turn it is; 0 = waits for work."""
        return max(pipeline.turn_since_ns for pipeline in self._pipelines)

    def start(self) -> None:
        self.loading_since_ns = time.monotonic_ns()
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after the current image; False if it still runs after `timeout_s`."""
        self._stopping.set()
        for pipeline in self._pipelines:
            pipeline.stopping = True
            pipeline.mailbox.wake()
        if self._thread.ident is not None:  # it may never have started
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self._start():
                self._serve()
        except BaseException as error:  # also sys.exit or a panic of a Rust library: the node must not look healthy
            self._log.error(utf8(traceback.format_exc()))
            self._enter(Phase.FAILED, f"the network has ended: {error!r}")
        finally:
            for pipeline in self._pipelines:
                pipeline.close()
            sam2.empty_cache()

    def _start(self) -> bool:
        began = time.monotonic()
        try:
            first = self._load()
            trackers = [first, *(first.sibling() for _ in self._pipelines[1:])]
            for tracker in trackers:
                tracker.warm_up()
            if first.model.device.type == "cpu":
                heap.reserve()
        except Exception as error:  # whatever it is, the node must be able to report it
            if not isinstance(error, sam2.Sam2Error):
                self._log.error(utf8(traceback.format_exc()))
            lost = isinstance(error, sam2.DeviceLost)
            self._enter(Phase.DEVICE_LOST if lost else Phase.FAILED, f"cannot load the model: {reason_of(error)}")
            return False
        for pipeline, tracker in zip(self._pipelines, trackers, strict=True):
            pipeline.tracker = tracker
        self._enter(Phase.READY, f"loaded {first.model.description} in {time.monotonic() - began:.1f} s")
        return True

    def _enter(self, phase: Phase, sentence: str) -> None:
        self.sentence = readable(sentence)
        self.phase = phase
        if not self._stopping.is_set():  # after `stop` nobody listens any more
            self._changed()

    def _serve(self) -> None:
        mailboxes = [pipeline.mailbox for pipeline in self._pipelines]
        # Where objects are batched, the device also gains from batches of images.
        self._together = len(self._pipelines) > 1 and self._pipelines[0].tracker.batched
        try:
            while not self._stopping.is_set():
                wait_for_any(mailboxes, min(pipeline.patience_s(IDLE_S) for pipeline in self._pipelines))
                if self._together:
                    self._round_together()
                else:
                    self._round()
        except sam2.DeviceLost as error:
            self._enter(Phase.DEVICE_LOST, f"{error}; the process must be started again")
        finally:
            for pipeline in self._pipelines:
                del pipeline.tracker  # here, so that device memory is freed at once, and in this thread

    def _round(self) -> None:
        """Gives each camera its turn, with its newest image at that moment."""
        for pipeline in self._pipelines:
            if not self._stopping.is_set():
                pipeline.turn(*pipeline.take())

    def _round_together(self) -> None:
        """Encodes the images that wait now as one batch, then gives each camera its turn."""
        taken = [(pipeline, *pipeline.take()) for pipeline in self._pipelines]
        pairs = [(pipeline.tracker, frame) for pipeline, _, frame in taken if frame is not None]
        if len(pairs) > 1:
            try:
                pairs[0][0].encode_together(pairs)
            except sam2.DeviceLost:
                raise
            except Exception as error:  # if encoded one by one, only the image of the camera at fault is lost
                self._together = False
                self._log.error(
                    f"images of {len(pairs)} cameras could not be encoded together, from now on they are one by one: "
                    f"{readable(reason_of(error))}"
                )
        for pipeline in self._pipelines:
            pipeline.note_waiting()
        for pipeline, arrival, frame in taken:
            if not self._stopping.is_set():
                pipeline.turn(arrival, frame)
