"""What a detector's messages come to where one goes wrong: two boxes of one thing, a new stream, a full queue."""

from dataclasses import replace

import pytest

pytest.importorskip("rclpy")

from bench import point
from fakes import FakeTracker
from test_hand_off import seen, track
from test_hand_off_limits import BOX, Desk, S, step
from test_pipeline_inside import Line

import sam2
from sam2_ros.auto_prompt import WAITING
from sam2_ros.hand_off import LOOKED_FOR, Association
from sam2_ros.params import Settings
from sam2_ros.requests import Add, Code


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


def test_of_two_boxes_of_which_an_object_is_a_part_neither_is_new():
    decided = step(dict(confirm=1), [seen(0, 0, 40, 40), seen(30, 0, 64, 48)], [track("a", (30, 20, 40, 30))])
    assert not decided.new and decided.ignored == {"tracked": 1, "part of a tracked object": 1}


def test_an_object_of_which_only_a_part_is_left_is_refreshed():
    decided = step(dict(confirm=1, refresh_below=0.5), [seen(5, 5, 40, 40)], [track("a", (10, 10, 20, 20))])
    assert [name for name, _ in decided.refresh] == ["a"]


def test_what_is_removed_is_not_what_a_box_nearby_is_taken_for():
    association = Association(Settings(detector_confirm=1, detector_unattended=True, detector_forget_s=1.0))
    association.step([], [track("a", BOX)], S)
    decided = association.step([seen(*BOX)], [track("a", BOX, visible=False, last_seen_ns=S)], 3 * S)
    assert decided.remove == ["a"] and not decided.refresh and len(decided.new) == 1


def test_of_two_messages_that_are_due_the_second_waits_for_the_answers_to_the_first():
    desk = Desk()
    desk.results(10, 20)
    for stamp, left in ((10, 10), (20, 40)):
        desk.auto.post(stamp, [seen(left, 10, left + 10, 20)])
    for stamp in (10, 20):
        (add,) = desk.made()
        assert add.prompts[0].stamp_ns == stamp
        add.answer(Code.BAD_INPUT)


def test_of_an_image_that_was_prompted_the_newer_result_counts():
    desk = Desk()
    desk.auto.remember(1, [track("a", BOX)])
    desk.auto.remember(1, [track("a", (40, 10, 60, 30))], [Add([sam2.Prompt("a", [(50, 20)], [1])], 0, print)])
    desk.auto.post(1, [seen(*BOX)])
    assert [add.object_ids for add in desk.made()] == [{""}]


@pytest.mark.parametrize(
    ("asked_ns", "meant_ns"), [(46, 47), (44, 44), (43, 47), (33, 28), (32, 32), (26, 25), (24, 25), (21, 20)]
)
def test_of_a_stamp_that_a_clock_shows_twice_the_second_times_result_counts(asked_ns, meant_ns):
    """Unless there is an image of exactly that stamp."""
    desk = Desk(detector_confirm=1)
    for at_ns in (10, 20, 32, 44, 25, 35, 28, 47):
        desk.auto.remember(at_ns, [])
    desk.auto.post(asked_ns, [seen(*BOX)])
    assert [add.prompts[0].stamp_ns for add in desk.made()] == [meant_ns]


def test_what_was_seen_before_a_new_stream_confirms_nothing_in_it():
    desk = Desk(detector_confirm=2)
    for posted in (10, 5):
        desk.results(posted)
        desk.auto.post(posted, [seen(*BOX)])
        assert desk.made() == [], "seen once in its stream"
        desk.auto.forget()
    assert desk.counters.detections == {"not confirmed yet": 2}


def test_boxes_that_wait_when_a_new_stream_begins_are_counted_as_all_others():
    desk = Desk()
    desk.auto.post(10, [seen(*BOX)] * 3)
    desk.auto.forget()
    desk.results(10)
    assert desk.made() == [] and desk.counters.detections == {"of an earlier stream": 3}


def test_what_a_full_queue_loses_is_counted_in_boxes_as_everything_else_is():
    desk = Desk()
    for number in range(WAITING + 1):
        desk.auto.post(number, [seen(*BOX)] * (3 if number == 0 else 1))
    assert desk.counters.detections == {"dropped for a newer message": 3}


def test_what_no_image_ever_comes_for_is_counted_as_that_and_not_as_too_fast():
    desk = Desk()
    desk.results(10)
    desk.auto.post(3600 * S, [seen(*BOX)] * 3, of_another_clock=True)
    for number in range(20, 20 + WAITING):
        desk.auto.post(number, [seen(*BOX)])
    assert desk.made() == [] and desk.counters.detections == {"later than all images": 3}


def test_what_a_late_message_did_not_see_any_more_may_have_come_back():
    desk = Desk(detector_unattended=True, detector_forget_s=1.0)
    desk.results(3 * S, tracks=[track("a", BOX, visible=False, last_seen_ns=S)])
    desk.results(4 * S, tracks=[track("a", BOX, last_seen_ns=4 * S)])
    desk.auto.post(3 * S, [])
    assert desk.made() == []


