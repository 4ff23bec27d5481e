"""The masks of one annotated video by frame index, read when asked for: palette PNGs, or the run lengths of SA-V."""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sam2.errors import BadInput
from sam2.files import reading
from sam2.run_lengths import coco_decode
from sam2.training.dataset_files import VOID, is_grey_mask, read_indices

SAV_MASK_EVERY = 4  # SA-V's videos have 24 frames a second, of which 6 are annotated

Masks = dict[int, np.ndarray]  # object id -> (H, W) bool


class FolderMasks(Mapping[int, Masks]):
    """Palette PNGs read when asked for: `masks[index]` -> {object id: (H, W) bool}."""

    def __init__(self, files: dict[int, list[tuple[int | None, Path]]]):
        self._files = files  # per frame: (object id, or None if the palette holds the ids; file)

    @property
    def paths(self) -> list[Path]:
        return [path for files in self._files.values() for _, path in files]

    @cached_property
    def _is_grey(self) -> bool:
        """Whether these are grey masks of a single object, which is 255; the first mask that is not empty decides."""
        return bool(next(filter(lambda grey: grey is not None, map(is_grey_mask, self.paths)), False))

    def __getitem__(self, index: int) -> Masks:
        masks: Masks = {}
        for object_id, path in self._files[index]:
            labels, _ = read_indices(path)
            if object_id is not None:
                masks[object_id] = labels > 0
            elif self._is_grey:
                masks |= {1: labels == VOID} if (labels == VOID).any() else {}
            else:
                masks |= {int(label): labels == label for label in np.unique(labels) if label not in (0, VOID)}
        return masks

    def __iter__(self) -> Iterator[int]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@lru_cache(maxsize=4)  # not one per video: in memory such a file is many times its size, and SA-V has 50 000
def _masklets(path: Path, size: int, mtime_ns: int) -> tuple[list[int], dict[int, list[dict[str, Any]]]]:
    """Returns the object ids and, by frame, their masks in the same order. Raises BadInput.

    size and mtime_ns: of the file; they make the cache read a changed file again.
    """
    try:
        with reading(path):
            content = json.loads(path.read_text())
        ids, rows = [int(i) for i in content["masklet_id"]], enumerate(content["masklet"])
        frames = {SAV_MASK_EVERY * i: row for i, row in rows if row is not None and None not in row}
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadInput(f"{path}: expected an SA-V annotation with 'masklet' and 'masklet_id', got {error!r}") from error
    if not frames:
        raise BadInput(
            f"{path}: expected an SA-V annotation with masks of all objects in a frame or more, got none; leave it out"
        )
    return ids, frames


class RleMasks(Mapping[int, Masks]):
    """The masklets of one SA-V JSON, decoded when asked for.

    Absent objects have empty masks. A frame with null for a mask counts as not annotated, as upstream: the object may
    be visible.
    """

    def __init__(self, path: Path):
        self._path = path

    @property
    def paths(self) -> list[Path]:
        return [self._path]

    @property
    def _frames(self) -> tuple[list[int], dict[int, list[dict[str, Any]]]]:
        about = self._path.stat()
        return _masklets(self._path, about.st_size, about.st_mtime_ns)

    def __getitem__(self, index: int) -> Masks:
        ids, frames = self._frames
        row = frames[index]
        try:
            return {object_id: coco_decode(rle) for object_id, rle in zip(ids, row, strict=True)}
        except (BadInput, KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"{self._path}: expected a mask of each object in frame {index}, got {error}") from error

    def __iter__(self) -> Iterator[int]:
        return iter(self._frames[1])

    def __len__(self) -> int:
        return len(self._frames[1])
