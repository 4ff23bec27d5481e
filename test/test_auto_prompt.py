"""What a detector's messages come to where one goes wrong: two boxes of one thing, a new stream, a full queue."""

import pytest

pytest.importorskip("rclpy")

from test_hand_off import seen, track
from test_hand_off_limits import BOX, Desk

import sam2
from sam2_ros.auto_prompt import WAITING


@pytest.mark.parametrize("labels", [(1, 2), (2, 1)])
def test_of_two_boxes_that_come_to_one_thing_one_stays(labels):
    """Each is the other's twin: were both to go, the thing would never be tracked. Of an old and a new one, the old."""
    desk = Desk(detector_refresh_below=0.9)
    desk.results(10, tracks=[track("old", (10, 10, 30, 20))])
    desk.auto.post(10, [seen(*BOX), seen(40, 10, 50, 20)])
    new, refreshed = desk.made()
    new.prompts[0] = sam2.Prompt("new", box_xyxy=BOX)
    tracks = [track(name, BOX, label) for name, label in zip(("old", "new"), labels, strict=True)]
    tracks.sort(key=lambda made: made.label)
    assert desk.auto.twins([new, refreshed], tracks) == {"new": "old"}


def test_what_was_seen_before_a_new_stream_confirms_nothing_in_it():
    desk = Desk(detector_confirm=2)
    for posted in (10, 5):
        desk.results(posted)
        desk.auto.post(posted, [seen(*BOX)])
        assert desk.made() == [], "seen once in its stream"
        desk.auto.forget()
    assert desk.counters.detections == {"not confirmed yet": 2}


def test_what_a_full_queue_loses_is_counted_in_boxes_as_everything_else_is():
    desk = Desk()
    for number in range(WAITING + 1):
        desk.auto.post(number, [seen(*BOX)] * (3 if number == 0 else 1))
    assert desk.counters.detections == {"dropped for a newer message": 3}
