"""The queue of waiting requests: their order, the image each belongs to, and the one answer each gets.

Requests are served in order of arrival; a request is held while an earlier one for the same object waits.
Used only by the worker's thread. Knows `sam2`'s public names. Does not know threads, topics or services.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import replace

import sam2
from sam2_ros import prompt_in
from sam2_ros.readable import reason_of
from sam2_ros.requests import Add, Code, Remove, Request, Restore, Save

ANOTHER_CLOCK_NS = 1_000_000_000  # a prompt this far ahead of all images was hardly made on one of them
WITHOUT_STAMP = "; with the stamp of an image that came (`sam2_ros prompt --newest`), it would mean that image"


class PendingRequests:
    """Every request put in is answered: by the tracker, by a refusal, at its deadline, or by `close`.

    history_frames: number of images whose headers are kept. failed: called with the error when anything but a refusal
    ends a request. gone: called with the ids of removed objects, None = all; back: with those of restored ones.
    """

    def __init__(
        self, history_frames: int, failed: Callable[[Exception], None], gone: Callable[[list[str] | None], None],
        back: Callable[[Collection[str]], None],
    ) -> None:  # fmt: skip
        self.waiting: list[Request] = []
        self._history_frames = history_frames
        self._failed, self._gone, self._back = failed, gone, back
        self._headers: dict[int, object] = {}  # header of each kept image by its stamp, oldest first
        self._newest_ns = self._newest_arrived_ns = 0  # 0 = no image yet
        self._named = 0

    @property
    def object_ids(self) -> set[str]:
        """The ids that waiting requests name; "" is a new object."""
        return set().union(*(request.object_ids or () for request in self.waiting))

    def patience_s(self, longest_s: float) -> float:
        """Seconds until the next deadline; `longest_s` if no request has one."""
        deadlines = [request.deadline_ns for request in self.waiting if isinstance(request, Add)]
        return max(min(deadlines) - time.monotonic_ns(), 0) / 1e9 if deadlines else longest_s

    def serve(self, tracker: sam2.Tracker) -> None:
        """Serves the requests that need no image and are not held."""
        self.sort_out(tracker, None, now_ns=0)  # before every deadline

    def sort_out(self, tracker: sam2.Tracker, frame: sam2.Frame | None, now_ns: int) -> list[Add]:
        """Serves the requests that can be served now and returns the Adds to run on `frame`; the others keep waiting.
        Without a frame it returns the Adds on processed images whose deadline has passed at `now_ns`."""
        adds: list[Add] = []
        waiting: list[Request] = []
        held: set[str] = set()  # ids of earlier requests that wait or are about to run; each "" is another new object
        all_held = False  # an earlier request about all objects waits
        for request in self.waiting:
            if request.answered:  # it was given up, and must not be carried out after all
                continue
            ids = request.object_ids
            is_held = all_held or bool(held if ids is None else ids & held - {""})
            if isinstance(request, Add) and not is_held and self._is_due(request, frame, now_ns):
                if self._accept(tracker, request, frame) and request.begin():
                    adds.append(request)
                    held |= request.object_ids
            elif isinstance(request, Add) or is_held:
                waiting.append(request)
                all_held |= ids is None
                held |= ids or set()
            else:
                self._serve(tracker, request)
        self.waiting = waiting
        return adds

    def confirm(self, add: Add, tracks: list[sam2.Track]) -> None:
        """Answers a request that ran, with the header of the image that each prompt ran on, whose stamp it has."""
        labels = {track.object_id: track.label for track in tracks}
        ids = tuple(prompt.object_id for prompt in add.prompts)
        headers = tuple(self._headers[prompt.stamp_ns] for prompt in add.prompts)
        add.answer(Code.OK, object_ids=ids, labels=tuple(labels.get(name, 0) for name in ids), headers=headers)

    def refuse(self, request: Request, error: Exception) -> None:
        code = code_of(error)
        request.answer(code, reason_of(error))
        if code is Code.INTERNAL:
            self._failed(error)

    def remember(self, stamp_ns: int, header: object, arrived_ns: int) -> None:
        """Keeps the header of a processed image; prompts may name it until it leaves the history."""
        self._newest_ns, self._newest_arrived_ns = stamp_ns, arrived_ns
        self._headers.pop(stamp_ns, None)  # a stamp may come twice if the clock is set back; keep the order
        self._headers[stamp_ns] = header
        while len(self._headers) > self._history_frames:
            del self._headers[next(iter(self._headers))]

    def forget_images(self) -> None:
        self._headers.clear()

    def expire_ahead(self, now_ns: int) -> None:
        """Answers STALE to overdue Adds on images later than the newest, so that they no longer hold other requests."""
        for request in self._too_late(now_ns):
            ahead_ns = max(prompt.stamp_ns for prompt in request.prompts) - self._newest_ns
            if ahead_ns > 0:
                self.waiting.remove(request)
                when = f": its stamp is {ahead_ns / 1e9:.3f} s later than the newest image's" if self._newest_ns else ""
                clock = "; is it of another clock?" if when and ahead_ns >= ANOTHER_CLOCK_NS else ""
                request.answer(Code.STALE, f"the image the prompt was made on did not come{when}{clock}")

    def expire(self, any_image: bool, why_none: Callable[[], str], now_ns: int) -> None:
        """Answers NO_IMAGE to overdue Adds. any_image: whether any image has come; why_none: returns why none comes, ""
        = unknown. now_ns: the same as for `sort_out`, so that no deadline falls between the two calls."""
        for request in self._too_late(now_ns):
            self.waiting.remove(request)
            why = f"; {known}" if (known := why_none()) else ""
            if any_image:
                hint = "" if all(prompt.stamp_ns for prompt in request.prompts) else WITHOUT_STAMP
                request.answer(Code.NO_IMAGE, f"no image has come since, and a prompt needs the next one{hint}{why}")
            else:
                request.answer(Code.NO_IMAGE, f"no image came{why or '; is the camera running?'}")

    def fail_overdue(self, now_ns: int) -> None:
        """Answers INTERNAL to overdue Adds that an error kept from expiring: the worker would not sleep any more."""
        for request in self._too_late(now_ns):
            self.waiting.remove(request)
            request.answer(Code.INTERNAL, "an error inside the node; nothing was done")

    def close(self, later: list[Request]) -> None:
        """Answers STOPPING to all requests, including those that arrived `later`."""
        for request in [*self.waiting, *later]:
            try:
                request.answer(Code.STOPPING, "the node is stopping")
            except Exception as error:  # an answer that cannot be delivered must not affect the others
                self._failed(error)
        self.waiting = []

    def _too_late(self, now_ns: int) -> list[Add]:
        return [request for request in self.waiting if isinstance(request, Add) and request.deadline_ns <= now_ns]

    def _name_new(self, tracker: sam2.Tracker, add: Add) -> None:
        """Gives every prompt for a new object ("") an unused id."""
        taken = self.object_ids.union(tracker.object_ids)
        for index, prompt in enumerate(add.prompts):
            while not prompt.object_id:
                self._named += 1
                if (name := f"object_{self._named}") not in taken:
                    prompt = add.prompts[index] = replace(prompt, object_id=name)

    def _is_due(self, add: Add, frame: sam2.Frame | None, now_ns: int) -> bool:
        """Whether all prompts are for `frame` or earlier images; without a frame, whether their images were processed
        and the deadline has passed. A prompt for the next image may then run on the newest one if that arrived after
        the request, which another one held at the time, or with `newest_will_do`."""
        stamps_ns = [prompt.stamp_ns for prompt in add.prompts]
        if frame is not None:
            return all(stamp_ns <= frame.stamp_ns for stamp_ns in stamps_ns)
        if not self._headers or now_ns < add.deadline_ns:
            return False
        newest_will_do = add.newest_will_do or self._newest_arrived_ns > add.asked_ns
        return all(stamp_ns <= self._newest_ns and (stamp_ns or newest_will_do) for stamp_ns in stamps_ns)

    def _accept(self, tracker: sam2.Tracker, add: Add, frame: sam2.Frame | None) -> bool:
        """Whether all prompts of a request pass the tracker's checks; if not, answers it. Gives new objects an id, and
        each prompt the stamp of the image that it will run on; changes nothing in the tracker."""
        self._name_new(tracker, add)
        try:
            add.check()
            for index, prompt in enumerate(add.prompts):
                if add.only_live and prompt.object_id not in tracker.object_ids:
                    raise sam2.UnknownObject(f"{prompt.object_id!r} was removed since the image the prompt was made on")
                with prompt_in.numbered(index, len(add.prompts)):
                    [stamp_ns] = tracker.check(prompt, frame, seen=frame is None)
                add.prompts[index] = replace(prompt, stamp_ns=stamp_ns)
        except sam2.DeviceLost:
            raise
        except Exception as error:  # whatever it is, the request is answered and the others go on
            self.refuse(add, error)
            return False
        return True

    def _serve(self, tracker: sam2.Tracker, request: Request) -> None:
        """Carries out a request that needs no image."""
        unknown: list[str] = []
        done: tuple[str, ...] = ()
        try:
            if isinstance(request, Restore):
                done = tuple(tracker.restore(request.path, request.chosen, request.max_age_s))
                self._back(done)
            elif isinstance(request, Save):
                done = tuple(tracker.save(request.path, request.chosen))
            elif isinstance(request, Remove):
                unknown = sorted(request.object_ids - set(tracker.object_ids))
                for name in sorted(request.object_ids - set(unknown)):
                    tracker.remove(name)
                    self._gone([name])
            else:  # a reset; images are kept, so that people can still prompt what they see
                for name in tracker.object_ids:
                    tracker.remove(name)
                self._gone(None)
        except sam2.DeviceLost:
            raise
        except Exception as error:
            self.refuse(request, error)
            return
        if unknown:
            known = ", ".join(tracker.object_ids) or "nothing"
            sentence = f"not tracked: {', '.join(unknown)}; tracked: {known}"
            request.answer(Code.UNKNOWN_OBJECT, sentence, unknown_ids=tuple(unknown))
        else:
            request.answer(Code.OK, object_ids=done)


def code_of(error: Exception) -> Code:
    """The code that answers a request that ended in `error`."""
    for kind, code in (
        (sam2.Stale, Code.STALE),
        (sam2.UnknownObject, Code.UNKNOWN_OBJECT),
        (sam2.LimitReached, Code.LIMIT_REACHED),
        (sam2.BadInput, Code.BAD_INPUT),
    ):
        if isinstance(error, kind):
            return code
    return Code.INTERNAL
