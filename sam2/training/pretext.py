"""The pretext task: the encoder should give similar embeddings to pixels of one object, and different ones to pixels of
two objects.

A clicked pixel's embedding is compared with that of every other pixel, and the similarity is scored as a mask. This
makes a randomly initialised encoder useful within minutes, before the decoder is. The head is thrown away afterwards.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2.model import Features
from sam2.training.losses import dice_loss, mask_iou, resize_target

_DIM = 64  # of the space in which pixels are compared


class Pretext(nn.Module):
    """Projects the three feature maps into one small space, sums them, and compares pixels by cosine similarity."""

    def __init__(self, d_model: int):
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(c, _DIM, 1) for c in (d_model // 8, d_model // 4, d_model))
        self.scale = nn.Parameter(torch.tensor(2.3))  # log
        self.bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, features: Features, points: Tensor, shown: Features) -> Tensor:
        """features of B images, points (B, P, 2) network-input pixels -> mask logits (B, P, 4h, 4w).

        The masks are those of the images `shown`: the same, or others with the same objects.
        """
        asked = self._embed(features)
        answered = asked if shown is features else self._embed(shown)
        width = asked.shape[-1]
        cell = (points / 4).long().clamp(0, width - 1)  # (B, P, 2)
        index = (cell[..., 1] * width + cell[..., 0])[:, None].expand(-1, asked.shape[1], -1)
        clicked = asked.flatten(2).gather(2, index)  # (B, _DIM, P)
        similarity = torch.einsum("bcp,bchw->bphw", clicked, answered)
        return similarity * self.scale.exp() + self.bias

    def _embed(self, features: Features) -> Tensor:
        """(B, _DIM, 4h, 4w), each vector of length 1."""
        maps = [project(x) for project, x in zip(self.project, features, strict=True)]
        size = maps[0].shape[-2:]
        summed = maps[0]
        for coarse in maps[1:]:
            summed = summed + F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        return F.normalize(summed.float(), dim=1)


def pretext_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """logits (B, P, h, w), targets (B * P, S, S) bool -> loss and mean IoU (no gradient), both 0-d."""
    target = resize_target(targets, logits.shape[-1])
    logits = logits.flatten(0, 1)
    count = target.flatten(1).any(1)
    weight = count / count.sum().clamp(min=1)
    share = target.mean((1, 2), keepdim=True).clamp(0.02, 0.5)
    pixel = 0.5 * target / share + 0.5 * (1 - target) / (1 - share)  # object and background weigh the same
    bce = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * pixel).mean((1, 2))
    loss = ((bce + dice_loss(logits, target)) * weight).sum()
    return loss, (mask_iou(logits, target) * weight).sum().detach()
