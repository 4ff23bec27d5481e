"""Run lengths in both orders: by hand, there and back, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sam2.errors import BadInput
from sam2.run_lengths import _compress, _decompress, coco_decode, coco_encode, rle_decode, rle_encode

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def test_run_lengths_of_a_hand_made_mask():
    mask = np.array([[0, 1, 1], [1, 0, 0]], bool)
    assert rle_encode(mask).tolist() == [1, 3, 2]
    assert rle_encode(~mask).tolist() == [0, 1, 3, 2]
    assert rle_encode(mask).dtype == np.uint32
    assert rle_encode(np.zeros((2, 3), bool)).tolist() == [6]
    assert rle_encode(np.zeros((0, 3), bool)).tolist() == []


@given(MASKS)
def test_run_lengths_round_trip(mask):
    counts = rle_encode(mask)
    assert counts.sum() == mask.size and (counts[1:] > 0).all()
    assert np.array_equal(rle_decode(counts, mask.shape), mask)
    assert np.array_equal(rle_decode(rle_encode(mask.T), mask.T.shape), mask.T)  # not contiguous


@pytest.mark.parametrize(
    "counts", [[5], [7], [], [3, -1, 4], [[6]], [2**63 - 1, 2**63 - 1, 8], [2**64 + 6], ["six"], [None, 6]]
)
def test_run_lengths_must_fill_the_mask(counts):
    with pytest.raises(BadInput, match="sum to 6"):
        rle_decode(counts, (2, 3))


def test_coco_of_a_hand_made_mask():
    """Columns first: 0 1 | 1 0 | 1 0 is runs 1 2 1 1 1; the last two are stored as differences -1 and 0."""
    mask = np.array([[0, 1, 1], [1, 0, 0]], bool)
    uncompressed = {"size": [2, 3], "counts": [1, 2, 1, 1, 1]}
    assert np.array_equal(coco_decode(uncompressed), mask)
    assert coco_encode(mask) == {"size": [2, 3], "counts": "121O0"}
    for counts in ("121O0", b"121O0"):
        assert np.array_equal(coco_decode({"size": [2, 3], "counts": counts}), mask)
    row_major = rle_encode(mask)
    assert not np.array_equal(coco_decode({"size": [2, 3], "counts": row_major}), mask)


def test_coco_numbers_of_several_characters():
    """100 = 4 + 3 * 32: low group 4 with "more follow" is chr(48 + 4 + 32), high group 3 is chr(48 + 3)."""
    mask = np.zeros((10, 20), bool)
    mask[:, 10:] = True
    assert coco_encode(mask)["counts"] == "T3T3"
    assert np.array_equal(coco_decode({"size": [10, 20], "counts": "T3T3"}), mask)


@given(MASKS)
def test_coco_round_trip(mask):
    rle = coco_encode(mask)
    back = coco_decode(rle)
    assert np.array_equal(back, mask) and back.flags.c_contiguous
    counts = rle_encode(mask.T).tolist()
    assert np.array_equal(coco_decode({"size": rle["size"], "counts": counts}), mask)


@given(st.lists(st.integers(1, 2**31), min_size=1, max_size=40))
def test_coco_text_holds_any_runs(runs):
    text = _compress(np.array(runs, dtype=np.int64))
    assert _decompress(text.encode()).tolist() == runs
    assert all(48 <= ord(character) < 48 + 64 for character in text)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [2, 3]}, "keys 'size' and 'counts'"),
        ({"size": [2, 3], "counts": "12"}, "sum to 6"),
        ({"size": [2, 3], "counts": ""}, "sum to 6"),
        ({"size": [2, 3], "counts": "12 "}, "characters '0' to 'o'"),
        ({"size": [2, 3], "counts": "6p"}, "characters '0' to 'o'"),
        ({"size": [2, 3], "counts": "12T"}, "complete last number"),
        ({"size": [2, 3], "counts": "T" * 9 + "1"}, "at most 40 bits"),
        ({"size": [2, 3], "counts": [6, 1]}, "sum to 6"),
        ({"size": [2, 3], "counts": [2**63 - 1, 2**63 - 1, 8]}, "sum to 6"),  # 6 where it wraps around
    ],
)
def test_coco_refuses(rle, message):
    with pytest.raises(BadInput, match=message):
        coco_decode(rle)


NO_SIZES = [
    (10**6, 10**6),
    (1,),
    (1, 5, 1),
    (-1, -5),
    (1.5, 4),
    ("1", "5"),
    (np.nan, 5),
    (np.inf, 5),
    (None, 5),
    5,
    None,
    (),
]


@pytest.mark.parametrize("size", NO_SIZES)
def test_what_is_no_size_is_refused(size):
    for decode in (lambda: rle_decode([0, 5], size), lambda: coco_decode({"size": size, "counts": [0, 5]})):
        with pytest.raises(BadInput, match="size of a mask: expected height and width of at most .* pixels, got"):
            decode()


@pytest.mark.parametrize("size", [(1, 5), [1, 5], np.array([1, 5]), np.array([1, 5], np.uint8), (1.0, 5.0)])
def test_a_size_may_be_of_any_kind_of_whole_numbers(size):
    for mask in (rle_decode([0, 5], size), coco_decode({"size": size, "counts": [0, 5]})):
        assert mask.shape == (1, 5) and mask.all()


def test_an_empty_mask_has_no_runs():
    assert rle_decode([], (0, 7)).shape == coco_decode({"size": [0, 7], "counts": []}).shape == (0, 7)
