"""The requests that the worker serves. Every request is answered exactly once.

Knows threads. Does not know ROS topics or services, nor what a prompt contains. Times are nanoseconds of the steady
clock.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_ros.readable import readable

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
    object_ids: tuple[str, ...] = ()  # those prompted (in the order asked), saved or restored
    unknown_ids: tuple[str, ...] = ()  # Remove: those that are not tracked
    labels: tuple[int, ...] = ()  # Add: their values in the label mask
    headers: tuple[Any, ...] = ()  # Add: of the image that each prompt was applied to


class Request:
    """A request to the worker. It may be answered from any thread; only the first answer counts.

    reply: called with the Answer, in the thread that answers. It must return at once. The request then lets go of it:
    whoever made the request may keep that, and the cycle would keep results alive until Python next collects garbage.
    """

    def __init__(self, reply: Callable[[Answer], None]) -> None:
        self.asked_ns = time.monotonic_ns()
        self._begun = False
        self._reply: Callable[[Answer], None] | None = reply  # None = it is answered
        self._lock = threading.Lock()

    @property
    def answered(self) -> bool:
        return self._reply is None

    @property
    def object_ids(self) -> set[str] | None:
        """The objects it names; None = all."""
        return None

    def answer(self, code: Code, sentence: str = "", **more: Any) -> None:
        """more: other fields of the Answer."""
        if reply := self._claim():
            reply(Answer(code, readable(sentence), **more))

    def begin(self) -> bool:
        """Marks it as being carried out, after which `give_up` has no effect; False if it is answered already."""
        with self._lock:
            self._begun = not self.answered
        return self._begun

    def give_up(self, code: Code, sentence: str) -> None:
        """Answers it unless it is being carried out; then its outcome will be the answer."""
        if reply := self._claim(unless_begun=True):
            reply(Answer(code, readable(sentence)))

    def _claim(self, unless_begun: bool = False) -> Callable[[Answer], None] | None:
        """Marks it as answered and returns its reply; None if it is answered already or, with `unless_begun`, is being
        carried out."""
        with self._lock:
            if unless_begun and self._begun:
                return None
            reply, self._reply = self._reply, None
        return reply


class Add(Request):
    """Prompt objects, all or nothing.

    deadline_ns: until when it waits for a new image. only_live: refused if an object has been removed meanwhile,
    instead of creating it again. newest_will_do: if no new image comes, prompts without a stamp run on the newest one.
    check: called when the request is due; raises BadInput for what cannot be checked before an image comes.
    """

    def __init__(
        self,
        prompts: "list[sam2.Prompt]",
        deadline_ns: int,
        reply: Callable[[Answer], None],
        only_live: bool = False,
        newest_will_do: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(reply)
        self.prompts = prompts
        self.deadline_ns = deadline_ns
        self.only_live, self.newest_will_do, self.check = only_live, newest_will_do, check

    @property
    def object_ids(self) -> set[str]:
        return {prompt.object_id for prompt in self.prompts}


class Remove(Request):
    """Forget objects."""

    def __init__(self, object_ids: list[str], reply: Callable[[Answer], None]) -> None:
        super().__init__(reply)
        self._object_ids = set(object_ids)

    @property
    def object_ids(self) -> set[str]:
        return self._object_ids


class Reset(Request):
    """Forget all objects."""


class Save(Request):
    """Write objects' memories to disk; none named = all."""

    def __init__(self, path: Path, object_ids: list[str], reply: Callable[[Answer], None]) -> None:
        super().__init__(reply)
        self.path, self.chosen = path, object_ids

    @property
    def object_ids(self) -> set[str] | None:
        return set(self.chosen) or None


class Restore(Save):
    """Track saved objects again. max_age_s: older files are refused; 0 = any age."""

    def __init__(self, path: Path, object_ids: list[str], max_age_s: float, reply: Callable[[Answer], None]) -> None:
        super().__init__(path, object_ids, reply)
        self.max_age_s = max_age_s
