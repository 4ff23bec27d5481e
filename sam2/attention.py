"""Attention with separate query, key and value projections: plain, and with rotated queries and keys."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sam2.linear import Linear, linear, prefers_onednn
from sam2.position import rotary_table, rotate

_TILE_QUERIES, _TILE_KEYS = 256, 1024  # scores of a tile: 1 MB, which fits the cache of a thread's core
_WHOLE_KEYS = 64  # tiles are padded to multiples of it, since oneDNN compiles and keeps a kernel for every shape


class Attention(nn.Module):
    """Multi-head attention; `dim_inside` may be smaller than `dim` to make the heads cheaper."""

    def __init__(self, dim: int, num_heads: int, dim_inside: int | None = None, dim_memory: int | None = None):
        super().__init__()
        dim_inside = dim_inside or dim
        dim_memory = dim_memory or dim
        self.num_heads = num_heads
        self.q_proj = Linear(dim, dim_inside)
        self.k_proj = Linear(dim_memory, dim_inside)
        self.v_proj = Linear(dim_memory, dim_inside)
        self.out_proj = Linear(dim_inside, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B, T, C), k and v (B, M, C or dim_memory) -> (B, T, C)."""
        q, k, v = self.q_proj(q), self.k_proj(k), self.v_proj(v)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, T or M, ...)
        return self.out_proj(average(q, k, v).transpose(1, 2).flatten(2))


