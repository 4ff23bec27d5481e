"""Keeps recent depth images and finds the one that belongs to a camera image. Bounded; survives any clock jump.

Knows stamps and threads. Does not look into the depth images. Times are in nanoseconds.
"""

import statistics
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from sam2_ros.stamps import Stamp, StampWatch

KEPT = 16  # at 30 per second, half a second
MOST_BEHIND_NS = 1_000_000_000  # depth that lags further behind is not waited for
MOST_APART_NS = 50_000_000  # no more even for a slow depth camera: the robot may have moved


class Entry(NamedTuple):
    stamp_ns: int
    depth: Any


class DepthBuffer:
    """Written by the executor, read by the worker.

    However long the network takes, the buffer keeps the depth of the images that the worker has named (`want`), and of
    the two newest: one may wait for the worker, which may be decoding the other and name it only afterwards.
    """

    def __init__(self, jump_ns: int) -> None:
        self.newest_ns = 0  # stamp; 0 = there was none
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._steps_ns: deque[int] = deque(maxlen=KEPT)  # between stamps
        self._watch = StampWatch(jump_ns)
        self._wanted_ns: tuple[int, ...] = ()  # stamps of images
        self._newest_image_ns = self._second_image_ns = 0  # stamps of the newest and the one before
        self._before_set_back_ns: set[int] = set()  # stamps of images from before their clock was set back
        self._depth_clock_changed = False  # since the newest image
        self._held: list[Entry] = []  # nearest to each wanted image and to the two newest
        self._lock = threading.Lock()

    def add(self, stamp_ns: int, depth: Any, now_ns: int, simulated_ns: int = 0) -> Stamp:
        """Keeps a depth image unless its stamp is 0, a duplicate or late. If the clock has changed, drops all depth
        images from before the change."""
        with self._lock:
            verdict = self._watch.judge(stamp_ns, now_ns, simulated_ns)
            if not verdict.usable or stamp_ns == 0:
                return verdict
            if verdict is not Stamp.NEXT:
                self._forget()
                self._depth_clock_changed = True
            elif self.newest_ns:
                self._steps_ns.append(stamp_ns - self.newest_ns)
            self.newest_ns = stamp_ns
            self._entries.append(Entry(stamp_ns, depth))
            self._hold()
        return verdict

    def want(self, stamps_ns: Iterable[int]) -> None:
        """Says for which images the worker still needs depth; it needs none for others that it has taken."""
        with self._lock:
            self._wanted_ns = tuple(stamps_ns)
            self._before_set_back_ns.intersection_update(self._wanted_ns)
            self._hold()

    def note_image(self, stamp_ns: int) -> None:
        """Notes an image that waits for the worker. If the clock of the images was set back, earlier depth does not
        belong to this image, nor later depth to earlier images, whatever the stamps say."""
        with self._lock:
            if 0 < stamp_ns < self._newest_image_ns:
                self._before_set_back_ns = {*self._wanted_ns, self._newest_image_ns}
                if not self._depth_clock_changed:
                    self._forget()
            self._depth_clock_changed = False
            if stamp_ns:
                self._newest_image_ns, self._second_image_ns = stamp_ns, self._newest_image_ns
            self._hold()

    def find(self, stamp_ns: int) -> tuple[Any, str]:
        """(the depth image nearest to that stamp, at most `slop_ns` away, ""); (None, why not) if there is none."""
        with self._lock:
            nearest, slop_ns, is_past = self._nearest(stamp_ns), self.slop_ns, stamp_ns in self._before_set_back_ns
        if is_past:
            return None, "the clock was set back after the image, and depth that comes now may be of another time"
        if nearest is None:
            return None, "no depth image has come"
        if not stamp_ns:
            return None, "the image has no stamp, by which its depth would be found"
        apart_ns = nearest.stamp_ns - stamp_ns
        if abs(apart_ns) > slop_ns:
            return None, (
                f"the nearest depth image is {abs(apart_ns) / 1e9:.3f} s {'newer' if apart_ns > 0 else 'older'} than "
                f"the image; expected at most {slop_ns / 1e9:.3f} s"
            )
        return nearest.depth, ""

    def may_come(self, stamp_ns: int) -> bool:
        """Whether the depth of an image may still come: the newest depth is older than the image, by more than
        `slop_ns` but at most MOST_BEHIND_NS."""
        with self._lock:
            is_behind = self.slop_ns < stamp_ns - self.newest_ns <= MOST_BEHIND_NS
            return is_behind and stamp_ns not in self._before_set_back_ns

    @property
    def slop_ns(self) -> int:
        """Half the period of the depth camera, at most MOST_APART_NS; 0 (exact stamps only) until that is known."""
        return min(int(statistics.median(self._steps_ns) / 2), MOST_APART_NS) if self._steps_ns else 0

    def _forget(self) -> None:
        self._entries.clear()
        self._steps_ns.clear()
        self._held = []

    def _hold(self) -> None:
        images_ns = (*self._wanted_ns, self._newest_image_ns, self._second_image_ns)
        found = [self._nearest(stamp_ns) for stamp_ns in images_ns if stamp_ns]
        self._held = [entry for entry in found if entry is not None]

    def _nearest(self, stamp_ns: int) -> Entry | None:
        kept = (*self._entries, *self._held)
        return min(kept, key=lambda entry: abs(entry.stamp_ns - stamp_ns), default=None)
