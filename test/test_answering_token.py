"""Which of the decoder's four mask tokens a recipe teaches: the one that answers such a prompt once it is trained."""

import pytest
import torch
from small_training import small_model, squares

from sam2.training import augment
from sam2.training.clips import ClipPlan, encode_frames, object_masks, track_clip
from sam2.training.config import find_train_config
from sam2.training.lessons import Lessons


def taught(recipe: str, plan: ClipPlan) -> list[bool]:
    """Whether each hypernetwork learns from one frame prompted by that plan."""
    torch.manual_seed(0)
    lessons = Lessons(small_model(), min_area=10, loss_stride=4).train()
    rgb, labels = augment.split(squares(1)[:, :1])
    targets = object_masks(labels, torch.tensor([[1, 2]]))
    decodings, _ = track_clip(lessons.model, encode_frames(lessons.model, rgb), targets, plan)
    losses = lessons._score(decodings, targets, find_train_config(recipe).phases[-1])
    losses["loss"].backward()
    heads = lessons.model.sam_mask_decoder.output_hypernetworks_mlps
    norms = [sum(p.grad.norm().item() for p in head.parameters() if p.grad is not None) for head in heads]
    return [norm > 1e-6 for norm in norms]


@pytest.mark.parametrize("clicks", [{}, {0: 2}], ids=["alone", "and corrections"])
def test_finetune_teaches_token_0_what_boxes_mean(clicks):
    assert taught("finetune", ClipPlan("box", clicks)) == [True, False, False, False]


def test_finetune_teaches_a_click_to_the_best_of_three_and_its_corrections_to_token_0():
    alone, corrected = taught("finetune", ClipPlan("click")), taught("finetune", ClipPlan("click", {0: 1}))
    assert not alone[0] and any(alone[1:]), "one click is ambiguous"
    assert corrected[0] and any(corrected[1:]), "two are not"


def test_nano_s_recipes_teach_every_token_by_every_prompt():
    assert all(taught("polish", ClipPlan("box"))) and all(taught("polish", ClipPlan("click")))
