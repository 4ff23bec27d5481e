"""Position encodings that are not learned: sines over a grid, sines over time, and the rotary table.

The tables depend only on sizes, so each is made once per device and kept; they are not in any checkpoint.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


def _frequencies(count: int, device: torch.device | None) -> Tensor:
    """(count,) divisors of the sine encodings: neighbours share one ("Attention Is All You Need" §3.5)."""
    index = torch.arange(count, dtype=torch.float32, device=device)
    return 10000 ** (2 * (index // 2) / count)


@lru_cache(maxsize=32)
def sine_grid(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """(1, channels, height, width) float32: first half encodes y, second half x, both scaled to (0, 2π]."""
    with torch.inference_mode(False), torch.no_grad():  # a table cached during inference must also work in training
        divisors = _frequencies(channels // 2, device)

        def encode(length: int) -> Tensor:  # (length, channels / 2)
            position = torch.arange(1, length + 1, dtype=torch.float32, device=device)
            position = position / (position[-1:] + 1e-6) * (2 * math.pi)
            angle = position[:, None] / divisors
            return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

        y = encode(height)[:, None].expand(-1, width, -1)
        x = encode(width)[None].expand(height, -1, -1)
        return torch.cat((y, x), dim=2).permute(2, 0, 1)[None].contiguous()


def sine_time(time: Tensor, channels: int) -> Tensor:
    """(..., channels) of `time` (...,): sines in the first half, cosines in the second. Always float32: the age of a
    prompted frame grows for as long as the stream lives."""
    angle = time.float()[..., None] / _frequencies(channels // 2, time.device)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


@lru_cache(maxsize=32)
def rotary_table(channels: int, side: int, device: torch.device) -> Tensor:
    """(side * side, channels / 2) complex64 of magnitude 1: the axial rotary encoding (RoPE-ViT, arXiv 2403.13298).

    The first half of the channel pairs rotates with x, the second with y.
    """
    with torch.inference_mode(False), torch.no_grad():
        index = torch.arange(0, channels, 4, dtype=torch.float32, device=device)
        frequency = 1.0 / 10000 ** (index / channels)
        cell = torch.arange(side * side, dtype=torch.float32, device=device)
        y = torch.div(cell, side, rounding_mode="floor")
        angle = torch.cat((torch.outer(cell - side * y, frequency), torch.outer(y, frequency)), dim=1)
        return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotates neighbouring channel pairs of x (..., hw, C) by the table's angles; computed in float32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (..., hw, C / 2)
    return torch.view_as_real(pairs * table).flatten(-2).type_as(x)
