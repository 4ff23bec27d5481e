"""Hiera, the trunk (arXiv 2306.00989): windowed attention with a few global blocks, in four stages of halving size.

Knows nothing about the feature pyramid on top of it. Tokens are kept as (B, H, W, C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from sam2.attention import average
from sam2.config import ModelConfig
from sam2.layers import MLP, in_slices
from sam2.linear import Linear


class Hiera(nn.Module):
    """Image -> one feature map per stage, at strides 4, 8, 16, 32."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        channels, heads = config.embed_dim, config.num_heads
        self.patch_embed = PatchEmbed(channels)
        self.pos_embed = Parameter(torch.zeros(1, channels, *config.pos_embed_size))
        self.pos_embed_window = Parameter(torch.zeros(1, channels, *(config.window_sizes[0],) * 2))
        self.blocks = nn.ModuleList()
        self.stage_ends: list[int] = []
        for stage, num_blocks in enumerate(config.stages):
            for number in range(num_blocks):
                index = len(self.blocks)
                enters_stage = stage > 0 and number == 0
                # The block that enters a stage still works on the windows of the stage before.
                window = config.window_sizes[stage - 1 if enters_stage else stage]
                window = 0 if index in config.global_attention_blocks else window
                channels_out, heads = (channels * 2, heads * 2) if enters_stage else (channels, heads)
                self.blocks.append(Block(channels, channels_out, heads, window, pools=enters_stage))
                channels = channels_out
            self.stage_ends.append(len(self.blocks) - 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image (B, 3, S, S) normalised -> four maps (B, C_i, S / stride_i, S / stride_i)."""
        x = self.patch_embed(image)  # (B, S/4, S/4, C)
        x = x + self.position(x.shape[1], x.shape[2])
        stages = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        return stages

    def position(self, height: int, width: int) -> Tensor:
        """(1, height, width, C): a stretched background plus one pattern repeated in every window."""
        background = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        window = self.pos_embed_window
        windows = window.tile(1, 1, height // window.shape[2], width // window.shape[3])
        return (background + windows).permute(0, 2, 3, 1).contiguous()


class PatchEmbed(nn.Module):
    """Overlapping patches of 7 x 7 pixels, four pixels apart, become tokens."""

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, kernel_size=7, stride=4, padding=3)

    def forward(self, image: Tensor) -> Tensor:
        """image (B, 3, S, S) normalised -> (B, S/4, S/4, C)"""
        # Channels last is the memory layout of the tokens, so the result needs no copy.
        return self.proj(image.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Window (or, with window 0, global) attention and an MLP; may halve the grid and double the channels."""

    def __init__(self, channels: int, channels_out: int, num_heads: int, window: int, pools: bool):
        super().__init__()
        self.window, self.pools = window, pools
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = WindowAttention(channels, channels_out, num_heads, pools)
        self.norm2 = nn.LayerNorm(channels_out, eps=1e-6)
        self.mlp = MLP(channels_out, 4 * channels_out, channels_out, num_layers=2, activation="gelu")
        if pools:
            self.proj = Linear(channels, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C_out), H and W halved if it pools."""
        shortcut, x = x, self.norm1(x)
        if self.pools:
            shortcut = max_pool(self.proj(x))
        if self.window:
            # Zero padding comes after the norm and is attended to: its keys are the projection's bias.
            windows = split_windows(x, self.window)
            side = self.window // 2 if self.pools else self.window
            x = join_windows(in_slices(self.attn, windows, items=3), side, shortcut.shape[1], shortcut.shape[2])
        else:
            x = self.attn(x)
        x = shortcut + x
        return x + self.mlp(self.norm2(x))


class WindowAttention(nn.Module):
    """Self-attention within each (H, W) grid of the batch, optionally with queries max-pooled 2 x 2."""

    def __init__(self, channels: int, channels_out: int, num_heads: int, pools: bool):
        super().__init__()
        self.num_heads, self.pools = num_heads, pools
        self.qkv = Linear(channels, 3 * channels_out)
        self.proj = Linear(channels_out, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C_out), H and W halved if it pools."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.pools:
            q = max_pool(q)
        height, width = q.shape[1:3]
        q, k, v = (t.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        x = average(q, k, v)  # (B, heads, H * W, C / heads)
        return self.proj(x.transpose(1, 2).flatten(2).unflatten(1, (height, width)))


def max_pool(x: Tensor) -> Tensor:
    """2 x 2 max over the grid of (B, H, W, C)."""
    x = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return torch.maximum(x[:, 0::2], x[:, 1::2])


def split_windows(x: Tensor, side: int) -> Tensor:
    """(B, H, W, C) -> (B * windows, side, side, C), zero-padded at the right and bottom to whole windows."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % side, 0, -x.shape[1] % side))
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # (B, rows, side, columns, side, C)
    return x.transpose(2, 3).flatten(0, 2)


def join_windows(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """The inverse of `split_windows`, cropped to (B, height, width, C)."""
    rows, columns = -(-height // side), -(-width // side)
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)  # (B, rows, side, columns, side, C)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]
