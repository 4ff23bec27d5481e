"""Small holes: both ways of finding them against a flood fill, against each other at full size, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sam2.errors import BadInput
from sam2.small_holes import _small_regions_opencv, _small_regions_torch, fill_small_holes


def components(region: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected components by flood fill: slow and obvious."""
    left, found = {tuple(yx) for yx in np.argwhere(region)}, []
    while left:
        component, front = set(), [left.pop()]
        while front:
            y, x = front.pop()
            component.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front += near
        found.append(component)
    return found


def holes_of(region: np.ndarray, max_area: int) -> np.ndarray:
    out = np.zeros_like(region)
    for component in components(region):
        if len(component) <= max_area:
            out[tuple(np.array(sorted(component)).T)] = True
    return out


@settings(max_examples=60)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)), st.integers(1, 9))
def test_both_ways_find_the_obvious_components(region, max_area):
    expected = holes_of(region, max_area)
    tensor = torch.from_numpy(region)[None, None]
    assert np.array_equal(_small_regions_opencv(tensor, max_area)[0, 0].numpy(), expected)
    assert np.array_equal(_small_regions_torch(tensor, max_area)[0, 0].numpy(), expected)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 0.98])
def test_both_ways_agree_at_full_size(density):
    generator = torch.Generator().manual_seed(int(density * 100))
    region = torch.rand(3, 1, 256, 256, generator=generator) < density
    by_opencv = _small_regions_opencv(region, 8)
    assert torch.equal(by_opencv, _small_regions_torch(region, 8))
    if 0.02 < density < 0.5:
        assert not torch.equal(by_opencv, _small_regions_torch(region, 7))


def test_long_thin_regions():
    """A line of 8 closes, a line of 9 does not, straight, diagonal and bent; so does a hook of 8 around a corner."""
    for step in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for length in (8, 9):
            region = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
            for i in range(length):
                region[0, 0, 12 + i * step[0], 16 + i * step[1]] = True
            expected = region if length == 8 else torch.zeros_like(region)
            assert torch.equal(_small_regions_opencv(region, 8), expected)
            assert torch.equal(_small_regions_torch(region, 8), expected)


def test_a_wide_region_with_thin_arms_is_not_small_anywhere():
    """Each pixel of a large region sees only part of it in 8 steps; no part may pass for a small region."""
    region = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    region[0, 0, 5, 2:60] = True
    region[0, 0, 2:60:3, 5] = True  # arms of single pixels, some apart, some touching the line
    region[0, 0, 5:60, 30] = True
    assert torch.equal(_small_regions_opencv(region, 8), _small_regions_torch(region, 8))
    assert not _small_regions_torch(region, 8)[0, 0, 5, 2:60].any()


def test_filling_changes_small_holes_and_nothing_else():
    logits = torch.full((2, 1, 16, 16), 3.0)
    logits[0, 0, 4:6, 4:8] = -2.0  # 8 pixels
    logits[0, 0, 10:13, 10:13] = -2.0  # 9 pixels
    logits[0, 0, 0, 0] = 0.0  # zero is not inside; the border counts too
    logits[1, 0, 8, 8] = torch.nan
    before = logits.clone()
    filled = fill_small_holes(logits)
    assert torch.equal(logits.nan_to_num(9), before.nan_to_num(9)), "the input was written to"
    assert (filled[0, 0, 4:6, 4:8] == torch.tensor(0.1)).all() and filled[0, 0, 0, 0] == torch.tensor(0.1)
    assert (filled[0, 0, 10:13, 10:13] == -2).all()
    assert filled[1, 0, 8, 8].isnan() and (filled != before).sum() == 9 + 1  # a NaN differs from itself
    assert torch.equal(fill_small_holes(logits[:1], max_area=9)[0, 0, 10:13, 10:13], torch.full((3, 3), 0.1))
    assert torch.equal(fill_small_holes(logits[:1], max_area=0), logits[:1])
    assert (fill_small_holes(logits[:1], max_area=1) != logits[:1]).nonzero().tolist() == [[0, 0, 0, 0]]


def test_diagonal_neighbours_belong_together():
    """Nine pixels that touch only at corners: one region of 9 with 8 neighbours, nine of 1 with 4."""
    logits = torch.ones(1, 1, 12, 12)
    logits[0, 0, range(1, 10), range(1, 10)] = -1.0
    assert torch.equal(fill_small_holes(logits), logits)
    assert not torch.equal(fill_small_holes(logits, max_area=9), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_filling_keeps_type_and_takes_empty_batches(dtype):
    assert fill_small_holes(torch.zeros(0, 1, 8, 8, dtype=dtype)).shape == (0, 1, 8, 8)
    assert fill_small_holes(torch.ones(1, 1, 8, 8, dtype=dtype)).dtype == dtype
    with pytest.raises(BadInput, match=r"logits: expected \(N, 1, h, w\), got \(8, 8\)"):
        fill_small_holes(torch.zeros(8, 8, dtype=dtype))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_filling_on_a_gpu_is_the_same_and_does_not_wait_for_it():
    logits = torch.randn(4, 1, 256, 256, generator=torch.Generator().manual_seed(0)).cuda()
    try:
        torch.cuda.set_sync_debug_mode("error")
        filled = fill_small_holes(logits)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(filled.cpu(), fill_small_holes(logits.cpu()))
