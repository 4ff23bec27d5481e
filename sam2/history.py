"""The newest frames' features, kept so that a late prompt can still be applied to the image it was made on.

A ring of static buffers. Knows nothing about objects.
"""

from dataclasses import dataclass, replace

import torch

from sam2.errors import BadInput, Stale
from sam2.limits import Limits
from sam2.model import Features


@dataclass(frozen=True)
class Moment:
    """One encoded frame."""

    index: int
    stamp_ns: int
    size_hw: tuple[int, int]  # of the source image
    features: Features  # of a batch of one


class History:
    """Invariant: the kept frames are consecutive, at most `history_frames`, and fit into `history_bytes`. When the
    newest was added, none of the others was older than `history_s`, except perhaps the newest of those."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._capacity = limits.history_frames
        self._buffers: list[Features] = []
        self._moments: list[Moment] = []  # oldest first
        self._before: list[Moment] = []  # `_moments` before the newest was added
        self._overwritten = -1  # index of the frame whose buffer a withdrawn frame overwrote; -1 = none

    @property
    def newest(self) -> Moment | None:
        return self._moments[-1] if self._moments else None

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest kept frame that has one; 0 = none has."""
        return next((moment.stamp_ns for moment in reversed(self._moments) if moment.stamp_ns), 0)

    @property
    def oldest(self) -> Moment | None:
        return self._moments[0] if self._moments else None

    def add(self, index: int, stamp_ns: int, size_hw: tuple[int, int], features: Features) -> Moment:
        """Copies the features into the ring, over the oldest if it is full."""
        self._capacity = max(1, min(self._limits.history_frames, self._limits.history_bytes // _num_bytes(features)))
        if len(self._buffers) < self._capacity:
            self._buffers.append(Features(*(torch.empty_like(part) for part in features)))
        buffer = self._buffers[index % self._capacity]
        for kept, new in zip(buffer, features, strict=True):
            kept.copy_(new)
        self._before = self._moments
        self._moments = [*self._survivors(stamp_ns), Moment(index, stamp_ns, size_hw, buffer)]
        return self._moments[-1]

    def withdraw(self, index: int) -> None:
        """Undoes `add` if the newest frame has this index.

        The frame whose buffer it overwrote stays in the list, for its stamp, but `find_kept` no longer finds it. The
        next frame replaces it anyway.
        """
        if self._moments and self._moments[-1].index == index:
            self._moments, self._overwritten = self._before, index - self._capacity

    def clear(self) -> None:
        self._moments, self._overwritten = [], -1

    def since(self, index: int) -> list[Moment]:
        """The kept frames from `index` on, oldest first. Their stamps are converted to the newest frame's clock, as
        those in an object's records are: a frame from before the clock was set back keeps its age. A stamp of 0,
        unknown, stays 0."""
        found, by_ns, next_ns = [], 0, 0
        for moment in reversed(self._moments):
            if moment.stamp_ns:
                by_ns += max(0, moment.stamp_ns - next_ns) if next_ns else 0
                next_ns = moment.stamp_ns
                moment = replace(moment, stamp_ns=max(next_ns - by_ns, 1)) if by_ns else moment
            found.append(moment)
        return [moment for moment in reversed(found) if moment.index >= index]

    def find(self, stamp_ns: int, now_ns: int) -> Moment | None:
        """The kept frame nearest in time; None if that is the frame with stamp `now_ns`, which is about to be added.

        A skipped image resolves to its nearest neighbour, the newer of two equally near. Frames without a stamp cannot
        be found. Of those from before the clock was set back, the ones later than `now_ns` cannot either, and the
        others only by their own stamp, or by one that the clock has not reached again. Raises Stale with
        the history's bounds for an older stamp, BadInput for one from the future.
        """
        nearest = _nearest(self._survivors(now_ns), stamp_ns, now_ns)
        if nearest is None or abs(now_ns - stamp_ns) <= abs(nearest.stamp_ns - stamp_ns):
            return None
        return nearest

    def find_kept(self, stamp_ns: int) -> Moment:
        """Like `find`, for when no frame is about to be added; a stamp of 0 means the newest. Also raises Stale if a
        failed step overwrote all kept frames. There must have been a frame."""
        intact = [moment for moment in self._moments if moment.index > self._overwritten]
        if not intact:
            raise Stale("prompt: expected a frame that is kept, got none since the newest failed; prompt on the next")
        newest = self._moments[-1]
        if not stamp_ns:
            return newest
        return _nearest(intact, stamp_ns, newest.stamp_ns) or newest

    def _survivors(self, now_ns: int) -> list[Moment]:
        """The frames that are still kept once a frame with stamp `now_ns` has been added."""
        newest = self._moments[max(0, len(self._moments) + 1 - self._capacity) :]
        longest_ns = self._limits.history_s * 1e9
        too_old = [moment.stamp_ns > 0 and now_ns - moment.stamp_ns > longest_ns for moment in newest]  # 0 = unknown
        first = len(too_old) - too_old[::-1].index(True) if any(too_old) else 0
        # The last one stays: on a slow device, or during a pause, it is the image that users see and prompt on.
        return newest[min(first, len(newest) - 1) :]


def _num_bytes(features: Features) -> int:
    return sum(part.numel() * part.element_size() for part in features)


def _nearest(moments: list[Moment], stamp_ns: int, now_ns: int) -> Moment | None:
    """See `History.find`; None if none of `moments` can be found by a stamp."""
    if stamp_ns > now_ns:
        raise BadInput(
            f"prompt.stamp_ns: expected at most the newest frame's {now_ns}, got {stamp_ns}; try again later"
        )
    kept = [moment for moment in moments if 0 < moment.stamp_ns <= now_ns]
    if all(moment.stamp_ns != stamp_ns for moment in kept):
        # Where the clock was set back, and has shown the stamp again since: the image is probably of the time since.
        again = [i for i in range(1, len(kept)) if kept[i - 1].stamp_ns > kept[i].stamp_ns <= stamp_ns]
        kept = kept[max(again, default=0) :]
    first_ns = min((moment.stamp_ns for moment in kept), default=now_ns)
    if stamp_ns < first_ns:
        raise Stale(
            f"prompt.stamp_ns: expected a frame of the kept history, {first_ns} to {now_ns} ns, got {stamp_ns}, "
            f"{(first_ns - stamp_ns) / 1e9:.3f} s too old; prompt on a newer image, or raise "
            "history_frames or history_s"
        )
    return min(reversed(kept), key=lambda m: abs(m.stamp_ns - stamp_ns), default=None)
