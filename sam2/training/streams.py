"""Long clips, learnt a few frames at a time: memories are kept from step to step, without their gradients.

A tracker drifts over dozens of frames. A clip of eight never shows it the memories it will have by then, and a clip of
forty costs too much. This is truncated backpropagation through time (Williams and Peng 1990) over memories.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sam2.training.clips import Bank, ClipPlan
from sam2.training.tensors import send

_AT_ONCE = 4  # streams that take turns, so that steps in a row show different clips


@dataclass
class Stream:
    """B clips of L frames with N objects, tracked up to `time`. They are played to the end and back again."""

    images: Tensor  # (B, L, 3, S, S) normalised
    targets: Tensor  # (N, L, S, S) bool
    plan: ClipPlan
    bank: Bank
    place: tuple[int, int, int]  # what `View.move` takes: side, row and column of the window in the whole image
    length: int  # frames to be tracked, L to 2 L - 1
    time: int = 0  # frames tracked

    @property
    def is_over(self) -> bool:
        return self.time >= self.length

    def next_frames(self, count: int) -> tuple[Tensor, Tensor]:
        """Images (B, T, 3, S, S) and targets (N, T, S, S) of the next `count` frames, or of those that are left."""
        last = self.images.shape[1] - 1
        times = np.arange(self.time, min(self.time + count, self.length))
        now = send(last - np.abs(last - times), self.images.device)
        return self.images[:, now], self.targets[:, now]

    def advance(self, count: int) -> None:
        """Moves on by `count` frames that have been tracked and remembered; detaches the memories."""
        self.time += count
        self.bank.detach()


class Streams:
    """The open streams of one process, in a round-robin queue for each window side. They are not saved: a resumed run
    opens new ones."""

    def __init__(self) -> None:
        self._open: dict[int, deque[Stream]] = {}

    def clear(self) -> None:
        """Forgets all streams: after a failed step their memories may be NaN, half done, or of a batch that did not
        fit."""
        self._open.clear()

    def is_due(self, window: int) -> bool:
        """Whether the next stream of this window side must begin with new clips."""
        open_ = self._open.get(window, deque())
        return len(open_) < _AT_ONCE or open_[0].is_over

    def begin(self, window: int, stream: Stream) -> None:
        """Makes `stream` the next one, in place of the one that is over."""
        open_ = self._open.setdefault(window, deque())
        if len(open_) == _AT_ONCE:
            open_.popleft()
        open_.appendleft(stream)

    def take(self, window: int) -> Stream:
        """Returns the next stream and moves it to the end of the queue."""
        open_ = self._open[window]
        open_.rotate(-1)
        return open_[-1]


def draw_length(rng: np.random.Generator, frames: int, at_once: int) -> int:
    """Draws how many frames of a stream to play, `frames` to 2 * `frames` - 1: a multiple of `at_once` if that is not
    less than `frames`."""
    length = int(rng.integers(frames, 2 * frames))
    return max(length - length % at_once, frames)
