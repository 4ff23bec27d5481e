"""The training losses: focal, dice, IoU and presence, with the mask losses on the best of the mask hypotheses.

Knows tensors only: nothing of clips, prompts or schedules. Sources: SAM 2 paper, appendix C.2 (focal 20 : dice 1 :
IoU L1 1 : presence BCE 1, only the best hypothesis learns the mask, all learn their IoU) and the official training code
(an unambiguous prompt has one hypothesis, the single one); focal from Lin et al. 2017, dice
from Milletari et al. 2016. From random weights focal needs the balanced weighting (alpha 0.75, weight 5): with 0.25
and 20 the background wins everywhere and stays there.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.training.tensors import constant


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts.

    `over_judged`: divides the sums over objects of the mask and IoU losses by the number of all objects whose presence
    is scored, absent ones included, as the official training code does. The few present objects of a frame then do not
    weigh more because most are absent, and two processes learn what one does from twice the batch, if both score
    equally many. False: divides by the number of present objects; the recipes of nano were tuned with that.
    """

    focal: float = 5.0
    focal_alpha: float = 0.75  # weight of object pixels against background pixels, 0..1
    dice: float = 1.0
    iou: float = 1.0
    presence: float = 1.0
    single: float | None = 0.5  # of the single mask beside the best of three; None: only the one that is output learns
    others: float = 0.0  # of every hypothesis, best or not, so that early on none is left untrained
    over_judged: bool = False


class MaskLoss(NamedTuple):
    """Scalars (0-d tensors on the device), already averaged over objects as `LossWeights.over_judged` says."""

    total: Tensor
    focal: Tensor
    dice: Tensor
    iou_error: Tensor
    presence: Tensor
    mean_iou: Tensor  # of the hypothesis that the network would output, over present objects; no gradient


def focal_loss(logits: Tensor, target: Tensor, alpha: float, gamma: float = 2.0) -> Tensor:
    """Mean focal loss over the last two dimensions: logits, target (..., H, W), target in 0..1 -> (...)."""
    probability = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    missed = probability * (1 - target) + (1 - probability) * target  # 0 where sure and right
    weight = alpha * target + (1 - alpha) * (1 - target)
    return (weight * missed.pow(gamma) * cross_entropy).mean((-2, -1))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - dice over the last two dimensions, smoothed by one pixel: (..., H, W) -> (...)."""
    probability = logits.sigmoid()
    overlap = (probability * target).sum((-2, -1))
    return 1 - (2 * overlap + 1) / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1)


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of `logits > 0` with a target of 0..1: (..., H, W) -> (...).

    Partial pixels count partly. Two empty masks agree: 1.
    """
    mask = (logits > 0).to(target.dtype)
    overlap = (mask * target).sum((-2, -1))
    union = mask.sum((-2, -1)) + target.sum((-2, -1)) - overlap
    return torch.where(union > 0, overlap / union.clamp(min=1e-6), torch.ones_like(union))


def resize_target(target: Tensor, side: int) -> Tensor:
    """(N, S, S) bool or float -> (N, side, side) float32: the share of the object in each block of pixels.

    `side` divides S.
    """
    rows = target.float().unflatten(1, (side, -1)).mean(2)  # (N, side, S); pooling in one go is slow on a CPU
    return rows.unflatten(2, (side, -1)).mean(3)


def solid(shares: Tensor) -> Tensor:
    """The binary mask for shares (..., H, W): pixels at least half covered or, if an object is too small to have any,
    its most covered pixels.

    The IoU of a binary mask with the shares themselves could not reach 1.
    """
    fullest = shares.amax((-2, -1), keepdim=True)
    return ((shares > 0) & (shares >= fullest.clamp(max=0.5))).to(shares.dtype)


