"""Points, box corners and masks become tokens and a dense embedding (Segment Anything, arXiv 2304.02643, §A)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.config import ModelConfig
from sam2.layers import LayerNorm2d

PADDING, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3  # point labels


class PromptEncoder(nn.Module):
    point_embeddings: Sequence[nn.Embedding]  # by label 0..3

    def __init__(self, config: ModelConfig):
        super().__init__()
        dim = config.d_model
        self.image_size, self.grid_size = config.image_size, config.grid_size
        self.pe_layer = RandomFourierPosition(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))  # type: ignore[assignment]
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.no_mask_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            *(nn.Conv2d(1, 4, kernel_size=2, stride=2), LayerNorm2d(4), nn.GELU()),
            *(nn.Conv2d(4, 16, kernel_size=2, stride=2), LayerNorm2d(16), nn.GELU()),
            nn.Conv2d(16, dim, kernel_size=1),
        )

    def sparse(self, points_xy_model: Tensor, labels: Tensor) -> Tensor:
        """points (N, K, 2) in network-input pixels, labels (N, K) -> tokens (N, K + 1, C).

        One padding point is always appended, as in the official model's training.
        """
        points = F.pad(points_xy_model + 0.5, (0, 0, 0, 1))  # pixel centres; padding at (0, 0)
        labels = F.pad(labels, (0, 1), value=PADDING)[..., None]  # (N, K + 1, 1)
        position = self.pe_layer(points / self.image_size)
        tokens = torch.where(labels == PADDING, self.not_a_point_embed.weight, position)
        for label, embedding in enumerate(self.point_embeddings):
            tokens = torch.where(labels == label, tokens + embedding.weight, tokens)
        return tokens

    def dense(self, mask_input: Tensor | None) -> Tensor:
        """mask logits (N, 1, 4h, 4w) -> (N, C, h, w); None -> (1, C, 1, 1), the same for every cell."""
        if mask_input is None:
            return self.no_mask_embed.weight[:, :, None, None]
        return self.mask_downscaling(mask_input)

    def grid_position(self) -> Tensor:
        """(1, C, h, w): the position code of every cell of the feature grid."""
        device = self.no_mask_embed.weight.device
        centres = (torch.arange(self.grid_size, dtype=torch.float32, device=device) + 0.5) / self.grid_size
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.pe_layer(torch.stack((x, y), dim=-1)).permute(2, 0, 1)[None]


class RandomFourierPosition(nn.Module):
    """Sines and cosines of fixed random projections of the position; the projections are in the checkpoint."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, dim // 2))

    def forward(self, xy_unit: Tensor) -> Tensor:
        """(..., 2) in 0..1 -> (..., dim) float32.

        No matrix product: autocast and TF32 would round it, and the projections magnify rounding.
        """
        x, y = (2 * xy_unit.float() - 1).unsqueeze(-2).unbind(-1)  # (..., 1) each
        to_x, to_y = self.positional_encoding_gaussian_matrix
        angle = 2 * math.pi * torch.addcmul(x * to_x, y, to_y)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)
