"""Which frames one object remembers, and in which slots: pure bookkeeping on integers.

Knows nothing about tensors: `memory_store` holds those, addressed by the slots assigned here. Recent memories live in
rings addressed by frame index, long enough that a late prompt finds the memories its frame attended to.
"""

import math
from dataclasses import dataclass

from sam2.limits import Limits
from sam2.model import PROMPTED_CODE


@dataclass(frozen=True)
class Recall:
    """What an object attends to on one frame, in the official order."""

    slots: tuple[int, ...]  # F spatial memories: prompted ones, then recent ones oldest first
    codes: tuple[int, ...]  # F temporal codes
    pointer_slots: tuple[int, ...]  # P pointers: prompted ones, then recent ones newest first
    frames_ago: tuple[int, ...]  # P

    @property
    def shape(self) -> tuple[int, int]:
        """(F, P); objects whose recalls have the same shape can be tracked in one batch."""
        return len(self.slots), len(self.pointer_slots)


class MemoryBank:
    """Invariant: at most `prompted_memories` prompted frames, namely the first and the newest others (only the newest
    if there is room for one), and recent frames no older than what a frame of the history may attend to."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._prompted: dict[int, int] = {}  # slot by frame index, ascending
        self._recent: set[int] = set()  # frame indices with a tracked (or corrected) memory

    @staticmethod
    def num_slots(limits: Limits) -> tuple[int, int]:
        """(spatial, pointer) slots an object needs."""
        # The newest memory must not overwrite one that the oldest frame in the history still attends to.
        lasting = _num_prompted_slots(limits) + limits.history_frames
        return lasting + limits.recent_memories, lasting + limits.pointers

    def copy(self) -> "MemoryBank":
        other = MemoryBank(self._limits)
        other._prompted, other._recent = dict(self._prompted), set(self._recent)
        return other

    @property
    def oldest_prompted(self) -> float:
        """Index of the oldest prompted frame; restored ones come before every frame. Infinite without any."""
        return next(iter(self._prompted), math.inf)

    @property
    def prompted_slots(self) -> list[int]:
        """Slots of the prompted frames, oldest first; memory and pointer have the same slot."""
        return list(self._prompted.values())

    @staticmethod
    def of_prompted(limits: Limits, count: int, before: int) -> "MemoryBank":
        """A bank that remembers `count` prompted frames, in slots 0 to count - 1, all older than frame `before`."""
        bank = MemoryBank(limits)
        bank._prompted = {before - count + slot: slot for slot in range(count)}
        return bank

    def can_recall(self, frame: int) -> bool:
        """Whether `frame` has memories to attend to, which requires a prompted frame before it."""
        return self.oldest_prompted < frame

    def remember(self, frame: int) -> None:
        """Records that a memory of a tracked frame has been written to `slots(frame, False)`."""
        self._recent.add(frame)
        reach = self._limits.history_frames + max(self._limits.recent_memories, self._limits.pointers)
        self._recent = {index for index in self._recent if index >= frame - reach}

    def remember_prompted(self, frame: int) -> None:
        """Records that a memory of a prompted frame has been written to `slots(frame, True)`. The bank must not have a
        newer prompted frame."""
        slot, _ = self.slots(frame, is_prompted=True)
        if frame not in self._prompted and len(self._prompted) == self._limits.prompted_memories:
            # The first prompt is what the user pointed at, so the second oldest is dropped.
            del self._prompted[list(self._prompted)[min(1, len(self._prompted) - 1)]]
        self._prompted[frame] = slot
        self._recent.discard(frame)

    def forget(self, frame: int) -> None:
        """Drops the tracked memory of a frame, because it is unusable."""
        self._recent.discard(frame)

    def clear(self) -> None:
        """Forgets everything, including restored memories, which count as older than any frame."""
        self._prompted, self._recent = {}, set()

    def rewind(self, frame: int) -> None:
        """Forgets `frame` and everything after it. Prompted frames that were dropped since then do not come back."""
        self._prompted = {index: slot for index, slot in self._prompted.items() if index < frame}
        self._recent = {index for index in self._recent if index < frame}

    def slots(self, frame: int, is_prompted: bool) -> tuple[int, int]:
        """(spatial, pointer) slot for a memory of `frame`; neither holds a memory that is still in use."""
        prompted = _num_prompted_slots(self._limits)
        if is_prompted:
            slot = min(set(range(prompted)) - set(self._prompted.values()))
            return slot, slot
        num_spatial, num_pointers = self.num_slots(self._limits)
        return prompted + frame % (num_spatial - prompted), prompted + frame % (num_pointers - prompted)

    def recall(self, frame: int) -> Recall:
        """What `frame` attends to: every prompted frame before it, and recent frames by how far back they are.

        At least one prompted frame must precede it (`can_recall`).
        """
        past = {index: slot for index, slot in self._prompted.items() if index < frame}
        recent = range(frame - self._limits.recent_memories, frame)
        spatial = [(slot, PROMPTED_CODE) for slot in past.values()]
        spatial += [(self.slots(i, False)[0], frame - i - 1) for i in recent if i in self._recent]
        pointers = [(slot, frame - index) for index, slot in past.items()]
        newest_first = range(frame - 1, frame - self._limits.pointers - 1, -1)
        pointers += [(self.slots(i, False)[1], frame - i) for i in newest_first if i in self._recent]
        slots, codes = zip(*spatial, strict=True)
        pointer_slots, frames_ago = zip(*pointers, strict=True)
        return Recall(slots, codes, pointer_slots, frames_ago)


def _num_prompted_slots(limits: Limits) -> int:
    """One more than are remembered, so that a memory that turns out to be unusable has not overwritten a good one."""
    return limits.prompted_memories + 1