def segmentation_loss(
    masks: Tensor,
    iou: Tensor,
    object_score: Tensor,
    target: Tensor,
    weights: LossWeights,
    side: int,
    may_be_absent: Tensor | None = None,
    is_ambiguous: Tensor | None = None,
) -> MaskLoss:
    """Scores one decoding of N objects.

    masks (N, 4, h, w) logits, 0 the single hypothesis and 1..3 the multiple ones; iou (N, 4) in 0..1;
    object_score (N, 1) logit; target (N, S, S) bool, all False where the object is absent; side: the masks are compared
    at (side, side), h <= side <= S. An absent object adds to the presence loss only, and only where `may_be_absent`
    (N,) bool (None: everywhere): a prompt on no object teaches nothing. `is_ambiguous` (N,) bool (None: all are): the
    prompts for which one of the multiple hypotheses is output; for the others it is the single one.
    """
    masks, iou, object_score = masks.float(), iou.float(), object_score.float()
    present = target.flatten(1).any(1).float()  # (N,)
    judged = torch.ones_like(present) if may_be_absent is None else present.maximum(may_be_absent.float())
    counted = judged if weights.over_judged else present  # (N,)
    coarse = resize_target(target, masks.shape[-1])[:, None].expand_as(masks)  # (N, 4, h, w)
    with torch.set_grad_enabled(torch.is_grad_enabled() and weights.others > 0):
        cost = weights.focal * focal_loss(masks, coarse, weights.focal_alpha) + weights.dice * dice_loss(masks, coarse)
    best = cost.detach()[:, 1:].argmin(1) + 1  # (N,)
    ambiguous = torch.ones_like(present) if is_ambiguous is None else is_ambiguous.float()
    focal, dice = _taught_mask_loss(masks, target, best, ambiguous, weights, side)  # (N,) each
    achieved = mask_iou(masks.detach(), solid(coarse))  # (N, 4)
    iou_error = (iou - achieved).abs().mean(1)  # (N,)
    rows = torch.arange(len(masks), device=masks.device)
    chosen = torch.where(ambiguous > 0, achieved[rows, iou[:, 1:].argmax(1) + 1], achieved[:, 0])  # (N,)
    presence = _presence_loss(object_score[:, 0], present, judged)
    focal, dice, iou_error, others = (
        (each * present).sum() / counted.sum().clamp(min=1) for each in (focal, dice, iou_error, cost.mean(1))
    )
    mean_iou = (chosen * present).sum() / present.sum().clamp(min=1)
    total = weights.focal * focal + weights.dice * dice + weights.iou * iou_error + weights.presence * presence
    return MaskLoss(total + weights.others * others, focal, dice, iou_error, presence, mean_iou.detach())


def _taught_mask_loss(
    masks: Tensor, target: Tensor, best: Tensor, ambiguous: Tensor, weights: LossWeights, side: int
) -> tuple[Tensor, Tensor]:
    """Focal and dice loss (N,), at (side, side), of the hypotheses that learn the mask: the `best` (N,) and the single
    one, weighted by `weights.single`. `ambiguous` (N,): 1 where one of the multiple hypotheses is output, 0 where the
    single one is."""
    rows = torch.arange(len(masks), device=masks.device)
    taught = torch.stack([masks[rows, best], masks[:, 0]], 1)  # (N, 2, h, w)
    if side != masks.shape[-1]:
        taught = F.interpolate(taught, size=(side, side), mode="bilinear", align_corners=False)
    fine = resize_target(target, side)[:, None].expand_as(taught)
    if weights.single is None:
        share = torch.stack([ambiguous, 1 - ambiguous], 1)  # (N, 2) sums to 1 for each
    else:
        share = constant((1.0, weights.single), masks.device) / (1 + weights.single)
    focal, dice = focal_loss(taught, fine, weights.focal_alpha), dice_loss(taught, fine)  # (N, 2)
    return (focal * share).sum(1), (dice * share).sum(1)


def _presence_loss(logit: Tensor, present: Tensor, judged: Tensor) -> Tensor:
    """Mean over the objects that are `judged`: those that are present or may be absent; all (N,)."""
    loss = F.binary_cross_entropy_with_logits(logit, present, judged, reduction="sum")
    return loss / judged.sum().clamp(min=1)


def mean_loss(losses: list[MaskLoss]) -> MaskLoss:
    """The mean of each term over several decodings."""
    return MaskLoss(*(torch.stack(term).mean() for term in zip(*losses, strict=True)))
