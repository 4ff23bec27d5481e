"""What waits for the worker: the newest image, and requests in order of arrival.

Knows threads. Does not know ROS topics or services, nor what an image or a prompt contains. Times are nanoseconds of
the steady clock unless they are stamps.
"""

import threading
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sam2_ros.requests import Code, Request


@dataclass(frozen=True)
class Arrival:
    """An image message that passed `image_in.check`."""

    message: Any  # sensor_msgs/Image or CompressedImage
    stamp_ns: int
    arrived_ns: int
    new_stream: bool = False  # the clock jumped: earlier images belong to another stream


class Work(NamedTuple):
    """What one `take` returns."""

    arrival: Arrival | None
    requests: list[Request]


class Mailbox:
    """Holds at most one image, the newest, and at most `max_requests` requests.

    bell: notified of every image and request; the mailboxes of one worker share it.
    """

    def __init__(self, max_requests: int, bell: threading.Condition | None = None) -> None:
        self.max_requests = max_requests
        self.bell = bell or threading.Condition()
        self._arrival: Arrival | None = None
        self._discarded_new_stream = False  # whether a discarded image began a new stream
        self._requests: list[Request] = []
        self._in_hand = 0  # requests that the worker took and still holds
        self._woken = False
        self._closed = False

    def post_image(self, arrival: Arrival) -> bool:
        """Posts the newest image; True if it replaced one, which is dropped."""
        with self.bell:
            dropped = self._arrival
            # If the first image of a new stream is dropped, the next one must carry its mark.
            if self._discarded_new_stream or (dropped is not None and dropped.new_stream):
                arrival = replace(arrival, new_stream=True)
            self._arrival, self._discarded_new_stream = arrival, False
            self.bell.notify()
        return dropped is not None

    def post_request(self, request: Request) -> None:
        """Queues a request, or answers it BUSY if `max_requests` wait already, or STOPPING after `close`."""
        with self.bell:
            is_closed, is_full = self._closed, len(self._requests) + self._in_hand >= self.max_requests
            if not (is_closed or is_full):
                self._requests.append(request)
                self.bell.notify()
        if is_closed:
            request.answer(Code.STOPPING, "the node is stopping")
        elif is_full:
            request.answer(Code.BUSY, f"{self.max_requests} requests are waiting already; ask again")

    def take(self) -> Work:
        """Takes everything that waits. The requests keep counting against `max_requests` until `count_in_hand` says
        otherwise."""
        with self.bell:
            work = Work(self._arrival, self._requests)
            self._arrival, self._requests, self._woken = None, [], False
            self._in_hand += len(work.requests)
        return work

    def count_in_hand(self, requests: int) -> None:
        """Says how many requests the worker still holds."""
        with self.bell:
            self._in_hand = requests

    @property
    def has_work(self) -> bool:
        """Whether the worker has something to do. Call it with the bell held."""
        return bool(self._arrival or self._requests or self._woken)

    def wake(self) -> None:
        """Makes the current or the next `wait_for_any` return."""
        with self.bell:
            self._woken = True
            self.bell.notify()

    def close(self) -> list[Request]:
        """Discards the image, returns the requests that were never taken, and has further ones answered STOPPING."""
        with self.bell:
            self._closed = True
            left, self._requests, self._arrival = self._requests, [], None
        return left

    def discard_image(self) -> bool:
        """Discards the waiting image; True if there was one."""
        with self.bell:
            discarded, self._arrival = self._arrival, None
            self._discarded_new_stream |= discarded is not None and discarded.new_stream
        return discarded is not None


def wait_for_any(mailboxes: list[Mailbox], timeout_s: float) -> None:
    """Waits until one of `mailboxes`, which share a bell, has work, for at most `timeout_s`."""
    bell = mailboxes[0].bell
    with bell:
        bell.wait_for(lambda: any(mailbox.has_work for mailbox in mailboxes), timeout_s)
