"""Metrics against hand-computed cases and against a slow second implementation of the published definitions."""

import numpy as np
import pytest

from sam2 import metrics
from sam2.errors import BadInput


def square(top: int, left: int, side: int, size_hw=(60, 80)) -> np.ndarray:
    mask = np.zeros(size_hw, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def slow_boundary(mask: np.ndarray) -> set[tuple[int, int]]:
    """Pixel by pixel: differs from its right, lower or lower right neighbour, inside the image."""
    height, width = mask.shape
    steps = ((0, 1), (1, 0), (1, 1))
    return {
        (y, x)
        for y in range(height)
        for x in range(width)
        for dy, dx in steps
        if y + dy < height and x + dx < width and mask[y, x] != mask[y + dy, x + dx]
    }


def slow_f(predicted: np.ndarray, true: np.ndarray, tolerance: float) -> float:
    """Every boundary pixel against every pixel of the other boundary."""
    radius = np.ceil(tolerance * np.sqrt(true.shape[0] ** 2 + true.shape[1] ** 2))
    found, wanted = slow_boundary(predicted), slow_boundary(true)

    def share(inner, outer):
        near = [any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in outer) for y, x in inner]
        return sum(near) / len(near)

    if not found or not wanted:
        return float(bool(found) == bool(wanted))
    precision, recall = share(found, wanted), share(wanted, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_region_similarity_by_hand():
    assert metrics.region_similarity(square(10, 10, 20), square(10, 15, 20)) == pytest.approx(300 / 500, abs=1e-12)
    assert metrics.region_similarity(square(0, 0, 10), square(30, 30, 10)) == 0.0
    assert metrics.region_similarity(square(5, 5, 9), square(5, 5, 9)) == 1.0


def test_boundary_by_hand():
    mask = np.zeros((5, 6), dtype=bool)
    mask[2:4, 2:5] = True
    expected = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [0, 1, 1, 1, 1, 0],
            [0, 1, 0, 0, 1, 0],
            [0, 1, 1, 1, 1, 0],
            [0, 0, 0, 0, 0, 0],
        ],
        dtype=bool,
    )
    np.testing.assert_array_equal(metrics.boundary(mask), expected)


def test_boundary_at_the_image_border():
    mask = np.zeros((3, 3), dtype=bool)
    mask[:, 2] = True
    mask[2, :] = True
    expected = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(metrics.boundary(mask), expected)
    assert not metrics.boundary(np.ones((3, 3), dtype=bool)).any()


def test_boundary_accuracy_by_hand():
    """Tolerance one pixel in 60 x 80: the perimeters of two squares four pixels apart touch where they cross."""
    true, predicted = square(20, 20, 10), square(20, 24, 10)
    # Each boundary is the rim of an 11 x 11 square: 40 pixels. Columns 19..29 and 23..33, rows 19..29. The upper and
    # lower rims share columns 23..29, and one more lies within a pixel: 8 each. On the upright sides of the other
    # nothing new is near but the pixels next to the shared rims (rows 20 and 28 of the side inside): 2.
    assert metrics.boundary_accuracy(predicted, true, tolerance=0.008) == pytest.approx(18 / 40, abs=1e-12)


@pytest.mark.parametrize("tolerance", [0.008, 0.02, 0.05])
def test_boundary_accuracy_equals_the_slow_reference(tolerance):
    rng = np.random.default_rng(5)
    for _ in range(12):
        height, width = rng.integers(20, 48, 2)
        pair = []
        for _ in range(2):
            y, x = rng.uniform(0, height), rng.uniform(0, width)
            a, b = rng.uniform(4, 16, 2)
            v, u = np.mgrid[:height, :width]
            pair.append(((v - y) / a) ** 2 + ((u - x) / b) ** 2 + 0.4 * rng.random((height, width)) < 1)
        assert metrics.boundary_accuracy(*pair, tolerance) == pytest.approx(slow_f(*pair, tolerance), abs=1e-6)


def test_tolerance_is_a_share_of_the_diagonal_rounded_up():
    true = square(40, 40, 40, (300, 400))  # diagonal 500: 4 pixels
    assert metrics.boundary_accuracy(square(40, 44, 40, (300, 400)), true) == 1.0
    assert metrics.boundary_accuracy(square(40, 45, 40, (300, 400)), true) < 1.0
    true = square(20, 20, 10)  # diagonal 100: 0.8, so 1 pixel
    assert metrics.boundary_accuracy(square(21, 20, 10), true) == 1.0
    assert metrics.boundary_accuracy(square(22, 20, 10), true) < 1.0


def test_empty_masks():
    nothing, something = np.zeros((60, 80), dtype=bool), square(10, 10, 20)
    for metric in (metrics.region_similarity, metrics.boundary_accuracy):
        assert metric(nothing, nothing) == 1.0
        assert metric(nothing, something) == 0.0
        assert metric(something, nothing) == 0.0


