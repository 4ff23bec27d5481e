"""Memory attention: the current image's features attend to an object's memories (SAM 2, arXiv 2408.00714, §4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sam2.attention import RotaryAttention
from sam2.config import ModelConfig
from sam2.layers import in_slices
from sam2.linear import Linear
from sam2.position import sine_grid


class MemoryAttention(nn.Module):
    layers: Sequence["MemoryAttentionLayer"]

    def __init__(self, config: ModelConfig):
        super().__init__()
        layers = (MemoryAttentionLayer(config) for _ in range(config.memory_attention_layers))
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        self.norm = nn.LayerNorm(config.d_model)

    def self_attend(self, stride16: Tensor) -> Tensor:
        """Features (B, C, h, w) -> (B, hw, C): the part before any memory, shared by all objects of an image."""
        placed = stride16 + 0.1 * self.position(stride16)
        return self.layers[0].self_attend(placed.flatten(2).transpose(1, 2))

    def position(self, stride16: Tensor) -> Tensor:
        """(1, C, h, w): the position code of every cell of features (B, C, h, w)."""
        return sine_grid(*stride16.shape[1:], stride16.device)

    def forward(self, self_attended: Tensor, memory: Tensor, memory_pos: Tensor, num_pointer_tokens: int) -> Tensor:
        """(B, hw, C) from `self_attend`, memory (N, M, D), pointer tokens last -> (N, C, h, w); B in {1, N}."""
        keys = memory + memory_pos
        x = self.layers[0].cross_attend(self_attended, keys, memory, num_pointer_tokens)
        for layer in self.layers[1:]:
            x = layer.cross_attend(layer.self_attend(x), keys, memory, num_pointer_tokens)
        side = round(x.shape[1] ** 0.5)
        return self.norm(x).transpose(1, 2).unflatten(2, (side, side))


class MemoryAttentionLayer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        dim = config.d_model
        self.self_attn = RotaryAttention(dim)
        self.cross_attn_image = RotaryAttention(dim, dim_memory=config.memory_dim)
        self.linear1 = Linear(dim, config.feedforward_dim)
        self.linear2 = Linear(config.feedforward_dim, dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def self_attend(self, x: Tensor) -> Tensor:
        """(B, hw, C) -> (B, hw, C): the image attends to itself."""
        y = self.norm1(x)
        return x + self.self_attn(y, y, y)

    def cross_attend(self, x: Tensor, keys: Tensor, values: Tensor, num_pointer_tokens: int) -> Tensor:
        """x (B, hw, C), keys and values (N, M, D) -> (N, hw, C): the image attends to the memories."""
        x = x + self.cross_attn_image(self.norm2(x), keys, values, num_pointer_tokens)
        return x + in_slices(self._feed_forward, self.norm3(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x, "relu"))


def concatenate(
    spatial: Sequence[tuple[Tensor, Tensor]], pointers: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, int]:
    """Joins (tokens, positions) pairs, each (N, m, D), into what `MemoryAttention` takes: one memory (N, M, D), its
    positions, and how many of the last tokens are pointers."""
    parts = spatial if pointers is None else (*spatial, pointers)
    tokens, positions = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return tokens, positions, 0 if pointers is None else pointers[0].shape[1]
