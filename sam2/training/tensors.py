"""Copies small arrays to a device without waiting for it."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(len(values),) float32, copied once and cached; never write into it."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def send(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of a small array on `device`; on a GPU the call does not wait for the work already queued."""
    return torch.from_numpy(array).to(device, non_blocking=True)
