"""Everything that is counted for one camera. Written by the executor and the worker, read by `health.report`.

Knows no ROS. Times are nanoseconds of the steady clock.
"""

import threading
import traceback
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sam2_ros.readable import readable, utf8

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

WINDOW = 100  # images that rates and percentiles are taken over


def _recent() -> deque:
    return deque(maxlen=WINDOW)


@dataclass
class Counters:
    """Counts since the node started. Methods may be called from any thread. Fields that are assigned directly have one
    writer each: the worker for `busy_since_ns` and `depth_wanted`, the executor for all others."""

    received: int = 0  # images
    dropped: int = 0  # replaced by a newer one before they were processed
    processed: int = 0
    published: int = 0
    withheld: int = 0  # results of images that were being processed when the node was deactivated
    ignored: int = 0  # arrived while disabled, or waited when the camera was disabled or the node deactivated
    unstamped: int = 0
    unstamped_in_a_row: int = 0
    lost_on_the_way: int = 0  # as reported by the middleware
    failures_in_a_row: int = 0  # images
    unpublished_in_a_row: int = 0  # results that could not be published completely
    late_in_a_row: int = 0
    refused_in_a_row: int = 0
    is_broken: bool = False  # whether decoding failed when it was last tried
    largest_image_bytes: int = 0
    last_image_ns: int = 0
    busy_since_ns: int = 0  # 0 = idle
    depth_received: int = 0
    depth_matched: int = 0  # images with depth
    depth_missed: int = 0  # images that wanted depth and had none
    depth_wanted: bool = False  # whether any 3-D output has a subscriber
    depth_trouble: str = ""  # why the newest image had no depth, or not on all objects; "" = no trouble
    depth_refused: Counter = field(default_factory=Counter)  # depth images and calibrations, by reason
    refused: Counter = field(default_factory=Counter)  # images, by reason
    detections: Counter = field(default_factory=Counter)  # a detector's boxes, by outcome
    answers: Counter = field(default_factory=Counter)  # requests, by code
    resets: Counter = field(default_factory=Counter)  # by cause
    failures: Counter = field(default_factory=Counter)  # by kind
    # The newest sentence about a refused image ("refused"), a failed one ("image"), another failure ("publish", ...) or
    # an answer (its code).
    said: dict[str, str] = field(default_factory=lambda: defaultdict(str))
    resets_ns: deque = field(default_factory=_recent)
    ways: deque = field(default_factory=_recent)  # whether an image arrived (True) or was lost on the way
    codes: deque = field(default_factory=_recent)  # (time, code) of the newest answers
    arrivals_ns: deque = field(default_factory=_recent)
    outputs_ns: deque = field(default_factory=_recent)
    ages_ns: deque = field(default_factory=_recent)  # from an image's arrival to its result
    steps_ns: deque = field(default_factory=_recent)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begin_anew(self) -> None:
        """Resets what depends on the network that was loaded: the next one may be faster."""
        with self.lock:
            self.failures_in_a_row = self.unpublished_in_a_row = self.late_in_a_row = 0

    def receive_image(self, now_ns: int, size_bytes: int) -> None:
        with self.lock:
            self.received += 1
            self.ways.append(True)
            self.last_image_ns = now_ns
            self.arrivals_ns.append(now_ns)
            self.largest_image_bytes = max(self.largest_image_bytes, size_bytes)

    def drop_image(self) -> None:
        with self.lock:
            self.dropped += 1
            if not self.is_broken:
                self.refused_in_a_row = 0  # it passed the check, though it is never processed

    def note_stamp(self, is_known: bool) -> None:
        with self.lock:
            self.unstamped += not is_known
            self.unstamped_in_a_row = 0 if is_known else self.unstamped_in_a_row + 1

    def lose_on_the_way(self, number: int) -> None:
        with self.lock:
            self.lost_on_the_way += number
            self.ways.extend([False] * min(number, WINDOW))

    def refuse_image(self, reason: str, sentence: str, is_broken: bool = False) -> None:
        """is_broken: it passed the check on its arrival, but could not be decoded."""
        with self.lock:
            self.is_broken |= is_broken
            self.refused[reason] += 1
            self.refused_in_a_row += 1
            self.said["refused"] = sentence

    def refuse_depth(self, reason: str, sentence: str) -> None:
        with self.lock:
            self.depth_refused[reason] += 1
            self.depth_trouble = readable(sentence)

    def match_depth(self, trouble: str) -> None:
        """Counts an image that has its depth. trouble: a problem with that depth nevertheless; "" = none."""
        with self.lock:
            self.depth_matched += 1
            self.depth_trouble = readable(trouble)

    def miss_depth(self, sentence: str) -> None:
        with self.lock:
            self.depth_missed += 1
            self.depth_trouble = readable(sentence)

    def forget_depth_trouble(self) -> None:
        with self.lock:
            self.depth_trouble = ""

    def count_step(self, took_ns: int) -> None:
        with self.lock:
            self.processed += 1
            self.failures_in_a_row = self.refused_in_a_row = 0
            self.is_broken = False
            self.steps_ns.append(took_ns)

    def count_failed_image(self) -> None:
        """Counts an image that failed in the network or on the way there."""
        with self.lock:
            self.failures_in_a_row += 1
            self.refused_in_a_row = 0
            self.is_broken = False

    def count_failure(self, kind: str, sentence: str) -> int:
        """Counts a failure; returns how many of this kind there were so far. kind: where, and the error's type."""
        where = kind.partition(":")[0]
        with self.lock:
            self.failures[kind] += 1
            self.said["image" if where in ("step", "turn") else where] = readable(f"{kind}: {sentence}")
            return self.failures[kind]

    def note_failure(self, what: str, error: Exception, log: "RcutilsLogger") -> None:
        """Counts an error; the first of its kind is logged with its traceback."""
        kind = f"{what}: {type(error).__name__}"
        if self.count_failure(kind, str(error)) == 1:
            trace = "".join(traceback.format_exception(error))
            log.error(f"{readable(f'{kind}: {error}')}; more of this kind are only counted\n{utf8(trace)}")

    def count_output(self, arrived_ns: int, now_ns: int, max_age_s: float) -> None:
        with self.lock:
            self.published += 1
            self.unpublished_in_a_row = 0
            self.outputs_ns.append(now_ns)
            self.ages_ns.append(now_ns - arrived_ns)
            self.late_in_a_row = self.late_in_a_row + 1 if now_ns - arrived_ns > max_age_s * 1e9 else 0

    def count_detections(self, what: str, number: int) -> None:
        if number:
            with self.lock:
                self.detections[what] += number

    def count_withheld(self) -> None:
        with self.lock:
            self.withheld += 1

    def count_unpublished(self) -> None:
        with self.lock:
            self.unpublished_in_a_row += 1

    def count_reset(self, cause: str, now_ns: int) -> None:
        with self.lock:
            self.resets[cause] += 1
            self.resets_ns.append(now_ns)

    def count_answer(self, code: str, now_ns: int, sentence: str = "") -> None:
        with self.lock:
            self.answers[code] += 1
            self.codes.append((now_ns, code))
            self.said[code] = sentence
