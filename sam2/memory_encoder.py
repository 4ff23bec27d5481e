"""The memory encoder: an image's features and an object's mask in it become one small spatial memory."""

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from sam2.config import ModelConfig
from sam2.layers import LayerNorm2d
from sam2.linear import Conv1x1, Linear


class MemoryEncoder(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        dim = config.d_model
        self.mask_downsampler = MaskDownsampler(dim)
        self.pix_feat_proj = Conv1x1(dim, dim)
        self.fuser = Fuser(dim)
        self.out_proj = Conv1x1(dim, config.memory_dim)

    def forward(self, stride16: Tensor, mask: Tensor) -> Tensor:
        """Raw features (B, C, h, w), B in {1, N}, mask (N, 1, 16h, 16w) in -10..10 -> (N, D, h, w)."""
        return self.out_proj(self.fuser(self.pix_feat_proj(stride16) + self.mask_downsampler(mask)))


class MaskDownsampler(nn.Module):
    """Halves the mask four times while the channels grow fourfold, then projects."""

    def __init__(self, dim: int):
        super().__init__()
        self.encoder = nn.Sequential()
        channels = 1
        for _ in range(4):
            self.encoder.append(nn.Conv2d(channels, 4 * channels, kernel_size=3, stride=2, padding=1))
            channels *= 4
            self.encoder.append(LayerNorm2d(channels))
            self.encoder.append(nn.GELU())
        self.encoder.append(Conv1x1(channels, dim))

    def forward(self, mask: Tensor) -> Tensor:
        """(N, 1, 16h, 16w) -> (N, C, h, w)"""
        return self.encoder(mask)


class Fuser(nn.Module):
    """Two ConvNeXt blocks that mix the sum of image features and mask embedding."""

    def __init__(self, dim: int):
        super().__init__()
        self.layers = nn.ModuleList(ConvNeXtBlock(dim) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7, then a pointwise MLP, scaled per channel (arXiv 2201.03545)."""

    def __init__(self, dim: int):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = Linear(dim, 4 * dim)
        self.pwconv2 = Linear(4 * dim, dim)
        self.gamma = Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.pwconv1(y, "gelu"))
        return x + y.permute(0, 3, 1, 2)
