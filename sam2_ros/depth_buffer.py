"""Recent depth images by stamp: which one belongs to a camera image? Bounded, and survives any jump of the clock.

Knows stamps and threads. Does not look into what it keeps. Times are nanoseconds.
"""

import statistics
import threading
from collections import deque
from typing import Any, NamedTuple

from sam2_ros.stamps import Stamp, StampWatch

KEPT = 8
MOST_APART_NS = 50_000_000  # however slow the depth camera is: a robot has moved by then


class Entry(NamedTuple):
    stamp_ns: int
    depth: Any


class DepthBuffer:
    """Written by the executor, read by the worker.

    The worker says for which image it will want depth when it begins with it; that image's depth is kept however long
    the network takes.
    """

    def __init__(self, jump_ns: int) -> None:
        self.newest_ns = 0  # stamp; 0 = there was none
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._steps_ns: deque[int] = deque(maxlen=KEPT)  # between stamps
        self._watch = StampWatch(jump_ns)
        self._wanted_ns, self._held = 0, None
        self._lock = threading.Lock()

    def add(self, stamp_ns: int, depth: Any, now_ns: int, simulated_ns: int = 0) -> Stamp:
        """Keeps a depth image unless its stamp is a duplicate or late; a clock that was set forgets those before."""
        with self._lock:
            verdict = self._watch.judge(stamp_ns, now_ns, simulated_ns)
            if not verdict.usable or stamp_ns == 0:
                return verdict
            if verdict is not Stamp.NEXT:
                self._entries.clear()
                self._steps_ns.clear()
                self._held = None
            elif self.newest_ns:
                self._steps_ns.append(stamp_ns - self.newest_ns)
            self.newest_ns = stamp_ns
            self._entries.append(Entry(stamp_ns, depth))
            self._held = self._nearest(self._wanted_ns)
        return verdict

    def want(self, stamp_ns: int) -> None:
        """The worker begins with the image of this stamp."""
        with self._lock:
            self._wanted_ns, self._held = stamp_ns, None
            self._held = self._nearest(stamp_ns)

    def find(self, stamp_ns: int) -> tuple[Any, str]:
        """(depth image of that stamp, "") or the one at most half a frame from it; (None, why not) if there is none."""
        with self._lock:
            nearest, slop_ns = self._nearest(stamp_ns), self.slop_ns
        if nearest is None:
            return None, "no depth image has come"
        apart_ns = nearest.stamp_ns - stamp_ns
        if abs(apart_ns) > slop_ns:
            return None, (
                f"the nearest depth image is {abs(apart_ns) / 1e9:.3f} s {'newer' if apart_ns > 0 else 'older'} than "
                f"the image; expected at most {slop_ns / 1e9:.3f} s"
            )
        return nearest.depth, ""

    def may_come(self, stamp_ns: int) -> bool:
        """Whether the depth of an image can still be on its way: nothing close to it or newer has been seen."""
        with self._lock:
            return stamp_ns - self.newest_ns > self.slop_ns

    @property
    def slop_ns(self) -> int:
        """Half a frame of the depth camera; 0, exact stamps only, until that is known."""
        return min(int(statistics.median(self._steps_ns) / 2), MOST_APART_NS) if self._steps_ns else 0

    def _nearest(self, stamp_ns: int) -> Entry | None:
        kept = [*self._entries, self._held] if self._held is not None else self._entries
        return min(kept, key=lambda entry: abs(entry.stamp_ns - stamp_ns), default=None)
