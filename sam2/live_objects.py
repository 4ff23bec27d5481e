"""The objects of a stream by id, with their rows and labels, and how a failed step is undone."""

from typing import NamedTuple

from torch import Tensor

from sam2.limits import MAX_LABEL, Limits
from sam2.memory_bank import MemoryBank
from sam2.memory_store import MemoryStore
from sam2.tracked_object import TrackedObject


class Snapshot(NamedTuple):
    """The state that a failed step returns to, with copies of the device buffers that the step may overwrite."""

    objects: dict[str, TrackedObject]
    rows: dict[int, tuple[Tensor, Tensor]]  # memories of the objects that are prompted, by row
    next_label: int


class LiveObjects(dict[str, TrackedObject]):
    """Objects by id, in order of arrival."""

    def __init__(self, store: MemoryStore, limits: Limits):
        super().__init__()
        self._store, self._limits = store, limits
        self._next_label = 1

    def add(self, object_id: str, class_name: str, frame: int, stamp_ns: int) -> TrackedObject:
        """A new object without memory, born on a frame."""
        row = self._store.take_row()
        label = self._free_label()
        self._next_label = label % MAX_LABEL + 1
        bank = MemoryBank(self._limits)
        self[object_id] = TrackedObject(object_id, class_name, label, row, frame, stamp_ns, bank)
        return self[object_id]

    def _free_label(self) -> int:
        """The first free label from `_next_label` on, wrapping around: a released label is not reused at once."""
        taken = {obj.label for obj in self.values()}
        labels = ((self._next_label + i - 1) % MAX_LABEL + 1 for i in range(MAX_LABEL))
        return next(label for label in labels if label not in taken)

    def remove(self, object_id: str) -> None:
        self._store.release_row(self.pop(object_id).row)

    def follow_clock(self, before_ns: int, now_ns: int) -> None:
        """Shifts the objects' records if the clock was set back: if `now_ns` is known (not 0) and older than
        `before_ns`, the newest known stamp."""
        if 0 < now_ns < before_ns:
            for obj in self.values():
                obj.set_clock_back(before_ns - now_ns)

    def snapshot(self, prompted: set[str]) -> Snapshot:
        """`prompted`: ids of the objects whose memories will be overwritten."""
        objects = {key: obj.copy() for key, obj in self.items()}
        rows = [objects[key].row for key in objects.keys() & prompted]
        return Snapshot(objects, {row: self._store.copy_row(row) for row in rows}, self._next_label)

    def roll_back(self, snapshot: Snapshot) -> None:
        """Restores a snapshot. Anything else that the step wrote to device buffers is in slots that no bank reads."""
        rows = {obj.row for obj in snapshot.objects.values()}
        for obj in self.values():
            if obj.row not in rows:
                self._store.release_row(obj.row)
        self.clear()
        self.update(snapshot.objects)
        self._next_label = snapshot.next_label
        for row, copy in snapshot.rows.items():
            self._store.restore_row(row, copy)
