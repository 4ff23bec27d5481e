"""What a run must remember to go on as if it had never stopped (but for open streams), and the weights it leaves.

Files appear whole or not at all: written beside, then renamed. `pack` makes a smaller copy in parts for stores that
refuse large files (moments of the optimiser in bfloat16, the average in float16: good to go on from, but not bit for
bit).

    python -m sam2.training.state pack RUN PARTS      python -m sam2.training.state unpack PARTS RUN
"""

import io
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sam2.errors import BadCheckpoint

STATE = "state.pt"
PART_BYTES = 15 * 2**20


@dataclass
class Progress:
    """Where a run is."""

    step: int = 0
    phase: int = 0
    phase_step: int = 0  # steps since the phase began
    elapsed_s: float = 0.0  # of training, summed over resumed runs
    clips_made: int = 0  # by earlier runs
    retries: int = 0  # how often a non-finite loss threw the run back


def write_atomically(path: Path, content: bytes) -> None:
    beside = path.with_suffix(path.suffix + ".part")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _to_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def save_state(folder: Path, modules: dict[str, object], progress: Progress) -> None:
    """modules: anything with `state_dict`, by name. One file, `state.pt`."""
    state = {name: module.state_dict() for name, module in modules.items()}
    write_atomically(folder / STATE, _to_bytes(state | {"progress": asdict(progress)}))


def load_state(folder: Path, modules: dict[str, object], device: torch.device) -> Progress | None:
    """Restores the modules in place; None if the folder holds no state. Raises BadCheckpoint for another run's."""
    path = folder / STATE
    if not path.exists():
        return None
    state = torch.load(path, map_location=device, weights_only=True)
    try:
        for name, module in modules.items():
            module.load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError) as error:
        raise BadCheckpoint(f"{path}: state of another run ({error}); choose another --out or delete it") from error
    return Progress(**state["progress"])


def averaged_weights(model: nn.Module, average: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's state dict (CPU, float32) with the averaged parameters in place of the last ones.

    Keys of `average` may carry the prefix "model."; those of other modules are ignored.
    """
    weights = dict(model.state_dict())
    weights |= {k.removeprefix("model."): v for k, v in average.items() if k.removeprefix("model.") in weights}
    return {name: value.detach().float().cpu().contiguous() for name, value in weights.items()}


def export(weights: dict[str, Tensor], path: Path) -> None:
    """Official layout: `.pt` as {"model": float32}, `.safetensors` as float16."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save

        write_atomically(path, save({name: value.half() for name, value in weights.items()}, {"format": "pt"}))
    elif path.suffix == ".pt":
        write_atomically(path, _to_bytes({"model": weights}))
    else:
        raise BadCheckpoint(f"{path}: expected a name ending in .pt or .safetensors")


def _convert(value: object, dtype: torch.dtype) -> object:
    if isinstance(value, dict):
        return {key: _convert(item, dtype) for key, item in value.items()}
    is_large = isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 1
    return value.to(dtype) if is_large else value


def pack(run: Path, parts: Path) -> None:
    """Writes `state.000`, `state.001`, ... of at most 15 MiB into `parts`."""
    state = torch.load(run / STATE, map_location="cpu", weights_only=True)
    state["average"] = _convert(state["average"], torch.float16)
    state["optimizer"]["state"] = _convert(state["optimizer"]["state"], torch.bfloat16)
    content = _to_bytes(state)
    parts.mkdir(parents=True, exist_ok=True)
    for index, start in enumerate(range(0, len(content), PART_BYTES)):
        write_atomically(parts / f"state.{index:03d}", content[start : start + PART_BYTES])


def unpack(parts: Path, run: Path) -> None:
    """The inverse of `pack`, in float32. Raises BadCheckpoint if there are no parts."""
    files = sorted(parts.glob("state.[0-9][0-9][0-9]"))
    if not files:
        raise BadCheckpoint(f"{parts}: expected files state.000, state.001, ... written by `pack`")
    content = b"".join(file.read_bytes() for file in files)
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    state["average"] = _convert(state["average"], torch.float32)
    state["optimizer"]["state"] = _convert(state["optimizer"]["state"], torch.float32)
    run.mkdir(parents=True, exist_ok=True)
    write_atomically(run / STATE, _to_bytes(state))


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("pack", "unpack"):
        sys.exit("usage: python -m sam2.training.state pack RUN PARTS | unpack PARTS RUN")
    {"pack": pack, "unpack": unpack}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
