"""What a detector's messages say, whether or not vision_msgs is installed: no number in them does harm."""

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from test_hand_off import seen, track

from sam2_ros.hand_off import Association, Rules
from sam2_ros.vision import read_detections


def score_of(*scores: float) -> float:
    """As it is read from a detection with these hypotheses."""
    results = [SimpleNamespace(hypothesis=SimpleNamespace(class_id="cup", score=score)) for score in scores]
    centre = SimpleNamespace(position=SimpleNamespace(x=5.0, y=5.0), theta=0.0)
    box = SimpleNamespace(center=centre, size_x=4.0, size_y=4.0)
    ((_, _, score),) = read_detections(SimpleNamespace(detections=[SimpleNamespace(results=results, bbox=box)]))
    return score


@pytest.mark.parametrize("scores", [(0.3, 0.9, math.nan), (math.nan, 0.9, 0.3), (0.3, math.nan, 0.9)])
def test_the_best_hypothesis_counts_wherever_one_without_a_score_is(scores):
    assert score_of(*scores) == 0.9


def test_hypotheses_of_which_none_has_a_score_give_none():
    assert math.isnan(score_of(math.nan, math.nan)) and score_of() == 1.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [50, 1e10, 1e19, 3e38])
def test_a_box_around_a_tracked_object_is_no_new_one_however_large_it_is(size):
    """Beyond 2**63 pixels no integer is as large."""
    decided = Association(Rules(confirm=1)).step([seen(-size, -size, size, size)], [track("a", (10, 10, 12, 12))], 0)
    assert (decided.new, decided.ignored) == ([], {"tracked": 1})
