"""Failures of one camera's pipeline, in the network and on the way there, and what they cost."""

from types import SimpleNamespace

import pytest
from bench import point
from fakes import FakeTracker
from test_pipeline_inside import Line, restored

from sam2_ros import pipeline as pipeline_module
from sam2_ros.mailbox import Arrival
from sam2_ros.requests import Add, Code, Restore


@pytest.mark.parametrize("most", [1, 2])
def test_objects_are_dropped_with_as_many_failures_in_a_row_as_are_set(most):
    line = Line(FakeTracker(raise_on={"step": [None, *[RuntimeError("odd")] * most]}), max_failures=most)
    line.add(point("a"))
    line.step(1)
    for stamp in range(most):
        assert line.pipeline.tracker.object_ids == ["a"]
        line.image(2 + stamp)
        line.turn()
    assert line.pipeline.tracker.object_ids == [] and line.counters.resets == {"failure": 1}
    assert line.counters.failures_in_a_row == most and len(line.results) == 1


def test_failures_with_a_good_image_between_them_are_not_in_a_row():
    line = Line(FakeTracker(raise_on={"step": [None, *[RuntimeError("odd"), None] * 3]}), max_failures=2)
    line.add(point("a"))
    for stamp in range(1, 8):
        line.image(stamp)
        line.turn()
    assert line.pipeline.tracker.object_ids == ["a"] and not line.counters.resets


def test_images_that_fail_on_the_way_to_the_network_drop_no_objects(monkeypatch):
    """Nor do they bring what a failure in the network drops any nearer: the tracker has not even seen them."""
    line = Line(FakeTracker(raise_on={"step": [None, RuntimeError("odd")]}), max_failures=2)
    line.add(point("a"))
    line.step(1)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline_module.image_in, "to_rgb", lambda message: 1 / 0)
        for stamp in (2, 3, 4):
            line.image(stamp)
            line.turn()
    line.image(5)
    line.turn()
    assert line.counters.failures_in_a_row == 4 and line.step(6) == ["a"] and not line.counters.resets


def test_where_no_image_can_be_decoded_those_that_were_dropped_meanwhile_were_no_better():
    """As of a camera whose damaged images come faster than its turns among others."""
    line = Line()
    cut = SimpleNamespace(format="jpeg", data=b"\xff\xd8garbage\xff\xd9", header="cut")
    for stamp in (1, 2, 3):
        line.mailbox.post_image(Arrival(cut, stamp, 0))
        line.turn()
        line.counters.drop_image()
    assert line.counters.refused_in_a_row == 3
    line.step(4)
    line.counters.refuse_image("stale", "late")
    line.counters.drop_image()
    assert line.counters.refused_in_a_row == 0


@pytest.mark.parametrize(("closed", "why"), [(None, "nobody publishes"), ((Code.NOT_ACTIVE, "disabled"), "disabled")])
def test_who_waited_for_an_image_in_vain_hears_why_none_came(closed, why):
    line = Line()
    line.why_none, line.closed = "nobody publishes", closed
    line.mailbox.post_request(Add([point("a")], 0, line.answers.put))
    line.turn()
    answer = line.answers.get_nowait()
    assert (answer.code, answer.sentence) == (Code.NO_IMAGE, f"no image came; {why}")


def test_an_error_in_every_turn_keeps_no_overdue_request_and_no_worker_awake(monkeypatch):
    line = Line()
    line.step(1)
    monkeypatch.setattr(line.auto, "requests", lambda *_: 1 / 0)
    line.add(point("later"))
    line.mailbox.post_request(Add([point("a")], 0, line.answers.put))
    line.turn()
    assert line.answers.get_nowait().code is Code.INTERNAL and line.answers.empty()
    assert line.pipeline.patience_s(3600.0) > 0


def test_what_came_since_objects_were_dropped_has_as_many_failures_of_its_own():
    """Such as what was restored meanwhile, which was answered OK."""
    line = Line(FakeTracker(raise_on={"step": [None, *[RuntimeError("odd")] * 3]}), max_failures=2)
    line.add(point("a"))
    line.step(1)
    tracker = line.pipeline.tracker
    saved = tracker._objects["a"]
    for stamp in (2, 3):
        line.image(stamp)
        line.turn()
    assert line.counters.resets == {"failure": 1} and not tracker.object_ids
    tracker.restore = lambda *_: tracker._objects.update(a=saved) or ["a"]
    line.mailbox.post_request(Restore("x", [], 0.0, line.answers.put))
    line.image(4)
    line.turn()
    assert line.step(5) == ["a"] and line.counters.resets == {"failure": 1}


def test_what_was_restored_is_dropped_as_well_when_images_fail():
    """It may be why they do."""
    line = restored(Line(FakeTracker(raise_on={"step": [None, RuntimeError("odd")]}), max_failures=1))
    line.image(2)
    line.turn()
    assert line.step(3) == [] and line.counters.resets == {"failure": 1}


def test_what_is_restored_outlives_a_stream_of_which_no_image_has_a_result():
    line = restored(Line(FakeTracker(raise_on={"step": [None, RuntimeError("odd")]})))
    line.image(1000, new_stream=True)
    line.turn()
    assert line.outputs.newest.object_ids == line.pipeline.tracker.object_ids == ["kept"]
    assert line.step(2000, new_stream=True) == ["kept"]
