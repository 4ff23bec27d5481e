"""The tensors behind the memory banks: static buffers for all objects, written and gathered by slot.

Knows nothing about which slot means what; `memory_bank` does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sam2.limits import Limits
from sam2.memory_attention import concatenate
from sam2.memory_bank import MemoryBank, Recall
from sam2.model import NUM_MEMORIES, SAM2


class Reading(NamedTuple):
    """Where N objects' memories are; as tensors, so that a captured graph can be replayed with other values."""

    rows: Tensor  # (N,) int64, the objects' rows in the buffers
    slots: Tensor  # (N, F) int64
    codes: Tensor  # (N, F) int64
    pointer_slots: Tensor  # (N, P) int64
    time: Tensor  # (N, P) float32, frames ago / `Limits.pointers`


class Writing(NamedTuple):
    """Where N objects' new memories go."""

    rows: Tensor  # (N,) int64
    slots: Tensor  # (N,) int64
    pointer_slots: Tensor  # (N,) int64


class MemoryStore:
    """A row for each object. Grows by doubling, up to `max_objects` rows, and never shrinks."""

    def __init__(self, model: SAM2, limits: Limits):
        self._model, self._limits = model, limits
        config = model.config
        side = config.grid_size
        blank = torch.zeros(1, config.memory_dim, side, side, device=model.device)
        positions = [model.spatial_memory(blank, code)[1][0] for code in range(NUM_MEMORIES)]
        self._position = torch.stack(positions)  # (7, hw, D): spatial plus temporal code
        self._free_rows: list[int] = []
        self._spatial, self._pointers = self._buffers(0)

    @property
    def capacity(self) -> int:
        """The number of rows. Whenever it changes, the buffers have been replaced."""
        return self._spatial.shape[0]

    def take_row(self) -> int:
        """The lowest free row, for a new object, with undefined content. The caller must enforce `max_objects`."""
        if not self._free_rows:
            self._grow(min(max(1, 2 * self._spatial.shape[0]), self._limits.max_objects))
        return self._free_rows.pop(0)

    def release_row(self, row: int) -> None:
        """Frees a row from `take_row`; must be called at most once per row taken."""
        self._free_rows.append(row)
        self._free_rows.sort()

    def copy_row(self, row: int) -> tuple[Tensor, Tensor]:
        """All of an object's memories (F, hw, D) bfloat16 and pointers (P, C) float32, for `restore_row`."""
        return self._spatial[row].clone(), self._pointers[row].clone()

    def restore_row(self, row: int, copy: tuple[Tensor, Tensor]) -> None:
        """Writes back what `copy_row` returned."""
        self._spatial[row], self._pointers[row] = copy

    def read_slots(self, row: int, slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Copies of one object's spatial memories (P, hw, D) and pointers (P, C)."""
        return self._spatial[row, list(slots)], self._pointers[row, list(slots)]

    def write_slots(self, row: int, slots: Sequence[int], spatial: Tensor, pointers: Tensor) -> None:
        """Writes what `read_slots` returned; the tensors may be on any device."""
        self._spatial[row, list(slots)] = spatial.to(self._spatial)
        self._pointers[row, list(slots)] = pointers.to(self._pointers)

    def reading(self, rows: Sequence[int], recalls: Sequence[Recall]) -> Reading:
        """Index tensors for `gather`. All recalls must have the same shape."""
        time = [[ago / self._limits.pointers for ago in recall.frames_ago] for recall in recalls]
        return Reading(
            self._tensor(rows),
            self._tensor([recall.slots for recall in recalls]),
            self._tensor([recall.codes for recall in recalls]),
            self._tensor([recall.pointer_slots for recall in recalls]),
            self._tensor(time, torch.float32),
        )

    def writing(self, rows: Sequence[int], slots: Sequence[tuple[int, int]]) -> Writing:
        """Index tensors for `write`. `slots`: (spatial, pointer) per object."""
        return Writing(self._tensor(rows), *self._tensor(slots).unbind(1))

    def gather(self, at: Reading) -> tuple[Tensor, Tensor, int]:
        """Memory (N, M, D), its position (N, M, D) and the number of pointer tokens among M, which come last."""
        rows = at.rows[:, None]
        spatial = self._spatial[rows, at.slots].flatten(1, 2).float(), self._position[at.codes].flatten(1, 2)
        pointers = self._model.pointer_memory(self._pointers[rows, at.pointer_slots], at.time)
        return concatenate([spatial], pointers)

    def write(self, at: Writing, maskmem: Tensor, pointers: Tensor) -> None:
        """Stores maskmem (N, D, h, w) and pointers (N, C)."""
        tokens = maskmem.flatten(2).transpose(1, 2)
        self._spatial[at.rows, at.slots] = tokens.to(torch.bfloat16)  # as the official model stores it in every mode
        self._pointers[at.rows, at.pointer_slots] = pointers.float()

    def _tensor(self, values: Sequence, dtype: torch.dtype = torch.int64) -> Tensor:
        # A copy from pinned memory does not wait for the device.
        host = torch.tensor(values, dtype=dtype, device="cpu", pin_memory=self._model.device.type == "cuda")
        return host.to(self._model.device, non_blocking=True)

    def _buffers(self, capacity: int) -> tuple[Tensor, Tensor]:
        """Spatial memories (capacity, F, hw, D) and pointers (capacity, P, C)."""
        config, device = self._model.config, self._model.device
        num_spatial, num_pointers = MemoryBank.num_slots(self._limits)
        cells = config.grid_size**2
        spatial = torch.zeros(capacity, num_spatial, cells, config.memory_dim, dtype=torch.bfloat16, device=device)
        pointers = torch.zeros(capacity, num_pointers, config.d_model, dtype=torch.float32, device=device)
        return spatial, pointers

    def _grow(self, capacity: int) -> None:
        spatial, pointers = self._buffers(capacity)
        kept = self.capacity
        spatial[:kept], pointers[:kept] = self._spatial, self._pointers
        self._spatial, self._pointers = spatial, pointers
        self._free_rows += range(kept, capacity)