class RotaryAttention(Attention):
    """Single-head attention whose queries and keys are rotated by their position on the square feature grid.

    Keys are any number of whole grids (one per remembered frame), each rotated as the queries are, followed by
    `num_unrotated` tokens without a position (object pointers). With `pooling` p > 1 each p x p block of a grid's
    tokens is averaged after rotation, and its mean counts p² times in the softmax (arXiv 2411.18933, §3.2): p² times
    less work, and no longer the official result.
    """

    pooling = 1

    def __init__(self, dim: int, dim_memory: int | None = None):
        super().__init__(dim, num_heads=1, dim_memory=dim_memory)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_unrotated: int = 0) -> Tensor:
        """q (B, hw, C), k and v (N, F * hw + num_unrotated, dim_memory), B in {1, N} -> (N, hw, C)."""
        side = round(q.shape[1] ** 0.5)
        table = rotary_table(self.q_proj.out_features, side, q.device)
        q = rotate(self.q_proj(q), table).expand(k.shape[0], -1, -1)
        k = self._rotated_keys(k, table, num_unrotated)
        counts = None
        if self.pooling > 1:
            k, v = (self._pool_grids(x, side, num_unrotated) for x in (k, v))
            counts = k.new_ones(k.shape[1])  # (M,)
            counts[: k.shape[1] - num_unrotated] = self.pooling**2
        # Weights over the keys sum to one, so the values can be projected after they are averaged: dim_memory wide
        # instead of C, a quarter of that product's work.
        return self.out_proj(self.v_proj(average(q[:, None], k[:, None], v[:, None], counts)[:, 0]))

    def _rotated_keys(self, k: Tensor, table: Tensor, num_unrotated: int) -> Tensor:
        """(N, M, dim_memory) -> (N, M, C)"""
        if num_unrotated == 0 or not prefers_onednn(k):
            return self._rotate_grids(self.k_proj(k), table, num_unrotated)
        # oneDNN compiles and keeps a kernel for every shape. One object's grids have few shapes; grids together with
        # pointers, for any number of objects, would have many.
        num_rotated = k.shape[1] - num_unrotated
        rotated = k.new_empty(*k.shape[:2], self.k_proj.out_features)
        for out, grids in zip(rotated.split(1), k[:, :num_rotated].split(1), strict=True):
            out[:, :num_rotated] = self._rotate_grids(self.k_proj(grids), table, 0)
        rotated[:, num_rotated:] = self.k_proj.plain(k[:, num_rotated:])
        return rotated

    @staticmethod
    def _rotate_grids(k: Tensor, table: Tensor, num_unrotated: int) -> Tensor:
        num_rotated = k.shape[1] - num_unrotated
        grids = k[:, :num_rotated].unflatten(1, (-1, table.shape[0]))  # (N, F, hw, C)
        return torch.cat((rotate(grids, table).flatten(1, 2), k[:, num_rotated:]), dim=1)

    def _pool_grids(self, x: Tensor, side: int, num_unrotated: int) -> Tensor:
        num_rotated, cells = x.shape[1] - num_unrotated, (side // self.pooling, self.pooling)
        grids = x[:, :num_rotated].unflatten(1, (-1, *cells, *cells)).mean((3, 5))  # (N, F, h / p, w / p, C)
        return torch.cat((grids.flatten(1, 3), x[:, num_rotated:]), dim=1)


def average(q: Tensor, k: Tensor, v: Tensor, counts: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √C) v for q (N, heads, T, C), k (N, heads, M, C), v (N, heads, M, D) -> (N, heads, T, D).

    counts (M,): how many times each key counts in the softmax, 1 by default.
    """
    bias = None if counts is None else counts.log()
    if not _goes_in_tiles(q, k, v):
        bias = None if bias is None else bias.to(q.dtype)[None]
        with _kernels(q, v):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    q = q * q.shape[-1] ** -0.5
    # oneDNN falls back to its slowest code for rows that are not contiguous.
    flat = zip(*(x.flatten(0, 1).contiguous() for x in (q, k, v)), strict=True)
    parts = [_average_rows(queries, keys, values, bias) for queries, keys, values in flat]
    return torch.stack(parts).unflatten(0, q.shape[:2])


def _kernels(q: Tensor, v: Tensor) -> AbstractContextManager:
    """Excludes cuDNN's attention where values are narrower than keys: it fails there when one image's queries are
    expanded to four objects ("stride for the last dimension", torch 2.11 on an H200)."""
    if q.is_cuda and v.shape[-1] != q.shape[-1]:
        return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    return nullcontext()


def _goes_in_tiles(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `average` works in tiles. On a CPU PyTorch's fused kernel multiplies with MKL and requires D = C. Tiles
    use the products of `sam2.linear`, gain more the narrower the values are, and pay off only with many keys."""
    if q.device.type != "cpu" or torch.is_grad_enabled() or k.shape[-2] < _TILE_KEYS or q.shape[-2] < _TILE_QUERIES:
        return False
    return prefers_onednn(q) or v.shape[-1] < k.shape[-1]


def _average_rows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """(T, C), (M, C), (M, D), (M,) -> (T, D)"""
    keys, values = list(k.split(_TILE_KEYS)), [part.t().contiguous() for part in v.split(_TILE_KEYS)]
    biases: list[Tensor | None] = [None] * len(keys) if bias is None else list(bias.split(_TILE_KEYS))
    if missing := -k.shape[0] % _WHOLE_KEYS:
        last = biases[-1]
        weight = k.new_zeros(keys[-1].shape[0]) if last is None else last
        keys[-1], values[-1] = F.pad(keys[-1], (0, 0, 0, missing)), F.pad(values[-1], (0, missing))
        biases[-1] = F.pad(weight, (0, missing), value=-torch.inf)  # zero weight
    tiles = list(zip(keys, values, biases, strict=True))
    return torch.cat([_average_tile(rows, tiles) for rows in q.split(_tile_queries())])


def _tile_queries() -> int:
    """Query rows per tile. Several threads get more rows each, even beyond the cache: they synchronise after every
    product, and sleeping threads wake slowly. Measured with two threads (`benchmarks/README.md`)."""
    threads = torch.get_num_threads()
    return _TILE_QUERIES if threads == 1 else 4 * _TILE_QUERIES * threads


def _average_tile(q: Tensor, tiles: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> Tensor:
    """q (T, C), per tile (m, C), (D, m), (m,) -> (T, D): softmax within each tile, whose results are then averaged by
    the tiles' shares of the whole softmax."""
    outputs, log_sums = [], []
    for keys, values, bias in tiles:
        scores = linear(q, keys, bias)  # (T, m)
        weights = scores.softmax(dim=-1)
        outputs.append(linear(weights, values))
        # log Σ exp(s) = max s - log(max softmax(s)), which needs no second pass of exponentials
        log_sums.append(scores.amax(dim=-1) - weights.amax(dim=-1).log())
    if len(outputs) == 1:
        return outputs[0]
    shares = torch.stack(log_sums).softmax(dim=0)  # (tiles, T)
    return torch.einsum("kt,ktd->td", shares, torch.stack(outputs))
