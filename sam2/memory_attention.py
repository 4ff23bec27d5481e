"""Memory attention: the current image's features meet what is remembered of an object (SAM 2, arXiv 2408.00714, §4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.attention import RotaryAttention
from sam2.config import ModelConfig
from sam2.layers import in_slices
from sam2.position import sine_grid


class MemoryAttention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(config) for _ in range(config.memory_attention_layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, stride16: Tensor, memory: Tensor, memory_pos: Tensor, num_pointer_tokens: int) -> Tensor:
        """Features (B, C, h, w), memory tokens (N, M, D) with the pointers' last -> (N, C, h, w).

        B is N, or 1 for N objects in one image: what does not depend on the object is then computed once.
        """
        batch, channels, height, width = stride16.shape
        position = sine_grid(channels, height, width, stride16.device)
        x = (stride16 + 0.1 * position).flatten(2).transpose(1, 2)  # (B, hw, C)
        keys = memory + memory_pos
        for layer in self.layers:
            x = layer(x, keys, memory, num_pointer_tokens)
        return self.norm(x).transpose(1, 2).unflatten(2, (height, width))


class MemoryAttentionLayer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        dim = config.d_model
        self.self_attn = RotaryAttention(dim)
        self.cross_attn_image = RotaryAttention(dim, dim_memory=config.memory_dim)
        self.linear1 = nn.Linear(dim, config.feedforward_dim)
        self.linear2 = nn.Linear(config.feedforward_dim, dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, num_pointer_tokens: int) -> Tensor:
        """x (B, hw, C), keys and values (N, M, D) -> (N, hw, C)."""
        y = self.norm1(x)
        x = x + self.self_attn(y, y, y)
        x = x + self.cross_attn_image(self.norm2(x), keys, values, num_pointer_tokens)
        return x + in_slices(self._feed_forward, self.norm3(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(x)))


def concatenate(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Joins (tokens, positions) pairs, each (N, m, D), into one memory."""
    tokens, positions = zip(*parts, strict=True)
    return torch.cat(tokens, dim=1), torch.cat(positions, dim=1)
