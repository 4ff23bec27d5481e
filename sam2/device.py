"""Chooses the device and its CPU threads, and translates torch's device errors."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from sam2.config import find_config
from sam2.errors import BadInput, DeviceLost, OutOfMemory, Sam2Error

_TORCHS_THREADS = torch.get_num_threads()  # torch's own choice, read before `set_cpu_threads` changes it


def choose_device(wanted: str) -> torch.device:
    """`wanted`: "auto" (CUDA if available), "cpu", "cuda" or "cuda:N". Raises BadInput if there is no such device, and
    for PyTorch's other device types, which are untested here."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise BadInput(f"device: expected auto, cpu, cuda or cuda:N, got {wanted!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count() or "no"
        raise BadInput(f"device {wanted!r}: PyTorch finds {count} CUDA device(s) here; use 'auto' or 'cpu'")
    return device


def check_kernels(device: torch.device) -> None:
    """Raises BadInput if this PyTorch was built for other GPUs, as many for aarch64 are: such a GPU copies, but cannot
    compute."""
    try:
        torch.ones(1, device=device)
    except RuntimeError as error:
        if "no kernel image" not in str(error):
            raise
        raise BadInput(
            f"device {device}: PyTorch {torch.__version__} was not built for {torch.cuda.get_device_name(device)}; "
            "install a build for it, or use 'cpu'"
        ) from error


def set_cpu_threads(count: int, name: str) -> None:
    """Sets how many threads the model `name` uses on a CPU, in the calling thread and those it starts.

    0: PyTorch's own choice, which follows OMP_NUM_THREADS; but one thread for nano if that variable is not set, because
    its products are so small that threads mostly wait for each other. Raises BadInput for a negative count or an
    unknown name.
    """
    if count < 0:
        raise BadInput(f"cpu_threads: expected 0 or more, got {count}")
    is_small = find_config(name).name == "sam2.1_hiera_nano" and "OMP_NUM_THREADS" not in os.environ
    torch.set_num_threads(count or (1 if is_small else _TORCHS_THREADS))


# Messages of out-of-memory errors that torch does not raise as OutOfMemoryError: of its CPU allocator, of CUDA outside
# torch's own allocator (contexts, kernels loaded late, pinned memory), and of libraries, the last one oneDNN's.
_SHORTAGE = re.compile(
    r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED|calling `?cublasCreate"
    r"|could not create a primitive$"
)


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Turns torch's device failures into OutOfMemory and DeviceLost; anything else passes through."""
    try:
        yield
    except Sam2Error:  # some are RuntimeErrors, too, and the ids and paths in their texts could match below
        raise
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        text = str(error)
        first_line = text.partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError) or _SHORTAGE.search(text):
            raise OutOfMemory(
                f"{device}: no memory left for this step; remove objects or lower limits ({first_line})"
            ) from error
        if "CUDA error" in text and not _answers(device):
            raise DeviceLost(f"{device}: {first_line}; only a new process can recover it") from error
        raise


def _answers(device: torch.device) -> bool:
    """Whether a CUDA device still works: an error that breaks its context is raised again by every later call."""
    try:
        torch.cuda.synchronize(device)
    except Exception:
        return False
    return True


def empty_cache() -> None:
    """Frees the GPU memory that torch caches but does not use, for other processes; does nothing without a GPU."""
    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # a lost device raises, and has nothing to free
            torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU or, for the CPU, of the machine; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
