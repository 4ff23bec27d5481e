"""Simulated users: clicks, boxes and corrective clicks drawn from true masks, on the masks' device.

Knows masks only. Does not synchronise with the device: positions stay tensors. Coordinates are network-input pixels
(x right, y down, whole numbers at pixel centres, as the prompt encoder takes them); labels are the prompt encoder's
(1 on the object, 0 off it, 2 and 3 box corners, -1 nothing).
Sources: SAM 2 paper, appendix C.2 (uniform corrective clicks in the error region); SAM paper, appendix A (box noise).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_BOX_NOISE = 0.1


def sample_pixel(region: Tensor, interior: Tensor | None = None) -> Tensor:
    """One random pixel of each region: (N, S, S) bool -> (N, 2) float32 xy.

    interior (N,) in 0..1: 0 draws uniformly; the closer to 1, the more pixels far from the edge are preferred. The
    pixel of an empty region is arbitrary; the caller can check `region.any()`.
    """
    side = region.shape[-1]
    score = torch.rand(region.shape, device=region.device)
    if interior is not None:
        window = side // 16 * 2 + 1
        rows = F.avg_pool2d(region.float()[:, None], (window, 1), 1, (window // 2, 0))  # separable: cheap
        depth = F.avg_pool2d(rows, (1, window), 1, (0, window // 2))[:, 0]
        score = score + 8 * interior[:, None, None] * depth
    index = score.masked_fill_(~region, -1).flatten(1).argmax(1)  # (N,)
    return torch.stack([index % side, index // side], 1).float()


def click(mask: Tensor) -> tuple[Tensor, Tensor]:
    """A first click on each object: points (N, 1, 2), labels (N, 1). Half are uniform, half prefer the inside."""
    interior = 1 - torch.rand(len(mask), device=mask.device).mul(2).clamp(max=1)
    points = sample_pixel(mask, interior)[:, None]
    return points, torch.ones(points.shape[:2], dtype=torch.long, device=mask.device)


def tight_box(mask: Tensor) -> Tensor:
    """The box around each mask: (N, S, S) bool -> (N, 4) float32 x0 y0 x1 y1, its outermost pixels; the whole image for
    an empty mask."""
    side = mask.shape[-1]
    place = torch.arange(side, device=mask.device)
    edges = []
    for filled in (mask.any(1), mask.any(2)):  # columns, rows (N, S)
        low = torch.where(filled, place, side).amin(1)
        high = torch.where(filled, place, -1).amax(1)
        empty = high < 0
        edges.append((low.masked_fill(empty, 0), high.masked_fill(empty, side - 1)))
    (x0, x1), (y0, y1) = edges
    return torch.stack([x0, y0, x1, y1], 1).float()


def box(mask: Tensor) -> tuple[Tensor, Tensor]:
    """A box around each object, exact or with noise: corners (N, 2, 2), labels (N, 2) = 2, 3.

    Half of them are exact: a network that only ever sees noisy boxes learns not to trust any. In the others each edge
    has a normal error, whose standard deviation is 0 to _BOX_NOISE of the box's side, drawn per object; at most a
    quarter of the side, and 20 px in an image of 1024.
    """
    side = mask.shape[-1]
    edges = tight_box(mask)
    size = (edges[:, 2:] - edges[:, :2] + 1).repeat(1, 2)  # (N, 4)
    carelessness = torch.rand(len(mask), 1, device=mask.device).mul(2).sub(1).clamp(min=0)
    error = torch.randn(edges.shape, device=mask.device) * _BOX_NOISE * carelessness * size
    limit = torch.minimum(0.25 * size, torch.full_like(size, 20 * side / 1024))
    edges = (edges + error.clamp(-limit, limit)).clamp(0, side - 1)
    labels = torch.arange(2, 4, device=mask.device).expand(len(mask), 2)
    return edges.view(-1, 2, 2), labels


def corrective_click(predicted: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A click where the prediction is wrong: (N, S, S) bool twice -> points (N, 1, 2), labels (N, 1).

    Label 1 for a false negative, 0 for a false positive, -1 (no point) if nothing is wrong.
    """
    wrong = predicted ^ mask
    points = sample_pixel(wrong)
    column, row = points.long().unbind(1)
    on_object = mask[torch.arange(len(mask), device=mask.device), row, column].long()
    labels = torch.where(wrong.flatten(1).any(1), on_object, -1)
    return points[:, None], labels[:, None]
