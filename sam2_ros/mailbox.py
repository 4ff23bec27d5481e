"""What waits for the worker: the newest image, and requests in order of arrival, each answered exactly once.

Knows threads. Does not know ROS topics or services, nor what an image or a prompt contains. Times are nanoseconds of
the steady clock unless they are stamps.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sam2


class Code(IntEnum):
    """How a request ended; names and values are those of `sam2_ros/msg/PromptResult`."""

    OK = 0
    BAD_INPUT = 1
    STALE = 2
    UNKNOWN_OBJECT = 3
    LIMIT_REACHED = 4
    NOT_ACTIVE = 5
    LOADING = 6
    BUSY = 7
    STOPPING = 8
    NO_IMAGE = 9
    INTERNAL = 10


@dataclass(frozen=True)
class Answer:
    code: Code
    sentence: str = ""  # for people; "" when OK
    object_ids: tuple[str, ...] = ()  # those prompted, in the order asked, saved or restored
    unknown_ids: tuple[str, ...] = ()  # Remove: of what is not tracked
    labels: tuple[int, ...] = ()  # Add: their values in the label mask
    headers: tuple[Any, ...] = ()  # Add: of the image that each prompt was applied to


class Request:
    """Something asked of the worker. `reply` may be called from any thread; only the first answer counts.

    reply: called with the Answer. It must return at once.
    """

    object_ids: set[str] | None = None  # whom it is about; None = all objects

    def __init__(self, reply: Callable[[Answer], None]) -> None:
        self.asked_ns = time.monotonic_ns()
        self.answered = False
        self._begun = False
        self._reply = reply
        self._lock = threading.Lock()

    def answer(self, code: Code, sentence: str = "", **more) -> None:
        with self._lock:
            if self.answered:
                return
            self.answered = True
        self._reply(Answer(code, sentence, **more))

    def begin(self) -> bool:
        """It is being carried out, and can be given up no more; False if it has been answered already."""
        with self._lock:
            self._begun = not self.answered
        return self._begun

    def give_up(self, code: Code, sentence: str) -> None:
        """Answers it, unless it is being carried out: then what comes of that is its answer."""
        with self._lock:
            if self.answered or self._begun:
                return
            self.answered = True
        self._reply(Answer(code, sentence))


class Add(Request):
    """Prompt objects, all or nothing.

    deadline_ns: when it is answered, whether an image came or not. only_live: an object that is gone by then, because
    somebody removed it, stays away.
    """

    def __init__(
        self, prompts: "list[sam2.Prompt]", deadline_ns: int, reply: Callable[[Answer], None], only_live: bool = False
    ) -> None:
        super().__init__(reply)
        self.prompts = prompts
        self.deadline_ns = deadline_ns
        self.only_live = only_live

    @property
    def object_ids(self) -> set[str]:
        return {prompt.object_id for prompt in self.prompts}


class Remove(Request):
    """Forget objects."""

    def __init__(self, object_ids: list[str], reply: Callable[[Answer], None]) -> None:
        super().__init__(reply)
        self.object_ids = set(object_ids)


class Reset(Request):
    """Forget all objects."""


class Save(Request):
    """Write what objects remember to disk; none named = all."""

    def __init__(self, path: Path, object_ids: list[str], reply: Callable[[Answer], None]) -> None:
        super().__init__(reply)
        self.path, self.chosen = path, object_ids
        self.object_ids = set(object_ids) or None


class Restore(Save):
    """Track again what was saved. max_age_s: older files are refused; 0 = any age."""

    def __init__(self, path: Path, object_ids: list[str], max_age_s: float, reply: Callable[[Answer], None]) -> None:
        super().__init__(path, object_ids, reply)
        self.max_age_s = max_age_s


@dataclass(frozen=True)
class Arrival:
    """An image message that passed `image_in.check`."""

    message: Any  # sensor_msgs/Image or CompressedImage
    stamp_ns: int
    arrived_ns: int
    new_stream: bool = False  # the clock jumped: nothing before this image belongs to it


@dataclass(frozen=True)
class Work:
    """What the worker takes at once."""

    arrival: Arrival | None = None
    requests: list[Request] = field(default_factory=list)


class Mailbox:
    """At most one image, always the newest, and at most `max_requests` requests.

    bell: rung by whatever arrives; mailboxes of one worker share one.
    """

    def __init__(self, max_requests: int, bell: threading.Condition | None = None) -> None:
        self.max_requests = max_requests
        self._changed = bell or threading.Condition()
        self._arrival: Arrival | None = None
        self._owes_event = False  # a new stream began with an image that was thrown away
        self._requests: list[Request] = []
        self._in_hand = 0  # requests the worker took and has not finished with
        self._woken = False
        self._closed = False

    def post_image(self, arrival: Arrival) -> bool:
        """Puts the newest image in; True if it took the place of one that will never be processed."""
        with self._changed:
            dropped = self._arrival is not None
            if self._owes_event or (dropped and self._arrival.new_stream):  # it must not be dropped with its image
                arrival = replace(arrival, new_stream=True)
            self._arrival, self._owes_event = arrival, False
            self._changed.notify()
        return dropped

    def post_request(self, request: Request) -> None:
        """Queues a request, or answers it BUSY if `max_requests` wait already, or STOPPING after `close`."""
        with self._changed:
            code = Code.STOPPING if self._closed else None
            if code is None and len(self._requests) + self._in_hand >= self.max_requests:
                code = Code.BUSY
            if code is None:
                self._requests.append(request)
                self._changed.notify()
        if code is Code.STOPPING:
            request.answer(code, "the node is stopping")
        elif code is Code.BUSY:
            request.answer(code, f"{self.max_requests} requests are waiting already; ask again")

    def take(self) -> Work:
        """All there is. The requests go on to count against `max_requests` until `count_in_hand` says otherwise."""
        with self._changed:
            work = Work(self._arrival, self._requests)
            self._arrival, self._requests, self._woken = None, [], False
            self._in_hand += len(work.requests)
        return work

    def count_in_hand(self, requests: int) -> None:
        """So many does the worker still hold."""
        with self._changed:
            self._in_hand = requests

    @property
    def has_work(self) -> bool:
        """Whether the worker has something to do."""
        return bool(self._arrival or self._requests or self._woken)

    def wake(self) -> None:
        """Ends the present or next `wait_for_any`."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def close(self) -> list[Request]:
        """Nothing is taken in any more; returns the requests that nobody took."""
        with self._changed:
            self._closed = True
            left, self._requests, self._arrival = self._requests, [], None
        return left

    def discard_image(self) -> bool:
        """Throws the waiting image away; True if there was one."""
        with self._changed:
            there = self._arrival is not None
            self._owes_event |= there and self._arrival.new_stream
            self._arrival = None
        return there


def wait_for_any(mailboxes: list[Mailbox], timeout_s: float) -> None:
    """Until one of `mailboxes`, which share a bell, has work, at most `timeout_s`."""
    bell = mailboxes[0]._changed
    with bell:
        bell.wait_for(lambda: any(mailbox.has_work for mailbox in mailboxes), timeout_s)