def test_masks_must_be_comparable():
    with pytest.raises(BadInput, match="expected the shape"):
        metrics.region_similarity(np.zeros((4, 5), bool), np.zeros((5, 4), bool))
    with pytest.raises(BadInput, match="expected bool, got float32"):
        metrics.boundary_accuracy(np.zeros((4, 5), np.float32), np.zeros((4, 5), bool))


def score(predicted: list[np.ndarray], true: list[np.ndarray]) -> metrics.Score | None:
    """Of one object, from its masks."""
    pairs = list(zip(predicted, true, strict=True))
    j, f = ([metric(*pair) for pair in pairs] for metric in (metrics.region_similarity, metrics.boundary_accuracy))
    return metrics.score_frames(j, f)


def test_first_and_last_frame_do_not_count():
    true = [square(10, 10, 20)] * 4
    wrong = np.zeros((60, 80), dtype=bool)
    assert score([wrong, true[1], true[2], wrong], true) == metrics.Score(1.0, 1.0)
    half = score([true[0], wrong, true[2], true[3]], true)
    assert half == metrics.Score(0.5, 0.5)
    assert half.j_and_f == 0.5
    assert score(true[:2], true[:2]) is None


@pytest.mark.parametrize(
    "there, j, is_late, expected",
    [
        ([1, 0, 0, 1, 1, 1], [1, 1, 1, 0.5, 0.25, 1], False, 3),  # away, and rightly not predicted: not counted
        ([1, 0, 0, 1, 1, 1], [1, 1, 0, 0.5, 0.25, 1], False, 2),  # from the wrong prediction on
        ([1, 1, 0, 0, 1, 1], [1, 0, 1, 1, 0.25, 1], False, 1),  # later absences count
        ([1, 0, 0, 1], [1, 1, 1, 0], True, 0),  # what was annotated before: also the frame of the prompt
        ([1, 0, 0], [1, 1, 1], False, 3),
    ],
)
def test_which_frames_sav_counts_first(there, j, is_late, expected):
    assert metrics.leading_frames_of_sav(j, [bool(t) for t in there], is_late) == expected


def test_where_sav_counts_nothing_there_is_no_score():
    assert metrics.score_frames([1.0] * 4, [1.0] * 4, leading=4) is None
    assert metrics.score_frames([1.0] * 4, [1.0] * 4, leading=3) is None, "the last does not count"
    assert metrics.score_frames([0.0, 1.0, 0.5, 0.0], [0.0, 0.5, 0.0, 1.0], leading=0) == metrics.Score(0.5, 0.5 / 3)


def test_shifted_empty_and_swapped_predictions():
    first, second = [square(5, 5, 20)] * 5, [square(30, 50, 20)] * 5
    nothing = [np.zeros((60, 80), dtype=bool)] * 5
    shifted = score([square(5, 10, 20)] * 5, first)
    assert shifted.j == pytest.approx(15 / 25, abs=1e-12)
    assert shifted.f == pytest.approx(slow_f(square(5, 10, 20), first[0], 0.008), abs=1e-6)
    assert score(nothing, first) == metrics.Score(0.0, 0.0)
    swapped = [score(second, first), score(first, second)]
    assert metrics.mean_score(swapped) == metrics.Score(0.0, 0.0)
    assert metrics.mean_score([score(first, first), swapped[0]]).j_and_f == 0.5


def test_mean_of_no_objects_is_not_a_number():
    assert np.isnan(metrics.mean_score([]).j_and_f)


@pytest.mark.parametrize(
    "visible, expected",
    [
        ("1000111", [4]),
        ("1001111", []),  # two frames: a flicker
        ("1" + "0" * 15 + "1", [16]),
        ("1" + "0" * 16 + "1", []),  # longer than counts
        ("0001111", []),  # never seen before
        ("1110000", []),  # never back
        ("10001100001", [4, 10]),
        ("0000", []),
    ],
)
def test_returns(visible, expected):
    assert metrics.returns(np.array([c == "1" for c in visible])) == expected


def test_reacquired_needs_the_right_object_in_time():
    overlap = [(0.0, 0.0)] * 8  # with its own true mask, with another's
    assert metrics.reacquired(overlap, back=3) is False
    overlap[5] = 0.5, 0.0
    assert metrics.reacquired(overlap, back=3) is True
    assert metrics.reacquired(overlap, back=2) is False, "frame 5 is the fourth one back"
    overlap[5] = 0.0, 0.5
    assert metrics.reacquired(overlap, back=3) is False, "a prediction on the other object"
    overlap[5] = 0.5, 0.5
    assert metrics.reacquired(overlap, back=3) is False, "as much on the other object"
    overlap[5] = 0.49, 0.1
    assert metrics.reacquired(overlap, back=3) is False


def test_reacquired_cannot_tell_at_the_end_of_a_video():
    overlap = [(0.0, 0.0)] * 8
    assert metrics.reacquired(overlap, back=6) is None
    overlap[7] = 0.9, 0.0
    assert metrics.reacquired(overlap, back=6) is True
