"""Loads weights files: recognises container, naming scheme and variant, and refuses unsafe or damaged files.

Files are untrusted: nothing but tensors is ever unpickled.
"""

import logging
import pickle
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor

from sam2.config import CONFIGS, ModelConfig, find_config
from sam2.device import check_kernels, choose_device, device_errors
from sam2.errors import BadCheckpoint, BadInput
from sam2.hugging_face import from_hugging_face, is_hugging_face
from sam2.model import SAM2
from sam2.precision import choose_precision
from sam2.weights_cache import OFFICIAL_SHA256, PACKAGED, find_weights, sha256

log = logging.getLogger("sam2")

_MAX_KEYS_NAMED = 5
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # narrower ones are quantised and need a scale
_PATCH_EMBED = "image_encoder.trunk.patch_embed.proj.weight"


def load_model(
    name: str = "nano",
    checkpoint: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    image_size: int | None = None,
    memory_pooling: int = 1,
) -> SAM2:
    """The network with its weights, ready to run on `device` ("auto", "cpu", "cuda", "cuda:1") in `precision` ("auto",
    "fp32", "bf16", "fp16").

    `name`: "nano", "tiny", "small", "base_plus", "large" (2.1) or any name `find_config` takes; `checkpoint` None means
    the packaged or downloaded file. `image_size` (pixels, a multiple of 32; None: the model's own) and `memory_pooling`
    (2: every 2 x 2 block of a memory's tokens is averaged) trade accuracy for speed: the network is then no longer the
    official one. Raises BadInput for a bad name, device, precision, size or pooling, BadCheckpoint for the weights,
    OutOfMemory or DeviceLost for the device.
    """
    config = resized(find_config(name), image_size)
    if memory_pooling not in (1, 2):
        raise BadInput(f"memory_pooling: expected 1 or 2, got {memory_pooling}")
    place = choose_device(device)
    policy = choose_precision(precision, place)
    path = Path(checkpoint or find_weights(config))
    state = read_weights(path)
    with torch.device("meta"):
        model = SAM2(config)
    fill(model, state, source=str(checkpoint or config.name), assign=True)
    model.precision = policy
    for layer in model.memory_attention.layers:
        layer.cross_attn_image.pooling = memory_pooling
    with device_errors(place):
        check_kernels(place)
        return model.eval().requires_grad_(False).to(place)


def resized(config: ModelConfig, image_size: int | None) -> ModelConfig:
    """The variant with this input size; None keeps its own. Raises BadInput unless the size is a multiple of 32 from 64
    to 2048."""
    size = config.image_size if image_size is None else image_size
    if not isinstance(size, Integral) or size % 32 or not 64 <= size <= 2048:
        raise BadInput(f"image_size: expected a multiple of 32 from 64 to 2048, got {image_size}")
    return replace(config, image_size=size)


def load_weights(model: SAM2, path: str | Path) -> None:
    """Fills a built model from a file. Raises BadCheckpoint, leaving the model as it was."""
    fill(model, read_weights(path), source=str(path))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Official `.pt`, `.safetensors`, or Hugging Face's layout -> float32 tensors by official name, on the CPU.

    A file with an official name must have the official SHA-256; any other unknown file is loaded with a warning.
    Raises BadCheckpoint with one sentence for a file that is missing, empty, truncated, unsafe, not weights, or that
    contains NaN.
    """
    path = Path(path)
    head = _head(path)
    if head is None:
        cure = "`sam2_ros weights tiny` fetches official ones, and says where they are"
        if (PACKAGED / path.name).is_file():
            cure = f"this package's is {PACKAGED / path.name}"
        raise BadCheckpoint(f"checkpoint {path}: expected a file, found none; {cure}")
    if not head:
        raise BadCheckpoint(f"checkpoint {path}: expected weights, the file is empty; fetch it again")
    if head[:1] == b"<" and b"\0" not in head:  # a safetensors file begins with a length, in binary
        raise BadCheckpoint(f"checkpoint {path}: expected weights, got a web page (a failed download); fetch it again")
    if path.parent.resolve() == PACKAGED.resolve():  # the file itself may be a link
        log.warning("nano is a demonstration model trained on a synthetic world; for real scenes load official weights")
    else:
        _check_hash(path)
    state = _open(path)
    state = from_hugging_face(state) if is_hugging_face(state) else state
    weights = {name: tensor.float() for name, tensor in state.items()}
    for name, tensor in weights.items():  # after conversion: 1e300 overflows float32
        if not tensor.isfinite().all():
            raise BadCheckpoint(f"checkpoint {path}: expected finite weights, got NaN or infinity in {name!r:.100}")
    return weights


def detect_config(state: dict[str, Tensor]) -> ModelConfig | None:
    """The variant with the width, depth and version of this state dict; None if there is none."""
    if _PATCH_EMBED not in state:
        return None
    width = state[_PATCH_EMBED].shape[0]
    depth = len({name.split(".")[3] for name in state if name.startswith("image_encoder.trunk.blocks.")})
    version = "2.1" if "no_obj_embed_spatial" in state else "2"
    matches = [c for c in CONFIGS.values() if (c.embed_dim, sum(c.stages), c.version) == (width, depth, version)]
    return matches[0] if matches else None


def fill(model: SAM2, state: dict[str, Tensor], source: str, assign: bool = False) -> None:
    """Strictly loads a state dict. Raises BadCheckpoint with the variant it looks like and at most five bad keys."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wanted != given:
        looks_like = detect_config(state)
        what = f"looks like {looks_like.name}" if looks_like else "looks like no SAM 2 model"
        differences = [f"{name} is missing" for name in wanted if name not in given]
        differences += [f"{name!r:.100} is unknown" for name in given if name not in wanted]
        differences += [
            f"{name} is {given[name]!s:.100} instead of {shape}"
            for name, shape in wanted.items()
            if given.get(name, shape) != shape
        ]
        more = f", and {len(differences) - _MAX_KEYS_NAMED} more" if len(differences) > _MAX_KEYS_NAMED else ""
        raise BadCheckpoint(
            f"checkpoint {source}: expected {model.config.name}, the file {what}: "
            f"{', '.join(differences[:_MAX_KEYS_NAMED])}{more}; choose the matching model"
        )
    model.load_state_dict(state, strict=True, assign=assign)


