"""How much a tracker may keep, and when an object counts as occluded or lost."""

from dataclasses import dataclass, fields

from sam2.errors import BadInput
from sam2.model import NUM_MEMORIES

MAX_LABEL = 254  # labels are 1..254 in an 8-bit label image; 0 is background and 255 is left to consumers


@dataclass(frozen=True)
class Limits:
    """`recent_memories` and `pointers` default to the official model's. Raises BadInput for a value out of range."""

    max_objects: int = 16  # 1..254
    recent_memories: int = NUM_MEMORIES - 1  # spatial memories of the most recent frames, 1..6
    pointers: int = 15  # how far back object pointers reach, in frames, and the unit of their time code
    prompted_memories: int = 4  # per object: the first prompted frame and the newest others; >= 1
    history_frames: int = 30  # frames a late prompt can name, >= 1 (the newest always counts)
    history_s: float = 2.0  # ... and their maximum age by stamp; the last before the newest may be older
    history_bytes: int = 1 << 29  # ... and the maximum size of their features
    points_per_prompt: int = 64  # maximum clicks on one frame of one object, and prompts: see `PromptedFrame`
    occluded_after: int = 1  # absent frames until the state is OCCLUDED, >= 1
    lost_after_s: float = 5.0  # seconds unseen, by the frames' stamps, until the state is LOST

    def __post_init__(self) -> None:
        upper = {"max_objects": MAX_LABEL, "recent_memories": NUM_MEMORIES - 1}
        for field in fields(self):
            value = getattr(self, field.name)
            kind, lower = (float, 0) if field.type is float else (int, 1)
            if not isinstance(value, (int, kind)) or isinstance(value, bool):
                raise BadInput(f"limits.{field.name}: expected {kind.__name__}, got {value!r}")
            if not lower <= value <= upper.get(field.name, float("inf")):
                most = f" to {upper[field.name]}" if field.name in upper else " or more"
                raise BadInput(f"limits.{field.name}: expected {lower}{most}, got {value}")
