"""From logits to masks: against torch, against slow and obvious versions, and by hand."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sam2 import masks
from sam2.errors import BadInput

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


@dataclass(frozen=True)
class FakeTrack:
    """What `label_mask` looks at."""

    label: int
    low_res_logits: np.ndarray
    size_hw: tuple[int, int]
    object_id: str = "cup"

    @property
    def mask(self) -> np.ndarray:
        return masks.upsample_logits(self.low_res_logits, self.size_hw) > 0

    @property
    def box_xywh(self):
        return masks.bounding_box(self.mask)


def smooth_logits(seed: int, side: int = 64, bias: float = -1.0) -> np.ndarray:
    noise = np.random.RandomState(seed).standard_normal((side, side)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), side / 12) * side / 2 + bias


# Upsampling and boxes


@pytest.mark.parametrize(
    ("low_hw", "size_hw"),
    [
        ((256, 256), (720, 1280)),
        ((256, 256), (480, 640)),
        ((64, 64), (481, 641)),
        ((64, 64), (33, 17)),
        ((256, 256), (128, 128)),
        ((16, 24), (1, 1)),
        ((1, 1), (5, 7)),
    ],
)
def test_upsampling_is_that_of_torch(low_hw, size_hw):
    low_res = np.random.RandomState(0).standard_normal(low_hw).astype(np.float32) * 10
    ours = masks.upsample_logits(low_res, size_hw)
    tensor = torch.from_numpy(low_res)[None, None].double()
    exact = F.interpolate(tensor, size_hw, mode="bilinear", align_corners=False)[0, 0].numpy()
    assert ours.dtype == np.float32 and ours.shape == size_hw
    theirs = F.interpolate(tensor.float(), size_hw, mode="bilinear", align_corners=False)[0, 0].numpy()
    # Of these, 5e-6 with OpenCV's own builds, 5e-4 with Debian's; torch's 9e-4 at most. It is closer in each.
    assert np.abs(ours - exact).max() <= max(np.abs(theirs - exact).max(), 1e-5)
    if low_hw != (1, 1):
        corners = F.interpolate(tensor, size_hw, mode="bilinear", align_corners=True)[0, 0].numpy()
        assert np.abs(ours - corners).max() > 0.1
    if size_hw < low_hw:
        antialiased = F.interpolate(tensor, size_hw, mode="bilinear", antialias=True)[0, 0].numpy()
        assert np.abs(ours - antialiased).max() > 0.1


@pytest.mark.parametrize(("shape", "size_hw"), [((1, 4, 4), (8, 8)), ((0, 4), (8, 8)), ((4, 4), (0, 8))])
def test_upsampling_refuses(shape, size_hw):
    with pytest.raises(BadInput, match=r"low_res: expected \(h, w\)"):
        masks.upsample_logits(np.zeros(shape, np.float32), size_hw)


@given(MASKS)
def test_bounding_box_is_tight(mask):
    box = masks.bounding_box(mask)
    if not mask.any():
        assert box is None
        return
    x, y, width, height = box
    rows, columns = np.nonzero(mask)  # of every pixel
    assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_bounding_box_of_odd_arrays():
    assert masks.bounding_box(np.zeros((0, 5), bool)) is None
    mask = np.zeros((6, 8), bool)
    mask[1:3, 4:7] = True
    assert masks.bounding_box(mask) == (4, 1, 3, 2)
    assert masks.bounding_box(mask.T) == (1, 4, 2, 3)  # not contiguous
    assert masks.bounding_box(mask.astype(np.uint8) * 255) == (4, 1, 3, 2)


# Instance labels


def brute_labels(tracks, size_hw) -> np.ndarray:
    logits = np.stack([masks.upsample_logits(t.low_res_logits, size_hw) for t in tracks])
    winner = np.array([t.label for t in tracks], np.uint8)[logits.argmax(axis=0)]
    return np.where(logits.max(axis=0) > 0, winner, 0)


@pytest.mark.parametrize("size_hw", [(480, 640), (720, 1280), (97, 211), (40, 30)])
def test_labels_are_those_of_the_largest_logit(size_hw):
    tracks = [FakeTrack(label, smooth_logits(label), size_hw) for label in (3, 7, 254)]
    labels = masks.label_mask(tracks, size_hw)
    assert labels.dtype == np.uint8 and labels.flags.c_contiguous and labels.shape == size_hw
    expected = brute_labels(tracks, size_hw)
    assert np.mean(labels != expected) < 1e-5  # the last bit of a logit may decide a tie the other way
    assert np.array_equal(labels > 0, np.any([t.mask for t in tracks], axis=0))
    overlap = np.sum([t.mask for t in tracks], axis=0) > 1
    painted_in_order = np.zeros(size_hw, np.uint8)
    for track in tracks:
        painted_in_order[track.mask] = track.label
    assert np.mean((painted_in_order != expected)[overlap]) > 0.1  # the overlaps do decide this test


def block(label: int, x: int, y: int, width: int, height: int, logit: float) -> FakeTrack:
    """Cells of a 64 x 64 grid, four pixels each way."""
    low_res = np.full((64, 64), -1.0, np.float32)
    low_res[y : y + height, x : x + width] = logit
    return FakeTrack(label, low_res, (256, 256))


@pytest.mark.parametrize("place", [(0, 44, 12, 6), (14, 44, 12, 6), (8, 28, 8, 20), (8, 54, 8, 6), (11, 43, 4, 4)])
def test_two_that_overlap_do_so_whatever_a_third_does(place):
    """Left, right, above, below and inside; the third is apart from both. All of it mirrored, too."""
    tracks = [block(1, 8, 40, 12, 20, logit=9.0), block(2, *place, logit=2.0), block(3, 50, 2, 6, 6, logit=5.0)]
    mirrored = [replace(track, low_res_logits=track.low_res_logits.T) for track in tracks]
    for shown in (tracks, tracks[::-1], mirrored, mirrored[::-1]):
        assert np.array_equal(masks.label_mask(shown, (256, 256)), brute_labels(shown, (256, 256)))


def test_a_lone_object_is_exactly_its_mask():
    for seed in range(20):
        track = FakeTrack(1, smooth_logits(seed), (271, 483))
        assert np.array_equal(masks.label_mask([track], (271, 483)), track.mask.astype(np.uint8))


def test_the_mask_decides_where_an_object_is():
    """Not the sign of the logits resized once more for the window: their last bit may differ."""

    @dataclass(frozen=True)
    class Corner(FakeTrack):
        @property
        def mask(self) -> np.ndarray:
            return np.pad(np.ones((2, 3), bool), ((0, 58), (0, 77)))

    for logit in (-1.0, 1.0):
        track = Corner(5, np.full((64, 64), logit, np.float32), (60, 80))
        assert np.array_equal(masks.label_mask([track], (60, 80)), track.mask * np.uint8(5))


def test_ties_and_nothing():
    same = [FakeTrack(label, smooth_logits(0), (60, 80)) for label in (9, 2)]
    assert set(np.unique(masks.label_mask(same, (60, 80)))) == {0, 9}
    assert not masks.label_mask([], (60, 80)).any()
    absent = FakeTrack(1, np.full((64, 64), -1024, np.float32), (60, 80))
    assert not masks.label_mask([absent], (60, 80)).any()


def test_labels_refuse_another_image_size():
    track = FakeTrack(1, smooth_logits(0), (60, 80), object_id="bowl")
    with pytest.raises(BadInput, match=r"track 'bowl': expected image size \(60, 81\), got \(60, 80\)"):
        masks.label_mask([track], (60, 81))


@settings(max_examples=300)
@given(st.integers(1, 400), st.integers(1, 64), st.data())
def test_a_window_is_cut_from_the_whole(size, low_size, data):
    """Wherever the box, resizing only the cells under it gives the whole image's pixels."""
    start = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - start))
    low_res = np.random.RandomState(size).standard_normal((low_size, low_size)).astype(np.float32)
    box = (start, start, length, length)
    whole = masks.upsample_logits(low_res, (size, size))[start : start + length, start : start + length]
    assert np.abs(masks._upsample_window(low_res, (size, size), box) - whole).max() < 1e-4
