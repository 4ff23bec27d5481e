"""What buys speed with accuracy: off unless asked for, refused where impossible, and really another network."""

import numpy as np
import pytest

from sam2 import BadInput, Frame, Prompt, Tracker, load_model
from sam2.checkpoint import resized
from sam2.config import find_config


@pytest.mark.parametrize(
    "name, value",
    [
        *(("image_size", size) for size in (100, 32, 2080, 4096, 256.0, -64, 0)),
        *(("memory_pooling", pooling) for pooling in (0, 3)),
    ],
)
def test_an_impossible_one_is_refused(name, value):
    with pytest.raises(BadInput, match=f"{name}: expected .*{value}"):
        load_model("nano", device="cpu", **{name: value})


@pytest.mark.parametrize("size", [64, 96, 2048])
def test_the_smallest_and_the_largest_size_can_be(size):
    assert resized(find_config("nano"), size).image_size == size


def estimates(**options) -> list[float]:
    """The network's estimates for one object in two frames, the second of which needs memory."""
    tracker, rng = Tracker(load_model("nano", device="cpu", **options)), np.random.default_rng(0)
    prompts, got = [Prompt("a", box_xyxy=np.array([10, 10, 40, 40], np.float32))], []
    for index in range(2):
        frame = Frame(rng.integers(0, 255, (60, 80, 3), np.uint8), stamp_ns=index + 1)
        got += [track.predicted_iou for track in tracker.step(frame, prompts if index == 0 else [])]
    return got


def test_image_size_changes_every_frame():
    exact, smaller = estimates(), estimates(image_size=128)
    assert np.isfinite(smaller).all() and smaller[0] != exact[0] and smaller[1] != exact[1]
    assert estimates(image_size=256) == exact, "that is nano's own size"


def test_memory_pooling_changes_what_needs_memory():
    exact, pooled = estimates(), estimates(memory_pooling=2)
    assert np.isfinite(pooled).all() and pooled[0] == exact[0] and pooled[1] != exact[1]


def test_both_at_once_on_a_size_that_no_window_divides():
    assert np.isfinite(estimates(image_size=352, memory_pooling=2)).all()
