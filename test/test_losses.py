"""Losses against hand-computed values, and what they must and must not teach."""

import math

import pytest
import torch

from sam2.training.config import CONFIGS
from sam2.training.losses import (
    LossWeights,
    MaskLoss,
    dice_loss,
    focal_loss,
    mask_iou,
    mean_loss,
    resize_target,
    segmentation_loss,
    solid,
)


def answer(num_objects: int = 1, side: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random masks (N, 4, side, side), IoU estimates (N, 4) and presence scores (N, 1), all with gradients."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.randn(num_objects, 4, side, side, generator=generator).requires_grad_()
    iou = torch.rand(num_objects, 4, generator=generator).requires_grad_()
    return masks, iou, torch.zeros(num_objects, 1, requires_grad=True)


def test_focal_of_two_pixels_is_the_papers_formula():
    logits, target = torch.tensor([[0.5, -1.0]]), torch.tensor([[1.0, 0.0]])
    p, q = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(1.0))
    expected = (0.25 * (1 - p) ** 2 * -math.log(p) + 0.75 * q**2 * -math.log(1 - q)) / 2
    assert focal_loss(logits, target, alpha=0.25).item() == pytest.approx(expected, rel=1e-5)


def test_dice_counts_overlap_twice_and_is_smoothed_by_one_pixel():
    logits = torch.tensor([[30.0, 30.0, -30.0, -30.0]])[None]
    target = torch.tensor([[1.0, 0.0, 1.0, 0.0]])[None]
    assert dice_loss(logits, target).item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1), abs=1e-6)


