"""The precision policy: which number format the network runs in, and why. Entered explicitly, never ambient.

Weights stay float32; reduced precision means autocast around the network, the mode SAM 2 was trained and published in.
Stored memories are bfloat16 in every mode.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from sam2.errors import BadInput

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The number format of the network's arithmetic; float32 means no autocast."""

    dtype: torch.dtype
    reason: str  # one clause for logs: "asked for", "cpu has no fast reduced precision", ...

    @property
    def name(self) -> str:
        """One of the names that `choose_precision` takes."""
        return next(name for name, dtype in _DTYPES.items() if dtype is self.dtype)

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        """The autocast context to enter around every use of the network, in the thread that uses it."""
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32)


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """`wanted`: "auto", "fp32", "bf16" or "fp16". Raises BadInput for anything else."""
    if wanted in _DTYPES:
        return Precision(_DTYPES[wanted], "asked for")
    if wanted != "auto":
        raise BadInput(f"precision: expected one of auto, {', '.join(_DTYPES)}, got {wanted!r}")
    if device.type != "cuda":
        return Precision(torch.float32, f"{device.type} has no fast reduced precision")
    # Not `torch.cuda.is_bf16_supported`, which asks about the current device.
    if torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0):
        return Precision(torch.bfloat16, "the published mode, and this GPU has it")
    return Precision(torch.float16, "this GPU has no bfloat16")
