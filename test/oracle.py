"""A tracker that returns ground truth with known errors, and the video that it tracks."""

from dataclasses import dataclass

import numpy as np

from sam2.evaluation_video import Annotated
from sam2.types import State, Track

SIZE_HW = (60, 80)
LENGTH = 9
AWAY = (2, 3, 4)  # frames in which object 1 is absent


def square(top: int, left: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[top : top + 20, left : left + 20] = True
    return mask


def truth(t: int) -> dict[int, np.ndarray]:
    """Object 1 leaves and returns, object 2 stays; their squares never meet."""
    return {2: square(30, 50)} if t in AWAY else {1: square(5, 5), 2: square(30, 50)}


@dataclass(frozen=True)
class TwoSquares:
    """The video; picklable, so that other processes can use it. Every `every`-th frame is annotated."""

    name: str = "two_squares"
    every: int = 1
    may_overlap: bool = False

    def tags(self, object_id):
        return ["look_alike"] if object_id == 2 else []

    def wants(self, index, mask):
        return True

    def frames(self):
        for t in range(LENGTH):
            yield Annotated(np.zeros((*SIZE_HW, 3), np.uint8), truth(t) if t % self.every == 0 else None)


def track(object_id: str, mask: np.ndarray, label: int, logit: float = 10.0, is_visible: bool = True) -> Track:
    logits = np.where(mask, logit, -10.0).astype(np.float32)
    state = State.VISIBLE if is_visible else State.OCCLUDED
    return Track(object_id, "", label, state, 1.0, 1.0, 1.0, 0, 0, mask.shape, logits)


class Oracle:
    """A tracker that returns `masks(t, object_id)`; an empty mask makes the object OCCLUDED."""

    def __init__(self, masks):
        self.masks, self.prompts, self.resets = masks, [], 0

    def reset(self):
        self.resets, self.t, self.ids = self.resets + 1, -1, []

    def check(self, prompts, frame):
        pass

    def step(self, frame, prompts):
        self.t += 1
        self.prompts += [(self.t, prompt) for prompt in prompts]
        self.ids += [prompt.object_id for prompt in prompts]
        masks = {i: self.masks(self.t, int(i)) for i in self.ids}
        return [track(i, mask, int(i), is_visible=mask.any()) for i, mask in masks.items()]


def nothing(*_) -> np.ndarray:
    return np.zeros(SIZE_HW, dtype=bool)


def perfect(t: int, object_id: int) -> np.ndarray:
    return truth(t).get(object_id, nothing())


def swapped(t: int, object_id: int) -> np.ndarray:
    return perfect(t, 3 - object_id)


def shifted(t: int, object_id: int) -> np.ndarray:
    return np.roll(perfect(t, object_id), 5, axis=1)


def lost(t: int, object_id: int) -> np.ndarray:
    """Does not find an object again."""
    return nothing() if object_id == 1 and t >= AWAY[0] else perfect(t, object_id)


def late(t: int, object_id: int) -> np.ndarray:
    """Finds object 1 again two frames after the frame of its return."""
    return nothing() if object_id == 1 and AWAY[0] <= t < AWAY[-1] + 3 else perfect(t, object_id)
