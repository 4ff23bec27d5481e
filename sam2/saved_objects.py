"""Objects on disk: each one's memories of the frames it was prompted on, so that it is found again after a restart.

One safetensors file: per object its spatial memories and pointers, and JSON in the header. Files are untrusted; one
that is damaged, too old or made with other weights is refused with a sentence.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sam2.checks import MAX_NAME_LENGTH, is_name
from sam2.errors import BadInput, LimitReached, Stale, UnknownObject
from sam2.files import write_whole
from sam2.limits import Limits
from sam2.memory_bank import MemoryBank
from sam2.memory_store import MemoryStore
from sam2.model import SAM2
from sam2.tracked_object import TrackedObject

FORMAT = "sam2_ros objects 1"
MOST_MEMORIES = 64  # per object in a file, unless the limits allow more: all of them are read, even if few are kept


@dataclass(frozen=True)
class SavedObject:
    """What one object remembers of P prompted frames, oldest first."""

    object_id: str
    class_name: str
    spatial: Tensor  # (P, hw, D) bfloat16
    pointers: Tensor  # (P, C) float32


def save_objects(
    path: Path, model: SAM2, store: MemoryStore, objects: Mapping[str, TrackedObject], object_ids: Sequence[str]
) -> list[str]:
    """Writes the named objects, or all, atomically; returns the ids written. Raises UnknownObject, or BadInput if there
    is nothing to write or the file cannot be written."""
    for object_id in object_ids:
        if object_id not in objects:
            raise UnknownObject(f"object_id: expected one of {list(objects)}, got {object_id!r}")
    kept = [obj for key in dict.fromkeys(object_ids or objects) if (obj := objects[key]).bank.prompted_slots]
    if not kept:
        raise BadInput(f"save {path}: expected an object that was prompted, there is none")
    tensors = {}
    for index, obj in enumerate(kept):
        spatial, pointers = store.read_slots(obj.row, obj.bank.prompted_slots)
        tensors[f"{index}.spatial"], tensors[f"{index}.pointers"] = spatial.cpu(), pointers.cpu()
    about = {
        "format": FORMAT,
        **_identity(model),
        "saved_at": time.time(),
        "objects": [{"object_id": obj.object_id, "class_name": obj.class_name} for obj in kept],
    }
    try:
        write_whole(path, save(tensors, metadata={"about": json.dumps(about)}))
    except OSError as error:
        raise BadInput(f"saved objects {error}") from error
    except ValueError as error:  # not a valid path
        raise BadInput(f"saved objects {path}: cannot be written ({error})") from error
    return [obj.object_id for obj in kept]


def check_room(kept: Sequence[SavedObject], objects: Mapping[str, TrackedObject], limits: Limits) -> None:
    """Raises BadInput for an id that is tracked already, LimitReached for too many objects."""
    living = [one.object_id for one in kept if one.object_id in objects]
    if living:
        raise BadInput(f"restore: {', '.join(living)} is tracked already; remove it first")
    if len(objects) + len(kept) > limits.max_objects:
        raise LimitReached(f"restore: expected at most {limits.max_objects} objects in all; remove some first")


def put_back(one: SavedObject, store: MemoryStore, row: int, limits: Limits, before: int) -> MemoryBank:
    """Writes an object's memories into the store, as those of frames before `before`; returns its bank."""
    bank = MemoryBank.of_prompted(limits, len(one.pointers), before)
    store.write_slots(row, bank.prompted_slots, one.spatial, one.pointers)
    return bank


