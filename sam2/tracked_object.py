"""One object of a stream: its identity, memories and prompts, and when it was last seen."""

from dataclasses import dataclass, field, replace

import numpy as np

from sam2.limits import Limits
from sam2.memory_bank import MemoryBank
from sam2.model_prompt import ModelPrompt
from sam2.types import State


@dataclass(frozen=True)
class PromptedFrame:
    """An object's prompts on one frame, in order. Each refined the answer to the one before, so all are applied again,
    one by one, when an earlier frame is prompted. The newest `Limits.points_per_prompt` are kept."""

    prompts: tuple[ModelPrompt, ...]  # each includes the clicks before it
    logits: np.ndarray | None  # (4h, 4w) float32, the answer, which the next click refines; None if not finite
    starts_over: bool  # whether the first had mode REPLACE

    def add(self, prompt: ModelPrompt, logits: np.ndarray | None, limits: Limits) -> "PromptedFrame":
        before = () if prompt.mask is not None else self.prompts  # the answer to a mask depends on nothing before
        return PromptedFrame((*before, prompt)[-limits.points_per_prompt :], logits, self.starts_over)


@dataclass
class TrackedObject:
    object_id: str
    class_name: str
    label: int  # 1..254
    row: int  # in the memory store
    born: int  # frame index of its first prompt
    born_ns: int  # stamp of that frame; 0 = unknown, or the frame has not arrived yet
    bank: MemoryBank
    prompted_frames: dict[int, PromptedFrame] = field(default_factory=dict)  # by frame index, within the history
    seen: dict[int, int] = field(default_factory=dict)  # stamp by frame index, of the sightings that `record` keeps

    def copy(self) -> "TrackedObject":
        return replace(self, bank=self.bank.copy(), prompted_frames=dict(self.prompted_frames), seen=dict(self.seen))

    def start_over(self, frame: int, stamp_ns: int) -> None:
        """Forgets all memories and sightings, as if its first prompt were on `frame`."""
        self.bank.clear()
        self.seen = {}
        self.born, self.born_ns = frame, stamp_ns

    def forget_prompts(self, frame: int) -> None:
        """Forgets its prompts up to `frame`."""
        self.prompted_frames = {i: prompted for i, prompted in self.prompted_frames.items() if i > frame}

    def rewind(self, frame: int) -> None:
        """Forgets memories and sightings from `frame` on, but not the prompts."""
        self.bank.rewind(frame)
        self.seen = {index: stamp for index, stamp in self.seen.items() if index < frame}

    def set_clock_back(self, by_ns: int) -> None:
        """Shifts its records to a clock that was set back by `by_ns`; a known stamp never becomes 0, unknown."""
        self.seen = {index: max(stamp - by_ns, 1) if stamp else 0 for index, stamp in self.seen.items()}
        self.born_ns = max(self.born_ns - by_ns, 1) if self.born_ns else 0

    def record(self, frame: int, stamp_ns: int, is_visible: bool, limits: Limits) -> None:
        """Records whether it was visible on `frame`, and drops records older than the history except the last sighting.

        A restored object has no `born_ns` until its first frame: it counts as unseen since this one.
        """
        self.born_ns = self.born_ns or stamp_ns
        self.seen.pop(frame, None)
        if is_visible:
            self.seen[frame] = stamp_ns or max(self.seen.values(), default=0)  # without a stamp: the last known one
        oldest = frame - limits.history_frames
        self.forget_prompts(oldest - 1)
        last_old = max((index for index in self.seen if index < oldest), default=None)
        self.seen = {index: stamp for index, stamp in self.seen.items() if index >= oldest or index == last_old}

    def last_seen(self, frame: int) -> tuple[int, int]:
        """(frame index, stamp) of the newest sighting up to `frame`; if never seen, (`born` - 1, `born_ns`)."""
        index = max((index for index in self.seen if index <= frame), default=None)
        return (self.born - 1, self.born_ns) if index is None else (index, self.seen[index] or self.born_ns)

    def state(self, frame: int, now_ns: int, limits: Limits) -> State:
        """VISIBLE, OCCLUDED or LOST, from the sightings alone."""
        index, stamp_ns = self.last_seen(frame)
        if index >= self.born and frame - index < limits.occluded_after:
            return State.VISIBLE
        is_lost = now_ns - stamp_ns > limits.lost_after_s * 1e9 and stamp_ns > 0
        return State.LOST if is_lost else State.OCCLUDED
