"""What a detector's messages say, whether or not vision_msgs is installed: no number in them does harm."""

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from test_hand_off import seen, track

from sam2_ros.hand_off import Association, Detection
from sam2_ros.params import Settings
from sam2_ros.vision import read_detections


def read(*scores: float, x: float = 5.0, theta: float = 0.0, size: float = 4.0) -> Detection:
    """As it is read from a detection with hypotheses of these scores."""
    results = [SimpleNamespace(hypothesis=SimpleNamespace(class_id="cup", score=score)) for score in scores]
    centre = SimpleNamespace(position=SimpleNamespace(x=x, y=5.0), theta=theta)
    box = SimpleNamespace(center=centre, size_x=size, size_y=size)
    (values,) = read_detections(SimpleNamespace(detections=[SimpleNamespace(results=results, bbox=box)]))
    return Detection(*values)


@pytest.mark.parametrize("scores", [(0.3, 0.9, math.nan), (math.nan, 0.9, 0.3), (0.3, math.nan, 0.9)])
def test_the_best_hypothesis_counts_wherever_one_without_a_score_is(scores):
    assert read(*scores).score == 0.9


def test_hypotheses_of_which_none_has_a_score_give_none():
    assert math.isnan(read(math.nan, math.nan).score) and read().score == 1.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e308, -1e308])
@pytest.mark.parametrize("name", ["x", "theta", "size"])
def test_a_box_of_numbers_that_are_none_is_ignored_without_a_word(name, number):
    """Python would write a warning to the node's error output; 1e308 radians are an angle like any other."""
    for turned in ({}, {"theta": 0.5}):
        detection = read(0.9, **turned | {name: number})
        decided = Association(Settings(detector_confirm=1)).step([detection], [], 0)
        assert bool(decided.new) == (name == "theta" and abs(number) == 1e308)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [50, 1e10, 1e19, 3e38])
def test_a_box_around_a_tracked_object_is_no_new_one_however_large_it_is(size):
    """Beyond 2**63 pixels no integer is as large."""
    association = Association(Settings(detector_confirm=1))
    decided = association.step([seen(-size, -size, size, size)], [track("a", (10, 10, 12, 12))], 0)
    assert (decided.new, decided.ignored) == ([], {"tracked": 1})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e10, 1e20, 3e38])
def test_a_box_however_large_is_compared_with_where_a_hidden_object_was_without_a_word(size):
    association = Association(Settings(detector_confirm=1))
    association.step([], [track("a", (10, 10, 12, 12))], 0)
    decided = association.step([seen(0, 0, size, size)], [track("a", (10, 10, 12, 12), visible=False)], 1)
    assert [name for name, _ in decided.refresh] == ["a"], "both are less than its size apart"
