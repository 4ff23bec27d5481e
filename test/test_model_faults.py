"""Faults in how objects are named, with the real layers: whose memory is touched, and whose is not."""

from dataclasses import replace

import pytest
from small_stream import assert_same, click, disc, largest_difference, run, small_model

import sam2


def only(streams, name):
    return [[track for track in tracks if track.object_id == name] for tracks in streams]


def streams(*prompts):
    """Frames 0 to 8 with a and b from the start, and `prompts` on frame 4."""
    return run(sam2.Tracker(small_model()), range(9), {0: [click("a"), disc("b", 50, 30)], 4: list(prompts)})


def test_prompting_an_object_again_touches_no_other():
    again, before = streams(click("a", 60, 40, 0)), streams()
    assert_same(only(again, "b"), only(before, "b"))
    assert largest_difference(only(again, "a")[4:], only(before, "a")[4:]) > 1e-3


def reused():
    """(an object under an id that was used before, the same object under an id of its own)"""

    def stream(name):
        tracker = sam2.Tracker(small_model())
        run(tracker, range(4), {0: [click(name)]})
        tracker.remove(name)
        return run(tracker, range(4, 9), {4: [disc("a", 50, 30)]})

    return stream("a"), stream("somebody else")


def test_an_id_that_is_used_again_remembers_nothing():
    again, fresh = reused()
    assert_same(again, fresh)
    assert [tracks[0].frames_since_seen for tracks in again] == [0] * 5


def test_one_field_of_one_track_is_seen():
    """What the tests above rely on."""
    again, fresh = reused()
    again[2][0] = replace(again[2][0], frames_since_seen=1)
    with pytest.raises(AssertionError):
        assert_same(again, fresh)
