"""Trunk and neck: an image becomes three feature maps of equal width."""

import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import ModelConfig
from sam2.hiera import Hiera
from sam2.linear import Conv1x1


class ImageEncoder(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.trunk = Hiera(config)
        self.neck = FeaturePyramid([config.embed_dim * 2**stage for stage in range(4)], config.d_model)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image (B, 3, S, S) -> maps (B, C, S/4, S/4), (B, C, S/8, S/8), (B, C, S/16, S/16)."""
        return self.neck(self.trunk(image))[:3]


class FeaturePyramid(nn.Module):
    """Projects every stage to the same width; only stride 16 also receives the coarser stage, nearest-upsampled.

    `convs.0` is the coarsest level, as in the official files.
    """

    def __init__(self, channels: list[int], d_model: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Sequential() for _ in channels)
        for level, width in zip(self.convs, reversed(channels), strict=True):
            level.add_module("conv", Conv1x1(width, d_model))

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """Four maps, finest first -> four maps of d_model channels, finest first."""
        stride32, stride16, stride8, stride4 = (
            conv(stage) for conv, stage in zip(self.convs, reversed(stages), strict=True)
        )
        # In float32 even under reduced precision, as in the official neck.
        stride16 = stride16 + F.interpolate(stride32.float(), scale_factor=2.0, mode="nearest")
        return [stride4, stride8, stride16, stride32]
