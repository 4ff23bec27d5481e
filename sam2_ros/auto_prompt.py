"""Queues a detector's messages until the image they are about has been tracked, then turns them into requests.

The executor calls `post`, the worker all other methods. Recent results are kept, because a detector is slower than the
tracker. Knows stamps and requests; `hand_off` decides which box shows which object.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Set
from dataclasses import replace
from functools import partial

import sam2
from sam2_ros.counters import Counters
from sam2_ros.hand_off import Association, Decisions, Detection, as_prompt, boxes_of, twin_of
from sam2_ros.params import Settings
from sam2_ros.requests import Add, Answer, Remove, Request

WAITING = 8  # messages; if the detector is faster than the tracker, the oldest are dropped


class AutoPrompt:
    """Turns one camera's detections into requests.

    answered: called in the worker's thread with (object id, stamp, answer) for each request; id "" = a new object, None
    = objects were removed; stamp: of the image that the request refers to.
    """

    def __init__(
        self, settings: Settings, counters: Counters, answered: Callable[[str | None, int, Answer], None]
    ) -> None:
        self._counters, self._answered = counters, answered
        self.settings = settings  # may be replaced at any time
        self._association = Association(settings)
        self._waiting: deque[tuple[int, list[Detection], bool]] = deque(maxlen=WAITING)  # as they were posted
        # (stamp, tracks), oldest first; no longer than the history, since the tracker refuses prompts on older images
        self._results: deque[tuple[int, list[sam2.Track]]] = deque(maxlen=settings.history_frames)
        self.is_expected = settings.detector_unattended  # whether there is, or will be, a detector
        self._made: list[Request] = []  # the last requests; the next ones are made when all of these are answered
        self._begun: set[str] = set()  # ids of objects that a detection created
        self._lock = threading.Lock()

    def post(self, stamp_ns: int, detections: list[Detection], of_another_clock: bool = False) -> None:
        """Queues a message. Called on the executor. of_another_clock: its image will most likely never come."""
        with self._lock:
            if len(self._waiting) == WAITING:
                _, dropped, was_of_another = self._waiting[0]
                why = "later than all images" if was_of_another else "dropped for a newer message"
                self._counters.count_detections(why, len(dropped))
            self._waiting.append((stamp_ns, detections, of_another_clock))
            self.is_expected = True

    def remember(self, stamp_ns: int, tracks: list[sam2.Track], done: Collection[Add] = ()) -> None:
        """Keeps an image's result. done: requests carried out on it.

        Drops earlier results that do not show all prompted objects: all up to the newest in which one of these was not
        visible, and every one if a prompt replaced what an object remembers (PromptMode.REPLACE).
        """
        left = {track.object_id for track in tracks}
        prompts = [prompt for add in done for prompt in add.prompts if prompt.object_id in left]
        while prompts and any(not _shows(before, prompts) for _, before in self._results):
            self._results.popleft()
        if self._results and self._results[-1][0] == stamp_ns:  # the same image, before its prompts
            self._results.pop()
        if self._results:
            before_ns, before = self._results[-1]
            self._association.note(before, before_ns, tracks)
        self._begun &= left
        if self.is_expected:  # copies drop cached masks, which are computed again if needed
            self._results.append((stamp_ns, [replace(track) for track in tracks]))

    def twins(self, adds: list[Add], tracks: list[sam2.Track]) -> dict[str, str]:
        """Finds twins, objects with nearly the same mask. Returns the ids of those to remove before results are
        published, each with the id of the object that stays. tracks: the oldest object first.

        Of two twins, the one that a detection has just prompted is removed. If neither was, both stay, unless
        the node is unattended: then the younger is removed. Exception: a restored object stays if a detection created
        the older one while it was away.
        """
        twins: dict[str, str] = {}
        mine = [add for add in adds if self.made(add)]
        if not (mine or self.settings.detector_unattended):
            return twins
        boxes = boxes_of(tracks)
        for add in mine:  # new objects come first, so that the new one is removed and not a refreshed one
            name = add.prompts[0].object_id
            stay = [t for t in tracks if t.object_id not in twins]
            other = next((twin_of(t, stay, boxes) for t in stay if t.object_id == name), "")
            if other:
                twins[name] = other
        if self.settings.detector_unattended:
            prompted = {name for add in adds for name in add.object_ids}
            for index, track in enumerate(tracks):
                name, others = track.object_id, [t for t in tracks[: index + 1] if t.object_id not in twins]
                if name not in twins and (other := twin_of(track, others, boxes)):
                    is_restored = other in self._begun and name not in self._begun | prompted
                    twins |= {other: name} if is_restored else {name: other}
        return twins

    def count_twins(self, adds: list[Add], twins: dict[str, str]) -> list[str]:
        """Counts the objects removed as twins; returns the ids of those that no detection has just created."""
        created = {name for add in adds if self.made(add) and not add.only_live for name in add.object_ids}
        self._counters.count_detections("turned out to be tracked", len(created & twins.keys()))
        others = [name for name in twins if name not in created]
        self._counters.count_detections("objects that became another", len(others))
        return others

    def made(self, add: Add) -> bool:
        """Whether a request is one of the last that were made from detections."""
        return add in self._made

    def forget(self) -> None:
        """Forgets everything at the beginning of a new stream."""
        with self._lock:
            self._counters.count_detections("of an earlier stream", sum(len(seen) for _, seen, _ in self._waiting))
            self._waiting.clear()
        self._results.clear()
        self._begun.clear()
        self._association = Association(self.settings)

    def requests(self, size_hw: tuple[int, int] | None, asked: Set[str] = frozenset()) -> list[Request]:
        """Turns the next message whose image has been processed into requests; one message at a time, since each must
        see what the previous one changed. asked: ids that waiting requests name; these objects are not removed."""
        if size_hw is None or not self._results or not all(request.answered for request in self._made):
            return []
        made: list[Request] = []
        newest_ns, newest = self._results[-1]
        # From the newest result: an object unseen in the message's own image may have been seen since.
        unseen = [name for name in self._association.forgotten(newest, newest_ns) if name not in asked]
        while not made and (due := self._take()):
            stamp_ns, detections = due
            if stamp_ns and stamp_ns < min(at_ns for at_ns, _ in self._results):  # dropped, see `remember`
                self._counters.count_detections("too late", len(detections))
                continue
            at_ns, tracks = _nearest([*self._results], stamp_ns or newest_ns)
            decisions = self._association.step(detections, tracks, at_ns)
            gone = [name for name in decisions.remove if name in unseen]
            made = self._requests_for(replace(decisions, remove=gone), at_ns, size_hw)
        if not made:  # a detector that sees nothing may send nothing
            made = self._requests_for(Decisions(remove=unseen), newest_ns, size_hw)
        self._made = made
        return made

    def _take(self) -> tuple[int, list[Detection]] | None:
        """Takes the oldest message whose image has been processed; skips messages that are ahead of the images."""
        with self._lock:
            for index, (stamp_ns, detections, _) in enumerate(self._waiting):
                if stamp_ns <= self._results[-1][0]:
                    del self._waiting[index]
                    return stamp_ns, detections
        return None

    def _requests_for(self, decisions: Decisions, stamp_ns: int, size_hw: tuple[int, int]) -> list[Request]:
        """Counts the decisions about an image's boxes, and returns the requests for them."""
        for reason, count in decisions.ignored.items():
            self._counters.count_detections(reason, count)
        wanted = [("", detection) for detection in decisions.new] + decisions.refresh
        prompts = [as_prompt(detection, name, stamp_ns, size_hw) for name, detection in wanted]
        made: list[Request] = []
        if decisions.remove:
            self._counters.count_detections("objects removed", len(decisions.remove))
            made.append(Remove(decisions.remove, partial(self._done, None, stamp_ns)))
        self._counters.count_detections("outside the image", prompts.count(None))
        for prompt in filter(None, prompts):
            self._counters.count_detections("objects refreshed" if prompt.object_id else "objects new", 1)
            deadline_ns = time.monotonic_ns() + int(self.settings.prompt_wait_s * 1e9)
            reply = partial(self._done, prompt.object_id, stamp_ns)
            made.append(Add([prompt], deadline_ns, reply, only_live=bool(prompt.object_id)))
        return made

    def _done(self, object_id: str | None, stamp_ns: int, answer: Answer) -> None:
        if object_id is None:
            self._results.clear()
        elif object_id == "":
            self._begun.update(answer.object_ids)
        self._answered(object_id, stamp_ns, answer)


def _nearest(results: list[tuple[int, list[sam2.Track]]], stamp_ns: int) -> tuple[int, list[sam2.Track]]:
    """The newest with this stamp or else the nearest in time, of those since the clock was set back if it has shown the
    stamp again."""
    if all(at_ns != stamp_ns for at_ns, _ in results):
        again = [i for i in range(1, len(results)) if results[i - 1][0] > results[i][0] <= stamp_ns]
        results = results[max(again, default=0) :]
    return min(reversed(results), key=lambda result: abs(result[0] - stamp_ns))


def _shows(tracks: list[sam2.Track], prompts: list[sam2.Prompt]) -> bool:
    """Whether all prompted objects are visible, and no prompt replaces what its object remembers."""
    visible = {track.object_id for track in tracks if track.state is sam2.State.VISIBLE}
    return all(prompt.object_id in visible and prompt.mode is sam2.PromptMode.ADD for prompt in prompts)