def test_iou_of_partial_and_empty_masks():
    logits = torch.tensor([[[1.0, 1.0, -1.0]], [[-1.0, -1.0, -1.0]], [[-1.0, -1.0, -1.0]]])
    target = torch.tensor([[[1.0, 0.5, 1.0]], [[0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]])
    assert mask_iou(logits, target).tolist() == pytest.approx([1.5 / (2 + 2.5 - 1.5), 1.0, 0.0])


def test_resized_target_keeps_the_area():
    target = torch.zeros(1, 8, 8, dtype=torch.bool)
    target[0, 1:4, 2:7] = True
    assert resize_target(target, 4).sum().item() * 4 == pytest.approx(15)


def test_only_the_best_of_three_and_the_single_mask_are_taught():
    masks, iou, score = answer()
    target = masks.detach()[:, 2] > 0  # hypothesis 2 is right
    segmentation_loss(masks, iou, score, target, LossWeights(), side=4).total.backward()
    taught = masks.grad.abs().sum((0, 2, 3)) > 0
    assert taught.tolist() == [True, False, True, False]
    assert (iou.grad != 0).all(), "every hypothesis learns how good it is"


def test_the_single_mask_is_none_of_the_three():
    """Also where it is the best of all: one of the three is taught beside it."""
    masks, iou, score = answer()
    segmentation_loss(masks, iou, score, masks.detach()[:, 0] > 0, LossWeights(), side=4).total.backward()
    taught = (masks.grad.abs().sum((0, 2, 3)) > 0).tolist()
    assert taught[0] and sum(taught[1:]) == 1


def test_without_weight_the_single_mask_is_left_alone():
    masks, iou, score = answer()
    segmentation_loss(masks, iou, score, masks.detach()[:, 2] > 0, LossWeights(single=0.0), side=4).total.backward()
    assert masks.grad[:, 0].abs().sum() == 0


def test_a_prompt_is_taught_to_the_hypothesis_that_answers_it():
    """As upstream: the best of three where the prompt is ambiguous, else the single one alone."""
    masks, iou, score = answer(num_objects=2)
    target = masks.detach()[:, 2] > 0
    ambiguous = torch.tensor([True, False])
    losses = segmentation_loss(masks, iou, score, target, LossWeights(single=None), side=4, is_ambiguous=ambiguous)
    losses.total.backward()
    taught = masks.grad.abs().sum((2, 3)) > 0
    assert taught.tolist() == [[False, False, True, False], [True, False, False, False]]
    chosen = torch.stack([masks.detach()[0, iou[0, 1:].argmax() + 1], masks.detach()[1, 0]])
    assert losses.mean_iou.item() == pytest.approx(mask_iou(chosen, target.float()).mean().item())


def test_a_prompt_of_which_nothing_is_said_is_ambiguous():
    masks, iou, score = (part.detach() for part in answer(num_objects=2))
    given = masks, iou, score, masks[:, 2] > 0, LossWeights(single=None), 4
    told = [segmentation_loss(*given, is_ambiguous=kind) for kind in (None, torch.ones(2, dtype=torch.bool))]
    assert told[0] == told[1]


def test_with_weight_on_the_others_no_hypothesis_is_left_out():
    masks, iou, score = answer()
    segmentation_loss(masks, iou, score, masks.detach()[:, 2] > 0, LossWeights(others=0.1), side=4).total.backward()
    assert (masks.grad.abs().sum((0, 2, 3)) > 0).all()


def test_an_absent_object_teaches_presence_only():
    masks, iou, score = answer(num_objects=2)
    target = torch.zeros(2, 4, 4, dtype=torch.bool)
    target[0, :2] = True
    segmentation_loss(masks, iou, score, target, LossWeights(), side=4).total.backward()
    assert masks.grad[1].abs().sum() == 0 and iou.grad[1].abs().sum() == 0
    assert masks.grad[0].abs().sum() > 0
    assert score.grad[0] < 0 < score.grad[1], "present pulls the score up, absent pulls it down"


def test_masks_are_averaged_over_those_that_are_there():
    """In all recipes but `finetune`, since nano's were tuned with that."""
    assert {n for n, config in CONFIGS.items() for phase in config.phases if phase.losses.over_judged} == {"finetune"}
    masks, iou, score = answer(num_objects=2)
    target = torch.zeros(2, 4, 4, dtype=torch.bool)
    target[0, :2] = True
    both, alone = (segmentation_loss(masks[:n], iou[:n], score[:n], target[:n], LossWeights(), side=4) for n in (2, 1))
    for name in ("focal", "dice", "iou_error"):
        assert getattr(both, name).item() == pytest.approx(getattr(alone, name).item())


OFFICIAL = CONFIGS["finetune"].phases[0].losses


@pytest.mark.parametrize("ambiguous", [True, False])
def test_of_four_objects_three_of_which_are_away_finetune_has_the_official_loss(ambiguous):
    """By hand: 20 focal + dice + IoU of the one that is there, divided by four; and the presence of all. Of the 16
    pixels 4 are the object's; each has the probability 1/2."""
    target = torch.zeros(4, 4, 4, dtype=torch.bool)
    target[0, 0] = True
    asked = torch.full((4,), ambiguous)
    loss = segmentation_loss(
        torch.zeros(4, 4, 4, 4), torch.full((4, 4), 0.25), torch.zeros(4, 1), target, OFFICIAL, 4, None, asked
    )
    focal = (4 * 0.25 + 12 * 0.75) / 16 * 0.25 * math.log(2)
    dice = 1 - (2 * 2 + 1) / (8 + 4 + 1)
    assert loss.total.item() == pytest.approx((20 * focal + dice + 0.25) / 4 + math.log(2), rel=1e-6)
    assert [loss.focal.item(), loss.dice.item(), loss.iou_error.item()] == pytest.approx([focal / 4, dice / 4, 1 / 16])


def test_two_processes_teach_finetune_what_one_does_with_twice_the_batch():
    """A team takes the mean of its processes' gradients. Of the first one's three objects two are away."""
    masks, iou, score = answer(num_objects=6)
    target = masks.detach()[:, 2] > 0
    target[:2] = False

    def gradients(*parts: slice) -> list[torch.Tensor]:
        losses = [segmentation_loss(masks[p], iou[p], score[p], target[p], OFFICIAL, side=4).total for p in parts]
        return torch.autograd.grad(torch.stack(losses).mean(), (masks, iou, score))

    for one, two in zip(gradients(slice(6)), gradients(slice(3), slice(3, 6)), strict=True):
        torch.testing.assert_close(one, two)


def test_an_object_that_must_not_be_absent_is_judged_in_no_way():
    """Neither in numerator nor in denominator; and what the network would choose is told of those that are there."""
    masks, iou, score = (part.detach() for part in answer(num_objects=3))
    target = torch.zeros(3, 4, 4, dtype=torch.bool)
    target[0, :2] = True
    may = torch.tensor([False, True, False])
    both, alone = (segmentation_loss(masks[:n], iou[:n], score[:n], target[:n], OFFICIAL, 4, may[:n]) for n in (3, 1))
    for name in ("focal", "dice", "iou_error"):
        assert getattr(both, name).item() == pytest.approx(getattr(alone, name).item() / 2)
    assert both.mean_iou.item() == alone.mean_iou.item()


def test_a_prompt_for_nothing_is_no_lesson():
    masks, iou, score = answer(num_objects=2)
    target = torch.zeros(2, 4, 4, dtype=torch.bool)
    target[0, :2] = True
    nobody = torch.zeros(2, dtype=torch.bool)
    loss = segmentation_loss(masks, iou, score, target, LossWeights(), side=4, may_be_absent=nobody)
    loss.total.backward()
    assert score.grad[0] < 0 == score.grad[1]
    assert loss.presence.item() == pytest.approx(math.log(2)), "the mean over those that are there"


def test_only_those_that_may_be_absent_teach_absence():
    masks, iou, score = answer(num_objects=2)
    target = torch.zeros(2, 4, 4, dtype=torch.bool)
    may = torch.tensor([False, True])
    segmentation_loss(masks, iou, score, target, LossWeights(), side=4, may_be_absent=may).total.backward()
    assert score.grad[0] == 0 < score.grad[1]


def test_iou_loss_is_the_mean_distance_to_what_was_achieved():
    masks, iou, score = answer()
    target = masks.detach()[:, 1] > 0
    achieved = mask_iou(masks.detach(), target[:, None].float().expand(1, 4, 4, 4))
    loss = segmentation_loss(masks, iou, score, target, LossWeights(), side=4)
    assert loss.iou_error.item() == pytest.approx((iou.detach() - achieved).abs().mean().item(), rel=1e-5)


@pytest.mark.parametrize("radius", [2, 9, 40])
def test_the_best_mask_there_can_be_has_an_iou_of_one(radius):
    """However little of a coarse pixel the object fills."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    target = ((x - 61.3) ** 2 + (y - 66.8) ** 2 < radius**2)[None]
    best = 20 * solid(resize_target(target, 32))[:, None].expand(1, 4, 32, 32) - 10
    loss = segmentation_loss(best, torch.ones(1, 4), torch.ones(1, 1), target, LossWeights(), side=64)
    assert loss.iou_error.item() == 0.0 and loss.mean_iou.item() == 1.0
    assert mask_iou(best, resize_target(target, 32)[:, None].expand_as(best)).max() < 0.97, "what it was compared with"


def test_solid_is_what_is_object_by_half():
    assert solid(torch.tensor([[0.3, 0.5, 0.6, 1.0]])).tolist() == [[0, 1, 1, 1]]


def test_what_is_not_there_is_solid_nowhere():
    assert not solid(torch.zeros(2, 4, 4)).any()


def test_total_is_the_weighted_sum():
    masks, iou, score = answer()
    target = masks.detach()[:, 1] > 0
    weights = LossWeights(focal=2.0, dice=3.0, iou=5.0, presence=7.0)
    loss = segmentation_loss(masks, iou, score, target, weights, side=4)
    expected = 2 * loss.focal + 3 * loss.dice + 5 * loss.iou_error + 7 * loss.presence
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss.presence.item() == pytest.approx(math.log(2), rel=1e-6)


def test_masks_are_compared_at_the_side_asked_for():
    masks, iou, score = answer(side=4)
    target = torch.zeros(1, 16, 16, dtype=torch.bool)
    target[0, 5, 5] = True  # a single pixel: a share of 1/16 at side 4
    coarse, fine = (segmentation_loss(masks, iou, score, target, LossWeights(), side=side).dice for side in (4, 16))
    assert abs(coarse.item() - fine.item()) > 1e-3


def test_what_is_taught_is_a_weighted_mean_of_the_best_and_the_single_mask():
    masks, iou, score = (part.detach() for part in answer())
    target = masks[:, 2] > 0
    weights = LossWeights(focal=2.0, focal_alpha=0.6, dice=3.0, iou=0.0, presence=0.0, single=0.5, others=0.25)
    loss = segmentation_loss(masks, iou, score, target, weights, side=4)
    every = masks, target[:, None].float().expand_as(masks)
    focal, dice = focal_loss(*every, alpha=0.6)[0], dice_loss(*every)[0]  # (4,)
    assert loss.focal.item() == pytest.approx(((focal[2] + 0.5 * focal[0]) / 1.5).item())
    assert loss.dice.item() == pytest.approx(((dice[2] + 0.5 * dice[0]) / 1.5).item())
    others = 0.25 * (2 * focal + 3 * dice).mean()
    assert loss.total.item() == pytest.approx((2 * loss.focal + 3 * loss.dice + others).item())


@pytest.mark.parametrize(("weights", "best"), [({"dice": 0.0}, 1), ({"focal": 0.0}, 2)], ids=["focal", "dice"])
def test_the_best_hypothesis_is_that_of_the_weighted_losses(weights, best):
    """One misses a small object, and costs little by pixels; one finds it and more, and costs little by overlap."""
    masks = torch.full((1, 4, 4, 4), -3.0)
    masks[0, 2, 0, :3] = torch.tensor([3.0, 1.0, 1.0])
    masks[0, 3] = 5.0
    masks.requires_grad_()
    target = torch.zeros(1, 4, 4, dtype=torch.bool)
    target[0, 0, 0] = True
    weighted = LossWeights(focal_alpha=0.25, single=0.0, **weights)
    segmentation_loss(masks, torch.zeros(1, 4), torch.zeros(1, 1), target, weighted, side=4).total.backward()
    assert (masks.grad[0].abs().sum((1, 2)) > 0).nonzero().flatten().tolist() == [best]


def test_masks_are_enlarged_without_moving_their_corners():
    masks, iou, score = (part.detach() for part in answer())
    target = torch.nn.functional.interpolate(masks[:, 2:3], size=(8, 8), mode="bilinear", align_corners=False)[:, 0]
    loss = segmentation_loss(masks, iou, score, target > 0, LossWeights(single=0.0), side=8)
    assert loss.dice.item() == pytest.approx(dice_loss(target, (target > 0).float()).item())


def test_several_answers_are_scored_by_their_means():
    losses = [MaskLoss(*(torch.tensor(float(number + step)) for step in range(6))) for number in (0, 4)]
    assert mean_loss(losses) == MaskLoss(*(2.0 + step for step in range(6)))
