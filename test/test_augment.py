"""Augmentation: what moves moves with its labels, colours change per clip, mosaics and interruptions teach no lie."""

import pytest
import torch
from small_training import SIDE, squares

from sam2.training import augment


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


def test_strength_zero_changes_nothing():
    clips = squares()
    rgb, labels = augment.augment(clips, 0.0)
    assert torch.equal((rgb * 255).round().byte(), clips[..., :3].permute(0, 1, 4, 2, 3))
    assert torch.equal(labels, clips[..., 3])


def test_affine_moves_pixels_and_labels_together():
    rgb, labels = augment.split(squares(16))
    moved, moved_labels = augment.affine(rgb, labels, 1.0)
    assert not torch.equal(moved_labels, labels)
    red = (moved[:, :, 0] > 0.6) & (moved[:, :, 1] < 0.3)
    agreement = (red & (moved_labels == 1)).sum() / (red | (moved_labels == 1)).sum()
    assert agreement > 0.85, "up to interpolated edges"


def test_mosaic_leaves_one_quarter_labelled():
    rgb, labels = augment.split(squares(4))
    tiled, tiled_labels = augment.mosaic(rgb, labels, 1.0)
    half = SIDE // 2
    quarters = [tiled_labels[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    labelled = torch.stack([quarter.flatten(1).any(1) for quarter in quarters], 1)
    assert (labelled.sum(1) == 1).all()
    assert ((tiled[:, 0, 0] > 0.6).sum((1, 2)) > (rgb[:, 0, 0] > 0.6).sum((1, 2)) * 0.8).all(), (
        "four quarter-size twins"
    )


def test_an_interruption_shows_another_clip_without_labels_but_never_first():
    clips = squares(32)
    cut = augment.interrupt(clips, 1.0)
    assert torch.equal(cut[:, 0], clips[:, 0])
    changed = (cut != clips).flatten(2).any(2)
    assert changed.any(1).all() and not cut[..., 3][changed].any()


def test_a_clip_alone_or_of_few_videos_is_never_interrupted(monkeypatch):
    """There is no other scene, and what can be seen must not be taught as away."""
    interrupted = []
    monkeypatch.setattr(augment, "interrupt", lambda clips, _: interrupted.append(len(clips)) or clips)
    for count in (1, 2):
        augment.augment(squares(count), 1.0)
    augment.augment(squares(3), 1.0, is_varied=False)
    assert interrupted == [2]


def test_jitter_changes_colours_per_clip():
    rgb, _ = augment.split(squares(4))
    changed = augment.jitter(rgb, 1.0)
    assert changed.min() >= 0 and changed.max() <= 1
    assert (changed - rgb).abs().mean((1, 2, 3, 4)).min() > 0.005


def test_clips_in_gray_are_gray_and_the_others_are_not(monkeypatch):
    rgb, _ = augment.split(squares(4))
    is_gray = torch.tensor([True, False, True, False])
    monkeypatch.setattr(augment, "_chance", lambda *_: is_gray)
    spread = augment.jitter(rgb, 1.0)
    spread = spread.amax(2) - spread.amin(2)  # of R, G and B
    assert not spread[is_gray].any() and (spread[~is_gray].amax((1, 2, 3)) > 0.3).all()


@pytest.mark.parametrize("start", [4, 5])
def test_labels_of_a_mosaic_lie_on_their_objects(start):
    """Objects of an odd side lose nothing when every second pixel is taken."""
    labels = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
    labels[..., start : start + 9, start : start + 7] = 1
    rgb = labels[:, :, None].expand(-1, -1, 3, -1, -1).float()
    tiled, tiled_labels = augment.mosaic(rgb, labels, 1.0)
    half = SIDE // 2
    top = 0 if tiled_labels[..., :half, :].any() else half
    quarter = (..., slice(top, top + half), slice(top, top + half))
    places = torch.stack(torch.meshgrid(torch.arange(half), torch.arange(half), indexing="ij"))
    image, mask = (
        (places * shown).sum((1, 2)) / shown.sum() for shown in (tiled[quarter][0, 0, 0], tiled_labels[quarter][0, 0])
    )
    assert (image - mask).abs().max() < 0.02
    assert torch.equal(augment.mosaic(torch.ones_like(rgb), labels, 1.0)[0], torch.ones_like(rgb)), "no brightness lost"


def test_without_strength_shapes_are_only_mirrored_and_colours_kept(monkeypatch):
    rgb, labels = augment.split(squares(8))
    moved, moved_labels = augment.affine(rgb, labels, 0.0)
    mirrored = [torch.equal(moved_labels[i], labels[i].flip(-1)) for i in range(8)]
    assert {*mirrored} == {True, False}
    for i, is_mirrored in enumerate(mirrored):
        assert torch.equal(moved_labels[i], labels[i].flip(-1) if is_mirrored else labels[i])
        assert torch.allclose(moved[i], rgb[i].flip(-1) if is_mirrored else rgb[i], atol=1e-4)
    monkeypatch.setattr(augment, "_chance", lambda count, *_: torch.zeros(count, dtype=torch.bool))  # none in gray
    assert torch.allclose(augment.jitter(rgb, 0.0), rgb, atol=1e-6)


def test_chances_are_scaled_by_the_strength(monkeypatch):
    asked = []
    chance = augment._chance
    monkeypatch.setattr(
        augment, "_chance", lambda count, p, device: asked.append(round(p, 3)) or chance(count, p, device)
    )
    augment.augment(squares(2), 0.5)
    assert asked == [0.04, 0.15, 0.5, 0.04, 0.5, 0.05], "interrupted, small, mirrored, mosaic, its tile, gray"


def test_all_frames_of_a_clip_are_changed_alike():
    """But for a little flicker: what does not move stays where it is and keeps its colour."""
    still = squares(4)[:, :1].expand(-1, 3, -1, -1, -1).contiguous()
    rgb, labels = augment.split(still)
    moved, moved_labels = augment.affine(rgb, labels, 1.0)
    assert torch.equal(moved, moved[:, :1].expand_as(moved)) and torch.equal(moved_labels[:, 0], moved_labels[:, 2])
    changed = augment.jitter(0.4 + 0.2 * rgb, 0.5)  # nothing is cut off at black or white
    steps = (changed[:, 1:] - changed[:, :1]).flatten(2)
    assert (steps.amax(2) - steps.amin(2)).max() < 1e-5 and 0 < steps.abs().max() <= 0.031


def test_what_interrupts_a_clip_is_the_other_clip_s_same_frames():
    clips = torch.cat([squares(24)] * 2, 1)  # of eight frames
    cut = augment.interrupt(clips, 1.0)
    gone = (cut != clips).flatten(2).any(2)
    for clip, time in gone.nonzero().tolist():
        assert torch.equal(cut[clip, time, ..., :3], clips[clip - 1, time, ..., :3])
    assert set(gone.sum(1).tolist()) == {1, 2, 3}, "less than half of them"
    assert torch.equal(augment.interrupt(clips, 0.0), clips)
