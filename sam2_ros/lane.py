"""One camera's images through its tracker, with the requests that are due. Runs in the worker's thread.

Every error has a defined end: a refusal is answered, a failed image is lost and counted, objects are dropped after too
many of these in a row, a lost device is raised. Knows `sam2`'s public names. Does not know topics or threads.
"""

import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import sam2
from sam2_ros import image_in
from sam2_ros.auto_prompt import AutoPrompt
from sam2_ros.counters import Counters
from sam2_ros.desk import Desk
from sam2_ros.mailbox import Add, Arrival, Code, Mailbox
from sam2_ros.params import Settings

if TYPE_CHECKING:
    from sam2_ros.outputs import Outputs

LOG_EVERY_S = 5.0  # resets for one cause


class Lane:
    """What one camera has to itself in the worker. `tracker` is given by the worker before anything else happens.

    outputs: what takes the results; see `sam2_ros.outputs.Outputs`. auto: a detector's messages. log: has info, warning
    and error.
    """

    def __init__(
        self, mailbox: Mailbox, settings: Settings, counters: Counters, outputs: "Outputs", auto: AutoPrompt, log
    ) -> None:
        self.tracker: sam2.Tracker | None = None
        self.mailbox = mailbox
        self.stopping = False
        self._outputs, self._auto = outputs, auto
        self._counters, self._log = counters, log
        self._desk = Desk(settings, self._report_failure, self._drop, outputs.restore)
        self._tell_again_s: dict[str, float] = {}  # by cause of a reset
        self._size_hw: tuple[int, int] | None = None  # of the images so far; None = there was none

    @property
    def settings(self) -> Settings:
        """May be replaced at any time."""
        return self._desk.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._desk.settings = settings
        self._auto.wait_s = settings.prompt_wait_s

    def patience_s(self, longest_s: float) -> float:
        """Until something that waits here must be answered."""
        return self._desk.patience_s(longest_s)

    def close(self) -> None:
        """Answers everything, and whatever is still to come."""
        self._desk.close(self.mailbox.close())
        self._counters.busy_since_ns = 0  # an image that was taken and will have no turn

    def take(self) -> tuple[Arrival | None, sam2.Frame | None]:
        """What has come, without waiting: requests are kept, the image and its pixels are returned."""
        work = self.mailbox.take(0, len(self._desk.waiting))
        self._desk.waiting += work.requests
        if work.arrival is None or self.stopping:
            return None, None
        self._counters.busy_since_ns = time.monotonic_ns()
        return work.arrival, self._receive(work.arrival)

    def turn(self, arrival: Arrival | None, frame: sam2.Frame | None) -> None:
        """One image, if there is one, with everything that is due. Raises DeviceLost only."""
        if not self._guarded("turn", lambda: self._turn(arrival, frame)) and frame is not None:
            self._counters.count_failed_image()
        self._guarded("publish", self._outputs.idle)

    def _turn(self, arrival: Arrival | None, frame: sam2.Frame | None) -> None:
        adds: list[Add] = []
        try:
            self._desk.waiting += self._auto.requests(self._size_hw)
            # An answer that cannot be delivered costs neither the image nor the other requests.
            self._guarded("request", lambda: adds.extend(self._desk.sort_out(self.tracker, frame)))
            if frame is not None:
                tracks = self._step(frame, adds, arrival.message.header)
                if tracks is not None and not self._guarded("publish", lambda: self._hand_on(arrival, frame, tracks)):
                    self._counters.count_unpublished()
        finally:
            self._counters.busy_since_ns = 0
            for add in adds:  # all have been answered, unless something raised that nobody thought of
                said = "an error inside the node; whether it was done is not known"
                self._guarded("request", lambda add=add, said=said: add.answer(Code.INTERNAL, said))
        self._desk.expire(self._size_hw is not None)
        self._desk.sort_out(self.tracker, None)  # what waited for a prompt that has just run, or never will
        self.mailbox.count_in_hand(len(self._desk.waiting))

    def _receive(self, arrival: Arrival) -> sam2.Frame | None:
        """The image as the tracker wants it, or None if it turns out to be broken. Sees where a new stream starts."""
        if arrival.new_stream:  # before the pixels are known: a broken image begins a stream, too
            self._forget("clock jump", "the clock jumped")
        try:
            rgb = image_in.to_rgb(arrival.message)  # (H, W, 3) uint8
        except image_in.Refused as error:
            self._counters.refuse_image(error.reason, str(error))
            return None
        except Exception as error:  # whatever it is, it costs this image and not the thread
            self._counters.count_failed_image()
            self._report_failure("image", error)
            return None
        size_hw = rgb.shape[:2]
        if self._size_hw not in (None, size_hw) and not arrival.new_stream:
            self._forget("image size", f"the image size changed from {self._size_hw} to {size_hw}")
        self._size_hw = size_hw
        self._guarded("publish", lambda: self._outputs.begin(arrival.stamp_ns))
        return sam2.Frame(rgb, arrival.stamp_ns)

    def _forget(self, cause: str, sentence: str) -> None:
        """All objects are dropped, and people are told."""
        self._counters.count_reset(cause, time.monotonic_ns())
        now_s = time.monotonic()
        if now_s >= self._tell_again_s.get(cause, 0.0):  # two cameras on one topic make a jump of every image
            self._tell_again_s[cause] = now_s + LOG_EVERY_S
            self._log.warning(f"{sentence}: all objects are reset; more within {LOG_EVERY_S:.0f} s are only counted")
        self._desk.forget_images()
        self._auto.forget()
        self._guarded("publish", lambda: self._drop(None))
        if not self._guarded("reset", self.tracker.reset):
            self.tracker = self.tracker.sibling()  # the objects that were said to be gone are

    def _step(self, frame: sam2.Frame, adds: list[Add], header) -> "list[sam2.Track] | None":
        """The tracker's answer for one image; None if the image is lost to an error. All `adds` are answered.

        Each of `adds` had passed `check` by itself; a refusal is of one that is too much for those before it.
        """
        before = set(self.tracker.object_ids)
        while True:
            began_ns = time.monotonic_ns()
            try:
                tracks = self.tracker.step(frame, [prompt for add in adds for prompt in add.prompts])
                break
            except Exception as error:
                again, keep_objects = self._after_failure(error, frame, adds)
            if again:
                continue
            if not keep_objects:  # outside `except`: its traceback would keep the failed step's memory alive
                self._forget("failure", "the tracker failed")
            return None
        self._counters.count_step(time.monotonic_ns() - began_ns, len(tracks))
        tracks = self._without_twins(adds, tracks, before)
        self._desk.remember(frame.stamp_ns, header)
        self._auto.remember(frame.stamp_ns, tracks, changed=bool(adds))
        for add in adds:
            self._guarded("request", lambda add=add: self._desk.confirm(add, tracks))
        return tracks

    def _without_twins(self, adds: list[Add], tracks: "list[sam2.Track]", before: set[str]) -> "list[sam2.Track]":
        """What is left when objects that are tracked already under another id have gone, and with them whatever came
        with the same request; `before`: ids that were tracked before it."""
        twins = self._auto.twins(adds, tracks)
        gone = set(twins)
        for add in adds:
            if found := add.object_ids & twins.keys():
                other = twins[min(found)]
                known = "another one in this request, too" if other not in before else "which is tracked already"
                add.answer(Code.BAD_INPUT, f"the prompt for {min(found)!r} shows {other!r}, {known}")
                gone |= add.object_ids - before
        for name in gone:
            self.tracker.remove(name)
        self._counters.objects = len(self.tracker.object_ids)
        return [track for track in tracks if track.object_id not in gone]

    def _first_too_many(self, frame: sam2.Frame, adds: list[Add]) -> int:
        """Index of the first that cannot be done together with those before it; of the newest if that is none."""
        prompts: list[sam2.Prompt] = []
        for index, add in enumerate(adds):
            prompts += add.prompts
            try:
                self.tracker.check(prompts, frame)
            except sam2.BadInput:
                return index
        return -1

    def _after_failure(self, error: Exception, frame: sam2.Frame, adds: list[Add]) -> tuple[bool, bool]:
        """(whether to try again with the `adds` that are left, whether the objects can be kept). Raises DeviceLost."""
        if isinstance(error, sam2.BadInput) and adds:
            self._desk.refuse(adds.pop(self._first_too_many(frame, adds)), error)
            return True, True
        for add in adds:
            add.answer(Code.INTERNAL, f"the image was lost: {error or type(error).__name__}")
        if isinstance(error, sam2.DeviceLost):
            raise error
        in_a_row = self._counters.count_failed_image()
        self._report_failure("step", error)
        return False, in_a_row < self.settings.max_failures  # a step that fails has changed nothing

    def _hand_on(self, arrival: Arrival, frame: sam2.Frame, tracks: "list[sam2.Track]") -> None:
        if self._outputs.publish(arrival, frame, tracks):
            self._counters.count_output(arrival.arrived_ns, time.monotonic_ns(), self.settings.max_age_s)

    def _guarded(self, what: str, call: Callable[[], None]) -> bool:
        """Runs `call`; an error is counted and logged, not raised. DeviceLost goes on."""
        try:
            call()
        except sam2.DeviceLost:
            raise
        except Exception as error:
            if not self.stopping:  # while stopping, the publishers may be gone already
                self._report_failure(what, error)
            return False
        return True

    def _drop(self, object_ids: "list[str] | None") -> None:
        """They are gone, though there was no image since; None = all."""
        self._counters.objects = len(self.tracker.object_ids) if object_ids is not None else 0
        self._outputs.drop(object_ids)

    def _report_failure(self, what: str, error: Exception) -> None:
        """Counts it; the first of its kind is logged with its trace."""
        kind = f"{what}: {type(error).__name__}"
        if self._counters.count_failure(kind, str(error)) == 1:
            trace = "".join(traceback.format_exception(error))
            self._log.error(f"{kind}: {error}; more of this kind are only counted\n{trace}")
