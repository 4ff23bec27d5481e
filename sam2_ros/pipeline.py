"""Runs one camera's images and due requests through its tracker, in the worker's thread.

Every error has a defined outcome: a refusal is answered, a failed image is lost and counted, objects are dropped after
`max_failures` of these in a row, DeviceLost is raised. Knows `sam2`'s public names. Does not know topics or threads.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import sam2
from sam2_ros import image_in
from sam2_ros.auto_prompt import AutoPrompt
from sam2_ros.counters import Counters
from sam2_ros.fitting import Run, run_fitting, twin_sentences
from sam2_ros.mailbox import Arrival, Mailbox
from sam2_ros.params import Settings
from sam2_ros.pending_requests import PendingRequests
from sam2_ros.readable import reason_of
from sam2_ros.refused import Refused
from sam2_ros.requests import Add, Code

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from sam2_ros.outputs import Outputs

LOG_EVERY_S = 5.0  # least time between log messages about resets for the same cause


class Pipeline:
    """One camera's part of the worker, which sets `tracker` once the model is loaded, before the first `take`.

    settings: may be replaced at any time. outputs: publishes the results. auto: makes requests of a detector's
    messages. closed: returns why prompts cannot be served at the moment, as a code and a sentence, or None; can be
    called from any thread. why_no_image: returns why no image comes, "" = not known.
    """

    def __init__(
        self, mailbox: Mailbox, settings: Settings, counters: Counters, outputs: "Outputs", auto: AutoPrompt,
        log: "RcutilsLogger",
        closed: Callable[[], tuple[Code, str] | None] = lambda: None, why_no_image: Callable[[], str] = lambda: "",
    ) -> None:  # fmt: skip
        self.tracker: sam2.Tracker
        self.mailbox, self.settings = mailbox, settings
        self.stopping = False
        # When its turn began, or the newest frame that a late prompt repeats in it; steady clock, 0 = not its turn.
        self.turn_since_ns = 0
        self.outputs, self.auto = outputs, auto
        self._counters, self._log = counters, log
        self._closed, self._why_no_image = closed, why_no_image
        failed = partial(counters.note_failure, "request", log=log)
        self._pending = PendingRequests(settings.history_frames, failed, outputs.drop, outputs.note_restored)
        self._tell_again_s: dict[str, float] = {}  # when to log again, by cause of a reset
        self._failed_steps = 0  # in a row, since objects were dropped
        self._size_hw: tuple[int, int] | None = None  # of the images so far; None = there was none
        self._newest: tuple[int, int] | None = None  # stamp and arrival (steady clock) of the newest image
        self._processed: tuple[Arrival, sam2.Frame] | None = None  # the newest image that has a result

    def patience_s(self, longest_s: float) -> float:
        """Seconds until the next deadline of a waiting request; `longest_s` if there is none."""
        return self._pending.patience_s(longest_s)

    def close(self) -> None:
        """Answers every waiting request, and closes the mailbox, which then answers later ones itself."""
        self._pending.close(self.mailbox.close())
        self.note_waiting()  # the worker may stop after `take`, before the turn

    def take(self) -> tuple[Arrival | None, sam2.Frame | None]:
        """Empties the mailbox without waiting: queues the requests, returns the newest image and its decoded frame.

        Both are None without an image; the frame alone is None if the image is broken.
        """
        self.turn_since_ns = time.monotonic_ns()
        arrival, requests = self.mailbox.take()
        self._pending.waiting += requests
        if arrival is None or self.stopping:
            return None, None
        self._counters.busy_since_ns = self.turn_since_ns
        return arrival, self._receive(arrival)

    def note_waiting(self) -> None:
        """Called if other cameras have their turns between `take` and `turn`: it is not busy with its image then."""
        self.turn_since_ns = self._counters.busy_since_ns = 0

    def turn(self, arrival: Arrival | None, frame: sam2.Frame | None) -> None:
        """Processes one image, if there is one, and everything that is due. Raises only DeviceLost."""
        self.turn_since_ns = time.monotonic_ns()
        self._counters.busy_since_ns = self.turn_since_ns if arrival is not None else 0
        with self._guarded("turn") as turn:
            self._turn(arrival, frame)
        self._counters.busy_since_ns = 0
        if turn.failed:
            if frame is not None:
                self._counters.count_failed_image()
            with self._guarded("request"):
                self._pending.fail_overdue(time.monotonic_ns())
        self.mailbox.count_in_hand(len(self._pending.waiting))
        with self._guarded("publish"):
            self.outputs.idle()
        self.turn_since_ns = 0

    def _turn(self, arrival: Arrival | None, frame: sam2.Frame | None) -> None:
        now_ns = time.monotonic_ns()
        self._pending.waiting += self.auto.requests(self._size_hw, self._pending.object_ids)
        if arrival is not None and frame is not None:
            self._carry_out(frame, now_ns, partial(self._process, arrival, frame))
        if self._size_hw is not None:
            self._pending.expire_ahead(now_ns)
        closed = self._closed()
        while not (closed or self.stopping) and self._carry_out(None, now_ns, self._prompt_processed):
            pass  # prompts that have just run may have held others, which are due now
        why_none = (lambda: closed[1]) if closed else self._why_no_image
        self._pending.expire(self._size_hw is not None, why_none, now_ns)
        self._pending.serve(self.tracker)  # requests held by prompts that have just run or expired

    def _carry_out(self, frame: sam2.Frame | None, now_ns: int, run: Callable[[list[Add]], None]) -> bool:
        """Calls `run` with the Adds that are due, if there are any or a frame; returns whether there were any."""
        adds: list[Add] = []
        try:
            with self._guarded("request"):  # an answer that cannot be delivered must affect nothing else
                adds += self._pending.sort_out(self.tracker, frame, now_ns)
            if adds or frame is not None:
                run(adds)
        finally:
            for add in adds:  # all have been answered, unless something unforeseen was raised
                with self._guarded("request"):
                    add.answer(Code.INTERNAL, "an error inside the node; whether it was done is not known")
        return bool(adds)

    def _receive(self, arrival: Arrival) -> sam2.Frame | None:
        """Decodes an image for the tracker; None if it is broken. Drops all objects where a new stream starts."""
        if arrival.new_stream:  # before decoding: even a broken image may begin a new stream
            self._forget("clock jump", "the clock jumped")
        try:
            rgb = image_in.to_rgb(arrival.message)  # (H, W, 3) uint8
        except Refused as error:
            self._counters.refuse_image(error.reason, str(error), is_broken=True)
            return None
        except Exception as error:  # whatever it is, only this image is lost, and not the thread
            self._report_failure("image", error)
            self._counters.count_failed_image()
            return None
        size_hw = rgb.shape[:2]
        if self._size_hw not in (None, size_hw) and not arrival.new_stream:
            self._forget("image size", f"the image size changed from {self._size_hw} to {size_hw}")
        self._size_hw = size_hw
        with self._guarded("publish"):
            self.outputs.begin(arrival.stamp_ns)
        return sam2.Frame(rgb, self._time_of(arrival))

    def _time_of(self, arrival: Arrival) -> int:
        """The image's stamp; without one, the previous image's time plus the time between their arrivals."""
        before_ns, came_ns = self._newest or (time.time_ns(), arrival.arrived_ns)
        stamp_ns = arrival.stamp_ns or before_ns + arrival.arrived_ns - came_ns
        self._newest = stamp_ns, arrival.arrived_ns
        return stamp_ns

    def _forget(self, cause: str, sentence: str) -> None:
        """Drops all objects and logs the reason. Except after failures, restored objects not shown yet are kept."""
        self._counters.count_reset(cause, time.monotonic_ns())
        now_s = time.monotonic()
        if now_s >= self._tell_again_s.get(cause, 0.0):  # with two cameras on one topic every image is a jump
            self._tell_again_s[cause] = now_s + LOG_EVERY_S
            self._log.warning(f"{sentence}: all objects are reset; more within {LOG_EVERY_S:.0f} s are only counted")
        self._pending.forget_images()
        self._processed, self._failed_steps = None, 0
        self.auto.forget()
        # Those restored belong to the images to come.
        keep: frozenset[str] = frozenset() if cause == "failure" else self.outputs.newest.restored
        with self._guarded("publish"):
            self.outputs.drop(None)
        with self._guarded("reset") as reset:
            self.tracker.reset(keep)
            self.outputs.note_restored(keep)
        if reset.failed:
            self.tracker = self.tracker.sibling()  # the objects must be gone even so: the log says they are

    def _process(self, arrival: Arrival, frame: sam2.Frame, adds: list[Add]) -> None:
        """Processes a new image and publishes its result, unless it is lost to an error. All `adds` are answered."""
        began_ns = time.monotonic_ns()
        step = partial(self.tracker.step, frame, progress=self._note_progress)
        check = partial(self.tracker.check, frame=frame)
        ran = self._run(step, check, adds, "step", "the image was lost: ")
        if ran is None:
            # A step that fails has changed nothing, so the objects can stay until it has failed too often.
            self._counters.count_failed_image()
            self._failed_steps += 1
            if self._failed_steps >= self.settings.max_failures:
                self._forget("failure", "the tracker failed")
            return
        self._failed_steps = 0
        self._counters.count_step(time.monotonic_ns() - began_ns)
        self._pending.remember(frame.stamp_ns, arrival.message.header, arrival.arrived_ns)
        self._processed = arrival, frame
        self._conclude(arrival, frame, ran, is_new=True)

    def _run(self, run: Callable, check: Callable, adds: list[Add], what: str, consequence: str = "") -> Run | None:
        """Returns what `run_fitting` returns. If the tracker fails, answers all `adds` and returns None, not the error,
        whose traceback would keep the failed step's memory alive. Raises DeviceLost."""

        def refuse(add: Add, error: Exception) -> None:
            with self._guarded("request"):
                self._pending.refuse(add, error)

        try:
            return run_fitting(self.tracker, run, check, adds, self.auto, refuse)
        except Exception as error:
            for add in adds:
                with self._guarded("request"):
                    add.answer(Code.INTERNAL, f"{consequence}{reason_of(error)}")
            if isinstance(error, sam2.DeviceLost):
                raise
            self._report_failure(what, error)
            return None

    def _conclude(self, arrival: Arrival, frame: sam2.Frame, ran: Run, is_new: bool) -> None:
        """Publishes the tracks that are left without twins, then answers the requests that were carried out: whoever
        hears of an object may at once list it or choose it as the target. is_new: as in `_publish`."""
        tracks, done, twins = ran
        tracks = self._without(twins, done, tracks)
        self.auto.remember(frame.stamp_ns, tracks, done)
        self._publish(arrival, frame, tracks, is_new)
        for add in done:
            with self._guarded("request"):
                self._pending.confirm(add, tracks)

    def _without(self, twins: dict[str, str], adds: list[Add], tracks: list[sam2.Track]) -> list[sam2.Track]:
        """Removes objects that are tracked under another id already, answers their requests or logs it; returns the
        other tracks."""
        for add, sentence in twin_sentences(adds, twins).items():
            with self._guarded("request"):
                add.answer(Code.BAD_INPUT, sentence)
        for name in self.auto.count_twins(adds, twins):
            self._log.warning(f"{name!r} shows the same as {twins[name]!r} and is removed")
        for name in twins:
            self.tracker.remove(name)
        return [track for track in tracks if track.object_id not in twins]

    def _prompt_processed(self, adds: list[Add]) -> None:
        """Runs prompts on images processed before, because no new image comes, and publishes the newest image's result
        again. All `adds` are answered."""
        assert self._processed is not None, "prompts without a new image are due only on processed ones"
        arrival, frame = self._processed
        self._counters.busy_since_ns = time.monotonic_ns()

        def run(prompts: list[sam2.Prompt], accept: Callable) -> list[sam2.Track]:
            of_all = self.outputs.newest.tracks_with
            accept_all = lambda tracks: accept(of_all(tracks))  # noqa: E731
            return of_all(self.tracker.prompt(prompts, accept=accept_all, progress=self._note_progress))

        ran = self._run(run, partial(self.tracker.check, seen=True), adds, "prompt")
        if ran is not None and ran.done:
            self._conclude(arrival, frame, ran, is_new=False)

    def _note_progress(self) -> None:
        """Restarts the hang timeout: the frames that a late prompt repeats may together take longer than that."""
        self.turn_since_ns = self._counters.busy_since_ns = time.monotonic_ns()

    def _publish(self, arrival: Arrival, frame: sam2.Frame, tracks: list[sam2.Track], is_new: bool) -> None:
        """is_new: this is the image's first result; only first results count in rates and ages."""
        with self._guarded("publish") as publishing:
            is_open = self.outputs.publish(arrival.message.header, frame, tracks)
            if not is_new:
                return
            if is_open:
                self._counters.count_output(arrival.arrived_ns, time.monotonic_ns(), self.settings.max_age_s)
            else:
                self._counters.count_withheld()
        if publishing.failed:
            self._counters.count_unpublished()

    @contextmanager
    def _guarded(self, what: str) -> Iterator[SimpleNamespace]:
        """Counts and logs an error in its block instead of raising it, and sets `failed`. Raises only DeviceLost."""
        outcome = SimpleNamespace(failed=False)
        try:
            yield outcome
        except sam2.DeviceLost:
            raise
        except Exception as error:
            outcome.failed = True
            if not self.stopping:  # while stopping, the publishers may be gone already
                self._report_failure(what, error)

    def _report_failure(self, what: str, error: Exception) -> None:
        self._counters.note_failure(what, error, self._log)