def test_what_a_late_message_finds_again_is_not_removed_before_it_starts_over():
    desk = Desk(detector_unattended=True, detector_forget_s=1.0)
    desk.results(S, tracks=[track("a", BOX, last_seen_ns=S)])
    desk.auto.post(S, [])
    assert desk.made() == []
    desk.results(3 * S // 2, 3 * S, tracks=[track("a", BOX, visible=False, last_seen_ns=S)])
    desk.auto.post(3 * S // 2, [seen(*BOX)])
    assert [(type(request), request.object_ids) for request in desk.made()] == [(Add, {"a"})]


@pytest.mark.parametrize("again", [True, False])
def test_what_somebody_prompts_again_is_not_forgotten_in_the_same_turn(again):
    hidden = range(1, LOOKED_FOR + 1)
    line = Line(FakeTracker(absent_on=set(hidden)), detector_unattended=True, detector_forget_s=1.0)
    line.add(point("a"))
    assert [line.step((1 + n) * S) for n in (0, *hidden)] == [["a"]] * (1 + LOOKED_FOR)
    if again:
        line.add(point("a"))
    assert [line.step((LOOKED_FOR + n) * S) for n in (2, 3)] == [["a"] if again else []] * 2
    assert line.counters.detections.get("objects removed", 0) == (not again)


def test_time_in_which_no_image_came_is_no_time_unseen():
    """The node was inactive, or the camera stopped; in the first image afterwards a hand is before the thing."""
    line = Line(FakeTracker(absent_on=range(1, LOOKED_FOR + 2)), detector_unattended=True, detector_forget_s=1.0)
    line.add(point("a"))
    line.step(1 * S)
    after = [line.step(100 * S + n * S // 10) for n in range(LOOKED_FOR + 1)]
    assert after == [["a"]] * LOOKED_FOR + [[]]


def test_a_correction_of_one_thing_makes_no_message_too_late():
    """Boxes of a slow detector, while somebody corrects what is in plain view with every image."""
    desk = Desk()
    shown = track("a", (40, 10, 60, 30))
    for number in range(1, 10):
        correction = Add([sam2.Prompt("a", points_xy=[(50, 20)], labels=[1])], 0, print)
        desk.auto.remember(number, [shown], [correction] if number > 1 else [])
    desk.auto.post(2, [seen(*BOX)])
    assert [add.prompts[0].stamp_ns for add in desk.made()] == [2]


@pytest.mark.parametrize("change", ["began", "started over", "was hidden"])
def test_before_a_thing_was_where_it_is_now_no_box_can_say_what_it_shows(change):
    mode = sam2.PromptMode.REPLACE if change == "started over" else sam2.PromptMode.ADD
    before = [] if change == "began" else [track("a", BOX, visible=change == "started over")]
    desk = Desk()
    desk.auto.remember(1, before)
    desk.auto.remember(2, [track("a", BOX)], [Add([sam2.Prompt("a", [(20, 20)], [1], mode=mode)], 0, print)])
    desk.auto.post(1, [seen(*BOX)])
    assert desk.made() == [] and desk.counters.detections == {"too late": 1}


def test_a_thing_is_looked_for_where_it_went_out_of_sight():
    """Not where it was when the detector last spoke, a second ago; nor by a message about an image of before."""
    desk = Desk()
    for number, left in enumerate((0, 10, 20, 48)):
        desk.auto.remember(1 + number, [track("a", (left, 10, left + 10, 30))])
        desk.auto.post(1, [seen(0, 10, 10, 30)] if number == 0 else [])
        assert desk.made() == []
    desk.auto.remember(5, [track("a", BOX, visible=False)])
    desk.auto.post(2, [])
    assert desk.made() == []
    desk.auto.post(5, [seen(48, 10, 58, 30)])
    assert [add.prompts[0].object_id for add in desk.made()] == ["a"]


def test_what_was_restored_stays_and_what_a_detector_made_of_it_meanwhile_goes():
    desk = Desk(detector_unattended=True)
    desk.results(1)
    desk.auto.post(1, [seen(*BOX)])
    (add,) = desk.made()
    add.prompts = [replace(add.prompts[0], object_id="object_1")]
    made = track("object_1", BOX, 1)
    desk.auto.remember(2, [made], [add])
    add.answer(Code.OK, object_ids=("object_1",))
    restored = track("mug", BOX, 2)
    assert desk.auto.twins([], [made, restored]) == {"object_1": "mug"}
    person = Add([sam2.Prompt("mug", [(20, 20)], [1])], 0, print)
    assert desk.auto.twins([person], [made, restored]) == {"mug": "object_1"}, "what it shows is tracked already"
    elder, younger = track("elder", BOX, 1), track("younger", BOX, 2)
    correction = Add([sam2.Prompt("elder", [(20, 20)], [1])], 0, print)
    assert desk.auto.twins([correction], [elder, younger]) == {"younger": "elder"}, "though it was prompted"
    desk.auto.remember(3, [restored])
    assert desk.auto.twins([], [track("object_1", BOX, 1), restored]) == {"mug": "object_1"}, "another of this name"


def test_a_thing_that_is_removed_as_another_one_is_told_in_the_log():
    """As when it was restored, or tracked by two people under two names until they met."""
    line = Line(detector_unattended=True)
    line.add(point("a"))
    line.step(1)
    objects = line.pipeline.tracker._objects
    objects["b"] = replace(objects["a"], label=2)
    assert line.step(2) == ["a"] and line.logged == ["'b' shows the same as 'a' and is removed"]
    assert line.pipeline.tracker.object_ids == line.outputs.newest.object_ids == ["a"], "not just not shown"


def test_the_elder_stays_also_where_labels_have_started_over():
    line = Line(detector_unattended=True)
    line.add(point("elder"))
    line.step(1 * S)
    line.pipeline.tracker._objects["elder"].label = 254
    line.add(point("younger"))
    assert line.step(2 * S) == ["elder"] and [line.answers.get().code for _ in "ab"] == [Code.OK, Code.BAD_INPUT]