def read_objects(
    path: Path, model: SAM2, limits: Limits, object_ids: Sequence[str] = (), max_age_s: float = 0.0
) -> list[SavedObject]:
    """Reads the named objects, or all, each with as many memories as `limits` allow. max_age_s: maximum age of the
    file, in seconds; 0 = any age.

    Raises BadInput for a file that is missing, unreadable, damaged or made with another model, Stale for one that is
    too old, UnknownObject for an id that is not in it, LimitReached for too many.
    """
    if not max_age_s >= 0:
        raise BadInput(f"max_age_s: expected seconds, 0 for any age, got {max_age_s:g}")
    _check_there(path)
    try:
        # Read, not memory-mapped: mapped tensors change with the file, and truncating it would kill the process.
        with safe_open(path, framework="pt", device="cpu", backend="pread") as file:
            about = json.loads((file.metadata() or {})["about"])
            names = [(str(entry["object_id"]), str(entry["class_name"])) for entry in about["objects"]]
            age_s = time.time() - float(about["saved_at"])
            _check(path, about, model, names)
            if max_age_s and not -1 <= age_s <= max_age_s:  # NaN is refused, and so is more than 1 s in the future
                raise Stale(f"saved objects {path}: saved {age_s:.0f} s ago, expected at most {max_age_s:g} s")
            chosen = _choose(path, [object_id for object_id, _ in names], object_ids)
            if len(chosen) > limits.max_objects:
                raise LimitReached(f"restore: expected at most {limits.max_objects} objects, {path} has {len(chosen)}")
            return [SavedObject(*names[index], *_memories(path, file, index, model, limits)) for index in chosen]
    except BadInput:
        raise
    except OSError as error:  # not "damaged": the file itself may be fine
        raise BadInput(f"saved objects {path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadInput(f"saved objects {path}: expected a file written by save, got a damaged or other one") from error


def _check_there(path: Path) -> None:
    """Raises BadInput unless the file is there and readable; its message names the files beside it."""
    try:
        if path.is_file():
            with open(path, "rb"):  # safetensors reports a file without read permission as missing
                return
        others = sorted(other.stem for other in path.parent.glob(f"*{path.suffix}") if other.is_file())
        beside = ", ".join(others) or "nothing"
    except OSError as error:  # a name that is too long, or no permission for the folder or the file
        raise BadInput(f"saved objects {path}: cannot be read ({error.strerror})") from error
    raise BadInput(f"saved objects {path}: there is no such file; saved there: {beside}")


def _choose(path: Path, there: list[str], object_ids: Sequence[str]) -> list[int]:
    """Indices of the requested entries, or of all if none is requested. Raises UnknownObject."""
    unknown = set(object_ids) - set(there)
    if unknown:
        has = f"{', '.join(there):.1000}"
        raise UnknownObject(f"saved objects {path}: no {', '.join(sorted(unknown))} in it; it has {has}")
    return [index for index, name in enumerate(there) if not object_ids or name in object_ids]


def _memories(path: Path, file: safe_open, index: int, model: SAM2, limits: Limits) -> tuple[Tensor, Tensor]:
    """(P, hw, D) and (P, C) of one object. If the file has more memories than fit, the first and the newest are taken,
    as the bank would have kept them. Raises BadInput."""
    config, places = model.config, limits.prompted_memories
    most = max(places, MOST_MEMORIES)
    rows = {"spatial": ([config.grid_size**2, config.memory_dim], "BF16"), "pointers": ([config.d_model], "F32")}
    found = []
    for part, (shape, dtype) in rows.items():
        stored = file.get_slice(f"{index}.{part}")
        count, *others = stored.get_shape() or [0]
        if count > most:
            raise BadInput(
                f"saved objects {path}: memory {index} is of {count} frames, expected at most {most}; raise "
                "sam2.Limits.prompted_memories"
            )
        if not (count and others == shape and stored.get_dtype() == dtype):
            raise BadInput(f"saved objects {path}: memory {index} is damaged")
        keep = list(range(count))
        if count > places:
            keep = [*keep[: min(1, places - 1)], *keep[count - max(places - 1, 1) :]]
        found.append(stored[:][keep])
    if len(found[0]) != len(found[1]) or not all(tensor.isfinite().all() for tensor in found):
        raise BadInput(f"saved objects {path}: memory {index} is damaged")
    return found[0], found[1]


def _identity(model: SAM2) -> dict:
    """What must be the same for a memory to be valid: model, input size, weights."""
    digest = hashlib.sha256()
    for tensor in (model.maskmem_tpos_enc, model.no_obj_ptr, *model.obj_ptr_proj.parameters()):
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    config = model.config
    return {"model": config.name, "image_size": config.image_size, "weights": digest.hexdigest()}


def _check(path: Path, about: dict, model: SAM2, names: list[tuple[str, str]]) -> None:
    """Raises BadInput unless the memories are of this model and their names would be valid in prompts."""
    if about.get("format") != FORMAT:
        raise BadInput(f"saved objects {path}: expected format {FORMAT!r}, got {about.get('format')!r:.100}")
    for what, expected in _identity(model).items():
        if about.get(what) != expected:
            raise BadInput(
                f"saved objects {path}: made with {what} {about.get(what)!r:.100}, this model has {expected}; prompt "
                "the objects again, or load that model"
            )
    ids = [object_id for object_id, _ in names]
    if len(set(ids)) != len(ids) or not all(object_id and is_name(object_id) for object_id in ids):
        shown = [object_id[:MAX_NAME_LENGTH] for object_id in ids]
        raise BadInput(
            f"saved objects {path}: expected different ids of 1 to {MAX_NAME_LENGTH} characters, got {shown!r:.1000}"
        )
    if not all(is_name(class_name) for _, class_name in names):
        raise BadInput(f"saved objects {path}: expected class names of at most {MAX_NAME_LENGTH} characters")
