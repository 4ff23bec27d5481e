"""Lessons: prompts, the choice of objects, and a forward pass that remembers as the tracker does."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_training import SIDE, masks_of, small_model, squares

from sam2.config import find_config
from sam2.model import PROMPTED_CODE, SAM2
from sam2.preprocess import normalise
from sam2.tracker import Tracker
from sam2.training import augment, prompts
from sam2.training.clips import (
    Bank,
    ClipPlan,
    choose_objects,
    draw_plan,
    encode_frames,
    object_masks,
    track_clip,
)
from sam2.training.config import Phase
from sam2.training.draws import draw_frames, label_areas, something_returns
from sam2.training.lessons import Lessons
from sam2.training.losses import segmentation_loss
from sam2.training.validate import validate
from sam2.types import Frame, Prompt


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


# validation


def test_presence_is_judged_of_what_was_clicked(monkeypatch):
    """In a clip without objects nothing was: whatever is tracked from there is neither right nor wrong."""
    clips = squares(2)
    clips[1, ..., 3] = 0
    away = (clips[0, ..., 3] == 1).flatten(1).any(1).logical_not()
    assert away.tolist() == [False, False, True, False], "of one of the two objects"
    everywhere = SimpleNamespace(low_res_logits=torch.ones(4, 1, SIDE // 4, SIDE // 4))
    monkeypatch.setattr("sam2.training.validate.track_clip", lambda *_: (None, [everywhere] * 4))
    result = validate(small_model(), clips, objects=2, min_area=1)
    assert result.presence == pytest.approx(5 / 6)
    clips[0, ..., 3] = 0
    assert validate(small_model(), clips, objects=2, min_area=1).presence == 0


# prompts


def test_clicks_fall_on_every_part_of_the_object_and_nowhere_else():
    masks = masks_of((3, 5, 6, 7)).expand(200, -1, -1)
    points, labels = prompts.click(masks)
    hit = {tuple(p) for p in points[:, 0].int().tolist()}
    assert hit == {(x, y) for x in (3, 4, 5) for y in (5, 6)}
    assert labels.unique().tolist() == [1]


def test_interior_clicks_keep_off_the_edge():
    points = prompts.sample_pixel(masks_of((4, 4, 20, 20)).expand(100, -1, -1), torch.ones(100))
    assert points.min() > 4 and points.max() < 19


def test_tight_boxes_end_at_the_outer_pixels():
    assert prompts.tight_box(masks_of((3, 5, 10, 7), (0, 0, SIDE, SIDE))).tolist() == [[3, 5, 9, 6], [0, 0, 31, 31]]
    assert prompts.tight_box(masks_of((0, 0, 0, 0))).tolist() == [[0, 0, 31, 31]], "nothing there: the whole image"


def test_boxes_are_off_by_a_little_and_labelled_as_corners():
    masks = masks_of((8, 8, 24, 24)).expand(100, -1, -1)
    corners, labels = prompts.box(masks)
    error = (corners - torch.tensor([[8.0, 8.0], [23.0, 23.0]])).abs()
    assert 0.1 < error.mean() and error.max() <= 20 * SIDE / 1024 + 1e-4
    assert labels[0].tolist() == [2, 3]


def test_half_of_the_boxes_are_exact_and_the_others_off_by_a_share_of_their_sides():
    mask = torch.zeros(1, 512, 512, dtype=torch.bool)
    mask[:, 200:210, 100:300] = True
    error = (prompts.box(mask.expand(400, -1, -1))[0] - torch.tensor([[100.0, 200.0], [299.0, 209.0]])).abs()
    exact = (error == 0).flatten(1).all(1)
    assert 0.4 < exact.float().mean() < 0.6
    x, y = error[~exact].unbind(2)
    assert 9 < x.max() <= 10 and y.max() <= 2.5, "20 px of 1024, and a quarter of the side"
    assert 0.4 < y.square().mean().sqrt() < 0.75, "a tenth of the side at most"


def test_boxes_do_not_leave_the_image():
    whole = torch.ones(1, 64, 64, dtype=torch.bool).expand(100, -1, -1)
    corners, _ = prompts.box(whole)
    assert corners.min() == 0 and corners.max() == 63


def test_corrective_clicks_fix_what_is_wrong():
    truth = masks_of((4, 4, 12, 12), (4, 4, 12, 12), (4, 4, 12, 12))
    predicted = masks_of((4, 4, 12, 8), (4, 4, 20, 12), (4, 4, 12, 12))
    points, labels = prompts.corrective_click(predicted, truth)
    assert labels[:, 0].tolist() == [1, 0, -1], "missed, too much, nothing wrong"
    assert points[0, 0, 1] >= 8 and points[1, 0, 0] >= 12


# choosing


def test_only_what_the_first_prompt_showed_is_a_lesson_in_absence(monkeypatch):
    """Also in later frames of a stream, whether or not they begin with it."""
    told = []

    def listen(*args, may_be_absent, **kwargs):
        told.append(may_be_absent.tolist())
        return segmentation_loss(*args, may_be_absent=may_be_absent, **kwargs)

    monkeypatch.setattr("sam2.training.lessons.segmentation_loss", listen)
    lessons = Lessons(small_model(), min_area=10, loss_stride=4).train()
    phase = Phase("streams", 1.0, batch=2, objects=1, frames=2, prompt_chances=(0.0, 1.0, 0.0), strength=0.0)
    clips = squares(2)
    clips[..., 3] *= clips[..., 3] == 1  # the square that is hidden in the third frame
    clips[1, 0, ..., 3] = 0  # nothing to prompt in this clip's first frame
    for _ in range(4):  # streams that take turns
        lessons(clips, phase, np.random.default_rng(0))
    lessons(None, phase, np.random.default_rng(0))
    assert told[-3:] == [[True, False]] * 3, "the last frame of the first four steps, and both of the fifth"
    assert [False, False] in told, "prompted and corrected frames"
    told.clear()
    losses = lessons(clips[1:], replace(phase, kind="clips"), np.random.default_rng(0))
    assert told == [[False]] * len(told) and losses["presence"] == 0


def test_stills_teach_beside_clips():
    lessons = Lessons(small_model(), min_area=10, loss_stride=4).train()
    phase = Phase("clips", 1.0, batch=2, objects=2, frames=4, prompt_chances=(0.2, 0.4, 0.4), stills=1.0, alike=0.3)
    stills = phase.draw(np.random.default_rng(0), SIDE)
    assert (stills.kind, stills.batch, stills.frames) == ("stills", 8, 1)
    losses = lessons(squares(8)[:, :1], stills, np.random.default_rng(0))
    assert {"iou", "alike_iou"} <= losses.keys()
    losses["loss"].backward()
    assert lessons.pretext.scale.grad is not None, "the pretext goes on beside the lesson"
    assert lessons.model.memory_encoder.out_proj.weight.grad is None, "a still has no memory"
    lessons(squares(2), phase, np.random.default_rng(0))["loss"].backward()
    assert lessons.model.memory_encoder.out_proj.weight.grad is not None


def test_objects_are_chosen_among_those_in_the_first_frame():
    clips = squares(1)
    chosen = choose_objects(clips[..., 3], 3, min_area=10)
    assert set(chosen[0, :2].tolist()) == {1, 2} and chosen[0, 2] == chosen[0, 0], "repeated when there are fewer"
    assert choose_objects(clips[:, 2:, :, :, 3], 2, min_area=10).tolist() == [[2, 2]], "the red one is hidden there"
    assert choose_objects(clips[..., 3], 1, min_area=1000).tolist() == [[255]]


def test_objects_that_vanish_come_first_more_often():
    chosen = choose_objects(squares(1)[..., 3].expand(400, -1, -1, -1), 1, min_area=10)
    assert (chosen == 1).float().mean() > 0.75


def test_windows_stay_inside_and_use_every_stride_and_direction():
    areas = np.ones((300, 16, 3), int)
    frames = draw_frames(np.random.default_rng(0), areas, frames=4, max_stride=4, vanish=0.0)
    assert frames.min() >= 0 and frames.max() <= 15
    assert set(np.unique(np.diff(frames, axis=1))) == {-4, -3, -2, -1, 1, 2, 3, 4}


def test_frames_in_which_something_returns_are_found():
    seen = label_areas(squares(1)[0].numpy())[None] > 0  # the red one is hidden in the third frame of four
    assert something_returns(seen[0]) and not something_returns(seen[0, :3]) and not something_returns(seen[0, 2:])
    clips = np.ones((200, 24, 3), int)
    clips[:, 10:13, 1] = 0
    shares = []
    for vanish in (0.0, 1.0):
        frames = draw_frames(np.random.default_rng(0), clips, frames=6, max_stride=4, vanish=vanish)
        shares.append(np.mean([something_returns(clip[i] > 0) for clip, i in zip(clips, frames, strict=True)]))
    assert shares[0] < 0.6 and shares[1] > 0.95


def test_draws_begin_with_an_object_that_is_large_enough():
    areas = np.full((200, 24, 3), 15)
    areas[:, 8:16, 2] = 16
    drawn = draw_frames(np.random.default_rng(0), areas, frames=4, max_stride=4, vanish=0.5, min_area=16)
    assert ((8 <= drawn[:, 0]) & (drawn[:, 0] < 16)).mean() > 0.95, "a third of the first frames have one"


def test_plans_follow_the_chances():
    rng = np.random.default_rng(0)
    plans = [draw_plan(rng, 8, (0.0, 0.25, 0.75)) for _ in range(300)]
    firsts = [plan.first for plan in plans]
    assert "mask" not in firsts and 180 < firsts.count("click") < 270
    assert {plan.second for plan in plans} == {None, *range(1, 8)}
    assert all(plan.clicks.get(plan.second, 0) > 0 for plan in plans if plan.second is not None)


# the forward pass


def test_the_bank_reads_prompted_then_recent_then_pointers(monkeypatch):
    model = small_model()
    codes, ages = [], []
    spatial, pointer = model.spatial_memory, model.pointer_memory
    monkeypatch.setattr(model, "spatial_memory", lambda m, code: codes.append(code) or spatial(m, code))
    monkeypatch.setattr(model, "pointer_memory", lambda p, t: ages.extend((t * 15).round().tolist()) or pointer(p, t))
    bank = Bank(model)
    entry = torch.zeros(1, 32, 2, 2), torch.zeros(1, 128)
    bank.prompted = [(0, *entry), (4, *entry)]
    bank.tracked = [(time, *entry) for time in range(20) if time not in (0, 4)]
    memory, position, num_pointer_tokens = bank.read(20)
    assert codes == [PROMPTED_CODE, PROMPTED_CODE, 5, 4, 3, 2, 1, 0]
    assert ages == [20, 16, *range(1, 16)]
    assert num_pointer_tokens == 17 * 4 and memory.shape == position.shape == (1, 8 * 4 + 17 * 4, 32)


def test_gradients_flow_from_a_late_frame_into_early_features():
    model = small_model().train()
    clips = squares(1)
    rgb, labels = augment.split(clips)
    targets = object_masks(labels, torch.tensor([[1, 2]]))
    features = encode_frames(model, rgb)
    early = features[1].stride16
    early.retain_grad()
    model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(4.0)  # all is there, so masks are remembered
    decodings, final = track_clip(model, features, targets, ClipPlan("click"))
    prompted, tracked = (decodings[i].decoded.masks for i in (0, 1))
    for masks in (prompted, tracked):
        masks.retain_grad()
    decodings[-1].decoded.masks.sum().backward()
    assert [one.index for one in decodings] == [0, 1, 2, 3] and len(final) == 4
    assert early.grad.abs().sum() > 0 and tracked.grad.abs().sum() > 0
    assert prompted.grad is None, "it was binarised"


@pytest.mark.parametrize("first", ["mask", "box", "click"])
def test_every_plan_runs_and_marks_what_was_prompted(first):
    model = small_model().train()
    rgb, labels = augment.split(squares(2))
    targets = object_masks(labels, torch.tensor([[1, 2], [2, 2]]))
    clicks = {} if first == "mask" else {0: 2, 2: 1}
    decodings, final = track_clip(model, encode_frames(model, rgb), targets, ClipPlan(first, clicks, second=2))
    expected = {"mask": [(1, False), (3, False)]}.get(
        first, [(0, True), (0, True), (0, True), (1, False), (2, False), (2, True), (3, False)]
    )
    assert [(one.index, one.prompted) for one in decodings] == expected
    assert all(f.low_res_logits.shape == (4, 1, SIDE // 4, SIDE // 4) for f in final)


def test_a_mask_prompt_is_its_own_answer():
    model = small_model().eval()
    rgb, labels = augment.split(squares(1))
    targets = object_masks(labels, torch.tensor([[1]]))
    _, final = track_clip(model, encode_frames(model, rgb), targets, ClipPlan("mask"))
    low = torch.nn.functional.avg_pool2d(targets[:, :1].float(), 4)
    assert ((final[0].low_res_logits > 0) == (low > 0.5))[(low == 0) | (low == 1)].all()


@pytest.mark.parametrize("first, length", [("click", 20), ("mask", 10)])
def test_training_remembers_as_the_tracker_does(monkeypatch, first, length):
    """Frame by frame the same answers, past the sixth memory and the fifteenth pointer."""
    model = SAM2(replace(find_config("nano"), image_size=64)).eval()
    torch.nn.init.normal_(model.maskmem_tpos_enc)  # so that a memory in the wrong slot shows,
    torch.nn.init.normal_(model.obj_ptr_tpos_proj.weight)  # and a pointer's wrong age
    model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(1.0)
    encode = model.encode_memory
    monkeypatch.setattr(
        model, "encode_memory", lambda *args: encode(*args).bfloat16().float()
    )  # as the tracker keeps it
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (length, 64, 64, 3), dtype=np.uint8)
    target = torch.zeros(1, length, 64, 64, dtype=torch.bool)
    target[:, :, 20:40, 10:50] = True
    monkeypatch.setattr(prompts, "click", lambda mask: (torch.tensor([[[30.0, 25.0]]]), torch.tensor([[1]])))
    images = normalise(torch.from_numpy(frames)[None].permute(0, 1, 4, 2, 3).float() / 255)
    with torch.no_grad():
        _, final = track_clip(model, encode_frames(model, images), target, ClipPlan(first))
    tracker = Tracker(model, fill_hole_area=0)
    asked = {"points_xy": [(30, 25)], "labels": [1]} if first == "click" else {"mask": target[0, 0].numpy()}
    for time, frame in enumerate(frames):
        (track,) = tracker.step(Frame(frame, time + 1), [Prompt("a", **asked)] if time == 0 else [])
        expected = final[time].low_res_logits[0, 0].numpy()
        assert np.abs(track.low_res_logits - expected).max() < 1e-5, time
