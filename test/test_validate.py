"""The quick look at the weights: which frames and objects its figures are of, and that it leaves no trace."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_training import SIDE, TwoSquares, small_model, squares

from sam2.errors import BadInput
from sam2.training import validate as module
from sam2.training.validate import Validation, held_out_clips, validate


def judged(monkeypatch, clips: torch.Tensor, predict):
    """What is said of predictions: `predict` makes them of the true masks (N, T, S, S)."""

    def track(model, features, targets, plan):
        found = predict(targets.clone())
        return [], [SimpleNamespace(low_res_logits=20.0 * found[:, t, None] - 10) for t in range(found.shape[1])]

    monkeypatch.setattr(module, "encode_frames", lambda *args: None)
    monkeypatch.setattr(module, "track_clip", track)
    return validate(small_model(), clips, objects=2, min_area=10)


def test_the_truth_is_right(monkeypatch):
    found = judged(monkeypatch, squares(5), lambda true: true)
    assert found.first_iou == pytest.approx(1) and found.tracked_iou == pytest.approx(1)
    assert found.masks.shape == found.targets.shape == (5, 2, 4, SIDE, SIDE)
    assert np.array_equal(found.masks, found.targets) and found.targets[:, :, 0].any(axis=(2, 3)).all()


def test_the_clicked_frame_is_told_apart_from_those_that_are_tracked(monkeypatch):
    def only_first(true):
        true[:, 1:] = False
        return true

    def all_but_first(true):
        true[:, 0] = False
        return true

    first, others = (judged(monkeypatch, squares(2), predict) for predict in (only_first, all_but_first))
    assert (first.first_iou, first.tracked_iou) == pytest.approx((1, 0))
    assert (others.first_iou, others.tracked_iou) == pytest.approx((0, 1))


def test_frames_without_the_object_have_no_iou(monkeypatch):
    """The red square is away in the third frame, where a mask would be wrong."""
    half = judged(monkeypatch, squares(2), lambda true: true | ~true.flatten(2).any(2)[..., None, None])
    assert half.tracked_iou == pytest.approx(1), "what is away is a matter of presence"


def test_it_leaves_the_model_and_the_random_numbers_as_they_were_and_looks_the_same_each_time():
    model, modes = small_model(), []
    model.image_encoder.register_forward_hook(lambda module, given, made: modes.append(module.training))
    clips = torch.from_numpy(np.stack([TwoSquares()(seed)[:2] for seed in range(1)]))
    looks = []
    for was_training in (True, False):
        model.train(was_training)
        torch.manual_seed(was_training)
        expected = torch.rand(3)
        torch.manual_seed(was_training)
        looks.append(validate(model, clips, objects=1, min_area=10))
        assert torch.equal(torch.rand(3), expected) and model.training == was_training
    assert np.array_equal(looks[0].masks, looks[1].masks) and not any(modes) and modes


def test_the_clips_are_the_same_each_time_and_as_long_as_one_look_takes():
    asked = []

    def maker(seed):
        asked.append(seed)
        return np.ones((40, SIDE, SIDE, 4), np.uint8)

    clips = held_out_clips(maker, min_area=SIDE * SIDE)
    assert clips.shape == (module.CLIPS, module.FRAMES, SIDE, SIDE, 4)
    assert asked == [module.SEED + i for i in range(module.CLIPS)]


@pytest.mark.parametrize(("pixels", "found"), [(9, "one of 9"), (0, "none")])
def test_clips_that_begin_with_nothing_large_enough_are_refused(pixels, found):
    """Whatever comes later in them."""

    def maker(seed):
        clip = np.zeros((3, SIDE, SIDE, 4), np.uint8)
        clip[0, 0, :pixels, 3] = seed == module.SEED + 1
        clip[1:, :, :, 3] = 1
        return clip

    with pytest.raises(BadInput, match=f"expected objects of 10 pixels or more, of {SIDE} x {SIDE}, .*found {found};"):
        held_out_clips(maker, min_area=10)
    if pixels:
        assert held_out_clips(maker, min_area=pixels).any()


def test_the_figures_are_told_in_percent():
    told = str(Validation(0.5, 0.25, 0.125, np.zeros(0), np.zeros(0)))
    assert told == "clicked frame IoU 50.0, tracked IoU 25.0, presence right 12.5 %"
