"""The one thread that uses the tracker: loads it, feeds it the newest image with the prompts that are due, hands on.

Every error has a defined end: a refusal is answered, a failed image is lost and counted, objects are dropped after an
error that is nobody's input, a lost device ends the worker. Knows `sam2`'s public names. Does not know topics,
services or lifecycle states.
"""

import threading
import time
import traceback
from collections.abc import Callable
from enum import Enum

import sam2
from sam2_ros import image_in
from sam2_ros.desk import Desk
from sam2_ros.health import Counters
from sam2_ros.mailbox import Add, Arrival, Code, Mailbox
from sam2_ros.params import Settings

IDLE_S = 3600.0  # how long `take` may sleep when nothing waits; everything that matters wakes it


class Phase(Enum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"  # to load; `sentence` says why
    DEVICE_LOST = "device lost"  # only a new process can go on
    STOPPED = "stopped"


class Worker:
    """Owns the thread and, through it, the tracker. Phases: LOADING, READY, STOPPED, or early FAILED or DEVICE_LOST.

    load: makes the tracker and warms it up; runs in the thread, may take minutes. publish(arrival, frame, tracks):
    hands on the result for one image. changed: called from the thread when `phase` changed. log: has info, warning
    and error.
    """

    def __init__(
        self,
        load: Callable[[], "sam2.Tracker"],
        mailbox: Mailbox,
        settings: Settings,
        counters: Counters,
        publish: Callable,
        changed: Callable[[], None],
        log,
    ) -> None:
        self.phase, self.sentence = Phase.LOADING, ""
        self._load, self._publish, self._changed = load, publish, changed
        self._mailbox, self._counters, self._log = mailbox, counters, log
        self._desk = Desk(settings, self._report_failure)
        self._size_hw: tuple[int, int] | None = None  # of the images so far; None = there was none
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    @property
    def settings(self) -> Settings:
        """May be replaced at any time."""
        return self._desk.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._desk.settings = settings

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after the image in hand; False if it still runs after `timeout_s`."""
        self._stopping.set()
        self._mailbox.wake()
        if self._thread.ident is not None:  # it may never have started
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            tracker = self._start()
            if tracker is not None:
                self._serve(tracker)
        finally:
            self._desk.close(self._mailbox.close())

    def _start(self) -> "sam2.Tracker | None":
        began = time.monotonic()
        try:
            tracker = self._load()
        except Exception as error:  # whatever it is, the node must be able to say it
            if not isinstance(error, sam2.Sam2Error):
                self._log.error(traceback.format_exc())
            lost = isinstance(error, sam2.DeviceLost)
            self._enter(Phase.DEVICE_LOST if lost else Phase.FAILED, f"cannot load the model: {error}")
            return None
        self._enter(Phase.READY, f"model loaded in {time.monotonic() - began:.1f} s")
        return tracker

    def _enter(self, phase: Phase, sentence: str) -> None:
        self.sentence = sentence
        self.phase = phase
        if not self._stopping.is_set():  # whoever stopped it knows, and may be gone
            self._changed()

    def _serve(self, tracker: "sam2.Tracker") -> None:
        try:
            while not self._stopping.is_set():
                work = self._mailbox.take(self._desk.patience_s(IDLE_S), len(self._desk.waiting))
                self._desk.waiting += work.requests
                if not self._stopping.is_set():
                    self._guarded("turn", lambda arrival=work.arrival: self._turn(tracker, arrival))
        except sam2.DeviceLost as error:
            self._enter(Phase.DEVICE_LOST, f"{error}; the process must be started again")
            return
        self._enter(Phase.STOPPED, "stopped")

    def _turn(self, tracker, arrival: Arrival | None) -> None:
        """One image, if there is one, with everything that is due."""
        self._counters.busy_since_ns = time.monotonic_ns() if arrival else 0
        try:
            frame = self._receive(tracker, arrival) if arrival else None
            adds = self._desk.sort_out(tracker, frame)
            if frame is not None:
                tracks = self._step(tracker, frame, adds, arrival.message.header)
                if tracks is not None:
                    self._hand_on(arrival, frame, tracks)
                self._desk.sort_out(tracker, None)  # what waited for a prompt that has just run
        finally:
            self._counters.busy_since_ns = 0
        self._desk.expire(self._size_hw is not None)

    def _receive(self, tracker, arrival: Arrival) -> sam2.Frame | None:
        """The image as the tracker wants it, or None if it turns out to be broken. Sees where a new stream starts."""
        try:
            rgb = image_in.to_rgb(arrival.message)  # (H, W, 3) uint8
        except image_in.Refused as error:
            self._counters.refuse_image(error.reason, str(error))
            return None
        except Exception as error:  # whatever it is, it costs this image and not the thread
            self._report_failure("image", error)
            return None
        size_hw = rgb.shape[:2]
        if arrival.new_stream:
            self._forget(tracker, "clock jump", "the clock jumped")
        elif self._size_hw not in (None, size_hw):
            self._forget(tracker, "image size", f"the image size changed from {self._size_hw} to {size_hw}")
        self._size_hw = size_hw
        return sam2.Frame(rgb, arrival.stamp_ns)

    def _forget(self, tracker, cause: str, sentence: str) -> None:
        """All objects are dropped, and people are told."""
        self._counters.count_reset(cause)
        self._log.warning(f"{sentence}: all objects are reset")
        self._desk.forget_images()
        self._guarded("reset", tracker.reset)

    def _step(self, tracker, frame: sam2.Frame, adds: list[Add], header) -> "list[sam2.Track] | None":
        """The tracker's answer for one image; None if the image is lost to an error. All `adds` are answered.

        A refusal concerns the newest request first: those before it had passed `check` without it.
        """
        while True:
            began_ns = time.monotonic_ns()
            try:
                tracks = tracker.step(frame, [prompt for add in adds for prompt in add.prompts])
                break
            except Exception as error:
                again, keep_objects = self._after_failure(error, adds)
            if again:
                continue
            if not keep_objects:  # outside `except`: its traceback would keep the failed step's memory alive
                self._forget(tracker, "failure", "the tracker failed")
            return None
        self._counters.count_step(time.monotonic_ns() - began_ns, len(tracks))
        self._desk.remember(frame.stamp_ns, header)
        for add in adds:
            self._desk.confirm(add, tracks)
        return tracks

    def _after_failure(self, error: Exception, adds: list[Add]) -> tuple[bool, bool]:
        """(whether to try again with the `adds` that are left, whether the objects can be kept). Raises DeviceLost."""
        if isinstance(error, sam2.BadInput) and adds:
            self._desk.refuse(adds.pop(), error)
            return True, True
        for add in adds:
            add.answer(Code.INTERNAL, f"the image was lost: {error or type(error).__name__}")
        if isinstance(error, sam2.DeviceLost):
            raise error
        in_a_row = self._counters.count_failed_step()
        self._report_failure("step", error)
        return False, isinstance(error, sam2.OutOfMemory) and in_a_row < self.settings.max_failures

    def _hand_on(self, arrival: Arrival, frame: sam2.Frame, tracks: "list[sam2.Track]") -> None:
        if self._guarded("publish", lambda: self._publish(arrival, frame, tracks)):
            self._counters.count_output(arrival.arrived_ns, time.monotonic_ns(), self.settings.max_age_s)

    def _guarded(self, what: str, call: Callable[[], None]) -> bool:
        """Runs `call`; an error is counted and logged, not raised. DeviceLost goes on."""
        try:
            call()
        except sam2.DeviceLost:
            raise
        except Exception as error:
            if not self._stopping.is_set():  # while stopping, the publishers may be gone already
                self._report_failure(what, error)
            return False
        return True

    def _report_failure(self, what: str, error: Exception) -> None:
        """Counts it; the first of its kind is logged with its trace."""
        kind = f"{what}: {type(error).__name__}"
        if self._counters.count_failure(kind, str(error)) == 1:
            trace = "".join(traceback.format_exception(error))
            self._log.error(f"{kind}: {error}; more of this kind are only counted\n{trace}")
