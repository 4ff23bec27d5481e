"""Saves and loads the state of a run, and exports its weights.

A resumed run does not repeat exactly: open streams are not saved, nor is the pool, which fills with other clips.
"""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sam2.errors import BadCheckpoint, OutOfMemory
from sam2.files import reading, write_whole

STATE = "state.pt"
WEIGHT_SUFFIXES = (".pt", ".safetensors")


class Stateful(Protocol):
    """What a state is made of: modules, optimisers, the average."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> object: ...


@dataclass
class Progress:
    """The position of a run."""

    step: int = 0
    phase: int = 0
    phase_step: int = 0  # steps since the phase began
    elapsed_s: float = 0.0  # of training, summed over resumed runs
    clips_made: int = 0  # summed over resumed runs
    retries: int = 0  # how often a non-finite loss set the run back to its last saved state
    began_with: str = ""  # SHA-256 of the checkpoint it began with; "" if unknown or none


def _to_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def save_state(folder: Path, modules: dict[str, Stateful], progress: Progress, recipe: str) -> None:
    """Writes `state.pt`. modules: by name; recipe: must be equal when the run resumes."""
    state = {name: module.state_dict() for name, module in modules.items()}
    write_whole(folder / STATE, _to_bytes(state | {"progress": asdict(progress), "recipe": recipe}))


def load_state(folder: Path, modules: dict[str, Stateful], recipe: str) -> Progress | None:
    """Restores the modules in place, on their devices; None if the folder holds no state.

    Raises BadCheckpoint for a damaged file or another run's, OSError if it cannot be read, OutOfMemory.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with reading(path), open(path, "rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        found = state["recipe"]
    except (OSError, MemoryError):  # the file itself may be whole
        raise
    except Exception as error:  # the parser raises nearly anything on damaged bytes
        raise BadCheckpoint(f"{path}: expected the state of a run, got a damaged file ({error}); delete it") from error
    another = f"{path}: state of another run ({{}}); choose another --out or delete it"
    if found != recipe:
        raise BadCheckpoint(another.format(f"{found}, not {recipe}"))
    try:
        for name, module in modules.items():
            module.load_state_dict(state[name])
        return Progress(**state["progress"])
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{path}: expected memory for the state of the run, got none; free some ({error})") from error
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BadCheckpoint(another.format(error)) from error


def averaged_weights(model: nn.Module, average: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's state dict (CPU, float32) with the averaged parameters in place of the last ones.

    average: the averaged parameters of the `Lessons` that hold the model; other modules' are left out.
    """
    averaged = {name.removeprefix("model."): value for name, value in average.items() if name.startswith("model.")}
    weights = model.state_dict() | averaged
    return {name: value.detach().float().cpu().contiguous() for name, value in weights.items()}


def export(weights: dict[str, Tensor], path: Path) -> None:
    """Writes the official layout: `.pt` as {"model": float32}, `.safetensors` as float16."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save

        write_whole(path, save({name: value.half() for name, value in weights.items()}, {"format": "pt"}))
    elif path.suffix == ".pt":
        write_whole(path, _to_bytes({"model": weights}))
    else:
        raise BadCheckpoint(f"{path}: expected a name ending in {' or '.join(WEIGHT_SUFFIXES)}")
