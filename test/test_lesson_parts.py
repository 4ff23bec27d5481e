"""The parts of a lesson: what is asked, which target an answer is scored against, what is added to the loss, what is
frozen, where windows lie."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_training import SIDE, small_model, squares

from sam2.model import Features
from sam2.preprocess import as_prompt
from sam2.training import augment, lessons
from sam2.training.clips import ClipPlan, Decoding, choose_objects, draw_plan, encode_frames, object_masks, track_clip
from sam2.training.config import Phase
from sam2.training.lessons import Lessons
from sam2.training.losses import MaskLoss

STILLS = Phase("stills", 1.0, batch=2, objects=2, prompt_chances=(0.5, 0.25, 0.25), strength=0.0)
CLIPS = Phase("clips", 1.0, batch=2, objects=1, frames=3, prompt_chances=(0.0, 1.0, 0.0), strength=0.0)


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


def made() -> Lessons:
    return Lessons(small_model(), min_area=10, loss_stride=4).train()


@pytest.mark.parametrize(
    ("chances", "boxes"), [((0.5, 0.5, 0.0), 1.0), ((0.5, 0.0, 0.5), 0.0), ((0.2, 0.6, 0.2), 0.75)]
)
def test_stills_are_asked_for_by_boxes_and_clicks_as_often_as_clips_are(chances, boxes, monkeypatch):
    """Masks, which leave nothing to answer, come in clips only."""
    asked = []

    def ask(model, features, targets, plan):
        asked.append((plan.first, plan.clicks[0]))
        raise LookupError

    monkeypatch.setattr(lessons, "track_clip", ask)
    lesson, rng = made(), np.random.default_rng(0)
    lesson.model.encode_image = lambda images: Features(*[images[:, :, :1, :1]] * 3)
    for _ in range(200):
        with pytest.raises(LookupError):
            lesson._stills(
                torch.zeros(1, 1, 3, 4, 4), torch.zeros(1, 1, 4, 4), replace(STILLS, prompt_chances=chances), rng
            )
    share = np.mean([kind == "box" for kind, _ in asked])
    assert share == pytest.approx(boxes, abs=0.1 if 0 < boxes < 1 else 0)
    assert {count for _, count in asked} == {0, 1, 2}


def test_every_answer_is_scored_against_its_own_frame():
    lesson, told = made(), []

    def listen(masks, iou, object_score, target, weights, side, may_be_absent, is_ambiguous):
        told.append((target, side, may_be_absent.tolist(), is_ambiguous.tolist()))
        return MaskLoss(*(torch.tensor(float(10 * len(told) + step)) for step in range(6)))

    lesson.segmentation_loss = listen
    targets = object_masks(squares(1)[..., 3], torch.tensor([[1, 2]]))
    targets[1, 0] = False  # is not there when it is asked for
    decoded = SimpleNamespace(masks=None, iou=None, object_score=None)
    decodings = [
        Decoding(0, decoded, True, False),
        Decoding(1, decoded, False, True),
        Decoding(3, decoded, False, True),
    ]
    losses = lesson._score(decodings, targets, CLIPS)
    for (target, side, may_be_absent, is_ambiguous), asked in zip(told, decodings, strict=True):
        assert torch.equal(target, targets[:, asked.index]) and side == SIDE // 4
        assert may_be_absent == [not asked.prompted, False] and is_ambiguous == [asked.ambiguous] * 2
    found = {name: value.item() for name, value in losses.items()}
    assert found == {"loss": 20, "focal": 21, "dice": 22, "iou_error": 23, "presence": 24, "iou": 30}
    assert lesson._score(decodings[:1], targets, CLIPS)["iou"] == 45, "if all were prompted, that of the first"


@pytest.mark.parametrize("kind", ["stills", "clips"])
def test_the_pretext_is_added_by_its_weight(kind, monkeypatch):
    monkeypatch.setattr(lessons, "pretext_loss", lambda logits, masks: (torch.tensor(2.0), torch.tensor(0.5)))
    lesson, found = made(), []
    for alike in (0.0, 0.3):
        torch.manual_seed(1)
        phase = replace(CLIPS, kind=kind, alike=alike)
        found.append(lesson(squares(2)[:, : 1 if kind == "stills" else 3], phase, np.random.default_rng(1)))
    assert (found[1]["loss"] - found[0]["loss"]).item() == pytest.approx(0.6, abs=1e-5)
    assert found[1]["alike_iou"] == 0.5 and "alike_iou" not in found[0]


@pytest.mark.parametrize("kind", ["clips", "streams"])
def test_an_encoder_without_a_rate_is_not_asked_for_gradients(kind):
    for encoder in (0.0, 0.1):
        lesson = made()
        lesson(squares(2), replace(CLIPS, kind=kind, encoder=encoder), np.random.default_rng(0))["loss"].backward()
        grads = [p.grad is not None for p in lesson.model.image_encoder.parameters()]
        assert any(grads) == (encoder > 0)
        assert lesson.model.memory_attention.layers[0].linear1.weight.grad is not None


def test_windows_lie_everywhere_in_the_whole_image(monkeypatch):
    monkeypatch.setattr(lessons, "window", lambda clips, side: clips)
    lesson, rng, places = made(), np.random.default_rng(0), set()
    for _ in range(200):
        lesson._crop_windows(torch.zeros(1, 1, 128, 128, 4), 64, rng)
        places.add((lesson.model.view.side, lesson.model.view.row, lesson.model.view.column))
    assert places == {(64, row, column) for row in (0, 32, 64) for column in (0, 32, 64)}


def test_a_plan_leaves_a_frame_to_answer_in():
    rng = np.random.default_rng(0)
    seconds = {
        (first, length): {draw_plan(rng, length, chances).second for _ in range(60)}
        for first, chances in (("mask", (1.0, 0.0, 0.0)), ("click", (0.0, 0.0, 1.0)))
        for length in (1, 2, 3)
    }
    assert seconds == {
        **{("mask", 1): {None}, ("mask", 2): {None}, ("mask", 3): {None, 1, 2}},
        **{("click", 1): {None}, ("click", 2): {None, 1}, ("click", 3): {None, 1, 2}},
    }


def test_an_object_of_the_least_area_is_large_enough():
    labels = squares(1)[..., 3]  # each of 9 x 10 pixels
    assert choose_objects(labels, 2, min_area=90).sort().values.tolist() == [[1, 2]]
    assert choose_objects(labels, 2, min_area=91).tolist() == [[255, 255]]


@pytest.mark.parametrize(("first", "points"), [("click", [1, 2, 0, 0]), ("box", [2, 3, 0, 0])])
def test_a_correction_is_one_more_click_that_is_shown_the_last_mask(first, points, monkeypatch):
    """And is answered by the single hypothesis, as what is no single click is."""
    model, decoded, several = small_model().eval(), [], []
    decode, select = model.decode, model.select

    def noted_decode(features, pixels, xy=None, labels=None, mask_input=None):
        decoded.append((0 if xy is None else xy.shape[1], mask_input))
        return decode(features, pixels, xy, labels, mask_input)

    def noted_select(given, multimask):
        several.append((multimask, select(given, multimask)))
        return several[-1][1]

    monkeypatch.setattr(model, "decode", noted_decode)
    monkeypatch.setattr(model, "select", noted_select)
    rgb, labels = augment.split(squares(1)[:, :3])
    with torch.no_grad():
        targets = object_masks(labels, torch.tensor([[1, 2]]))
        decodings, _ = track_clip(model, encode_frames(model, rgb), targets, ClipPlan(first, {0: 1}))
    assert [count for count, _ in decoded] == points
    assert [mask is not None for _, mask in decoded] == [False, True, False, False]
    assert torch.equal(decoded[1][1], as_prompt(several[0][1].low_res_logits))
    assert [multimask for multimask, _ in several] == [first == "click", False, True, True]
    assert [one.ambiguous for one in decodings] == [first == "click", False, True, True]