def _head(path: Path) -> bytes | None:
    """The file's first bytes without leading white space; None if there is no file. Raises BadCheckpoint if it cannot
    be read."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(512).lstrip()
    except OSError as error:  # also from is_file: the name is too long, or the folder may not be searched
        raise BadCheckpoint(f"checkpoint {path}: expected a readable file, got: {error.strerror}") from error


def _check_hash(path: Path) -> None:
    """Raises BadCheckpoint for a file with an official name but other content; warns about any unofficial file."""
    digest = sha256(path)
    expected = OFFICIAL_SHA256.get(path.name)
    if expected is not None and digest != expected:
        raise BadCheckpoint(
            f"checkpoint {path}: expected SHA-256 {expected} of the official file, got {digest}; "
            "fetch it again, or rename it if these are your own weights"
        )
    if digest not in OFFICIAL_SHA256.values():
        log.warning("checkpoint %s: not an official file (SHA-256 %s); loading it as it is", path, digest)


def _open(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from a torch or a safetensors file. Raises BadCheckpoint."""
    damaged = f"checkpoint {path}: expected a .pt or .safetensors weights file, got a damaged or truncated one"
    try:
        if is_zipfile(path) or path.suffix != ".safetensors":
            _check_unpacked_size(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            # Not memory-mapped: the weights would change with the file, and truncating it would kill the process.
            content = load_file(path, backend="pread")
    except BadCheckpoint:
        raise
    except pickle.UnpicklingError as error:
        raise BadCheckpoint(
            f"checkpoint {path}: expected tensors only, got a pickle that wants to run code, or no pickle at all; "
            "it was not opened"
        ) from error
    except Exception as error:  # on damaged bytes the parsers raise nearly anything: IndexError, struct.error, ...
        raise BadCheckpoint(f"{damaged}; fetch it again") from error
    if isinstance(content, dict) and {"optimizer", "progress"} <= content.keys():
        raise BadCheckpoint(
            f"checkpoint {path}: expected weights, got the state of a training; name the weights that it wrote, by "
            "default weights.pt beside it"
        )
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(_is_weight(*item) for item in state.items()):
        raise BadCheckpoint(
            f"checkpoint {path}: expected a dict of float tensors by name (or one under 'model'), got something else"
        )
    for name, tensor in state.items():
        if tensor.dtype not in _DTYPES:
            raise BadCheckpoint(
                f"checkpoint {path}: expected floats of 16, 32 or 64 bits, got {tensor.dtype} in {name!r:.100}; save "
                "the weights in one of these"
            )
    return state


def _check_unpacked_size(path: Path) -> None:
    """Raises BadCheckpoint for an archive that is larger in memory than on disk: a megabyte can become gigabytes."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # by which torch recognises an archive
            return
    with ZipFile(path) as archive:
        entries = archive.infolist()
    is_compressed = any(entry.compress_type != ZIP_STORED for entry in entries)
    if is_compressed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise BadCheckpoint(
            f"checkpoint {path}: expected an archive as torch.save writes it, got a compressed one or one whose parts "
            "overlap; it was not opened; save the weights again with torch.save"
        )


def _is_weight(name: object, tensor: object) -> bool:
    if not (isinstance(name, str) and isinstance(tensor, Tensor) and tensor.is_floating_point()):
        return False
    is_dense = tensor.layout is torch.strided and not tensor.is_nested and tensor.device.type == "cpu"
    # Strides of 0 would let four bytes claim to be a terabyte.
    return is_dense and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
