"""Steps before the first image, so that libraries choose their kernels and, on a GPU, common steps are captured."""

from typing import TYPE_CHECKING

import numpy as np

from sam2.graphs import TIMES_SEEN
from sam2.limits import Limits
from sam2.types import Frame, Prompt

if TYPE_CHECKING:
    from sam2.tracker import Tracker

_SHAPE = (480, 640, 3)
_MOST_OBJECTS = 4  # steps with more objects are captured when they first occur often enough


def warm_up(tracker: "Tracker", limits: Limits, captures: bool) -> None:
    """Prompts and tracks objects on a blank image; if `captures`, for long enough to capture the steps of one to
    `_MOST_OBJECTS` objects with full memories. Does not remove all of the objects."""
    frame = Frame(np.zeros(_SHAPE, np.uint8))
    count = min(_MOST_OBJECTS, limits.max_objects) if captures else 1
    tracker.step(frame, [Prompt(f"warm-up {i}", points_xy=[(320, 240)], labels=[1]) for i in range(count)])
    for _ in range(max(limits.pointers, limits.recent_memories) + TIMES_SEEN if captures else 1):
        tracker.step(frame)
    for object_id in tracker.object_ids[1:]:
        tracker.remove(object_id)
        for _ in range(TIMES_SEEN):
            tracker.step(frame)
    if captures:  # a capture empties torch's memory cache; the first two steps of another object fill it again
        tracker.remove(tracker.object_ids[0])
        tracker.step(frame, [Prompt("warm-up", points_xy=[(320, 240)], labels=[1])])
        tracker.step(frame)
