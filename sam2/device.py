"""Where the network runs, and what its failures are called there."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from sam2.config import find_config
from sam2.errors import BadInput, DeviceLost, OutOfMemory, Sam2Error

_TORCHS_THREADS = torch.get_num_threads()  # before anybody asked for another number


def choose_device(wanted: str) -> torch.device:
    """`wanted`: "auto" (CUDA if available), "cpu", "cuda" or "cuda:N". Raises BadInput if there is no such device, and
    for the other kinds that PyTorch knows: nothing here has been tried on them."""
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


def set_cpu_threads(count: int, name: str) -> None:
    """How many threads the network called `name` uses on a CPU, in the calling thread and those it starts.

    0: PyTorch's own choice, which follows OMP_NUM_THREADS; but one thread for nano where that is not set, because its
    products are so small that threads mostly wait for each other. Raises BadInput for a negative count or an unknown
    name.
    """
    if count < 0:
        raise BadInput(f"cpu_threads: expected 0 or more, got {count}")
    is_small = find_config(name).name == "sam2.1_hiera_nano" and "OMP_NUM_THREADS" not in os.environ
    torch.set_num_threads(count or (1 if is_small else _TORCHS_THREADS))


# How a shortage of memory reads where torch does not raise OutOfMemoryError: from its CPU allocator, from CUDA outside
# torch's own allocator (contexts, kernels loaded late, pinned memory), and from libraries, the last from oneDNN.
_SHORTAGE = re.compile(
    r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED|calling `?cublasCreate"
    r"|could not create a primitive$"
)


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Turns torch's device failures into OutOfMemory and DeviceLost; anything else passes through."""
    try:
        yield
    except Sam2Error:  # some are a RuntimeError, too, and their texts quote ids and paths
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
    """Whether a CUDA device still works: an error that breaks its context is raised again by whatever comes next."""
    try:
        torch.cuda.synchronize(device)
    except Exception:
        return False
    return True


def empty_cache() -> None:
    """Returns cached GPU memory that is no longer used, for other processes; does nothing without a GPU."""
    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # a lost device has nothing to give
            torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU or, for the CPU, of the machine; None if it cannot be found out."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None
