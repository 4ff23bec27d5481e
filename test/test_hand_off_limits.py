"""Where a detector's rules begin and end, and what becomes of each message: counted, in order, one at a time."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from test_hand_off import SIZE_HW, seen, track

import sam2
from sam2_ros import auto_prompt as auto_prompt_module
from sam2_ros.auto_prompt import WAITING, AutoPrompt
from sam2_ros.counters import Counters
from sam2_ros.hand_off import MOST, Association, as_prompt, boxes_of, ious, twin_of
from sam2_ros.params import Settings
from sam2_ros.requests import Add, Code, Remove

S = 10**9
BOX = 10, 10, 30, 30  # 20 x 20


def step(rules, boxes, tracks=(), now_ns=0):
    """rules: parameters of the detector, and max_objects."""
    named = {name if name == "max_objects" else f"detector_{name}": value for name, value in rules.items()}
    return Association(Settings(**named)).step(boxes, list(tracks), now_ns)


def test_overlap_is_intersection_over_union():
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 9]], float)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [10, 0, 20, 10]], float)
    assert ious(a, b) == pytest.approx(np.array([[1, 1 / 3, 0, 0], [0, 0, 0, 0]]))


@pytest.mark.parametrize(("score", "is_taken"), [(0.5, True), (0.49, False)])
def test_a_score_as_low_as_the_rule_is_enough(score, is_taken):
    assert len(step(dict(confirm=1, least_score=0.5), [seen(*BOX, score=score)]).new) == is_taken


@pytest.mark.parametrize("box", [(10, 10, 10, 30), (10, 10, 30, 10), (30, 10, 10, 30), (10, 30, 30, 10)])
def test_a_box_without_area_is_none(box):
    assert step(dict(confirm=1), [seen(*box)]).ignored == {"box": 1}


def test_two_boxes_that_overlap_as_much_as_the_rule_says_are_one():
    """Half of each is a third of both."""
    for overlap, count in ((0.333, 1), (0.334, 2)):
        boxes = [seen(*BOX, score=0.8), seen(20, 10, 40, 30, score=0.9)]
        assert len(step(dict(confirm=1, overlap=overlap), boxes).new) == count


def test_a_box_that_overlaps_an_object_as_much_as_the_rule_says_is_its_box():
    for overlap, reason in ((0.25, "tracked"), (0.26, None)):
        decided = step(dict(confirm=1, overlap=overlap), [seen(10, 10, 15, 30)], [track("a", BOX)])
        assert decided.ignored.get("tracked", 0) == (reason == "tracked") and len(decided.new) == (reason is None)


@pytest.mark.parametrize("name", ["cup", "dog"])
def test_of_two_boxes_the_better_one_is_the_objects_and_the_other_is_nothing_new(name):
    """Whatever the detector calls them: they overlap it too much to be another thing."""
    boxes = [seen(10, 10, 30, 24, class_name=name), seen(10, 12, 30, 31, class_name=name, score=0.6)]
    decided = step(dict(confirm=1, overlap=0.6), boxes, [track("a", BOX)])
    assert decided.ignored == {"tracked": 1, "part of a tracked object": 1} and not decided.new


def test_a_box_is_that_objects_which_it_fits_best():
    """Not of the first that it overlaps enough, which would start over from it."""
    tracks = [track("a", (10, 10, 30, 20)), track("b", (10, 16, 30, 30), 2)]
    assert not step(dict(confirm=1, overlap=0.15, refresh_below=0.5), [seen(10, 16, 30, 30)], tracks).refresh


def test_each_of_two_objects_gets_the_box_that_fits_it_best():
    """However the detector sorts them: the one that drifted away is named."""
    tracks = [track("a", (10, 10, 30, 20)), track("b", (10, 25, 30, 35), 2)]
    boxes = [seen(10, 25, 30, 35, score=0.9), seen(10, 10, 30, 24, score=0.8)]
    decided = step(dict(confirm=1, refresh_below=0.8), boxes, tracks)
    assert [(name, detection.score) for name, detection in decided.refresh] == [("a", 0.8)]


def test_as_many_objects_as_there_is_room_for():
    boxes = [seen(20 * n, 0, 20 * n + 9, 9, score=0.9 - 0.1 * n) for n in range(3)]
    decided = step(dict(confirm=1, max_objects=3), boxes, [track("a", (0, 30, 9, 40))])
    assert [round(d.score, 1) for d in decided.new] == [0.9, 0.8] and decided.ignored == {"no place left": 1}
    forgotten = track("gone", (0, 0, 1, 1), 2, visible=False)
    rules = dict(confirm=1, max_objects=3, unattended=True, forget_s=1.0)
    decided = step(rules, boxes, [track("a", (0, 30, 9, 40)), forgotten], 2 * S)
    assert decided.remove == ["gone"] and len(decided.new) == 2, "the place of what is removed is free"


def test_as_many_boxes_as_are_looked_at_are_not_too_many():
    boxes = [seen(2 * n, 0, 2 * n + 1, 9) for n in range(MOST)]
    assert "too many" not in step(dict(confirm=2), boxes).ignored


def test_a_box_that_jumps_further_than_itself_is_seen_for_the_first_time():
    for far, news in ((14, 1), (16, 0)):  # of a box of 20 x 20, three quarters are 15
        association = Association(Settings(detector_confirm=2))
        association.step([seen(10, 10, 30, 30)], [], 0)
        assert len(association.step([seen(10 + far, 10, 30 + far, 30)], [], 1).new) == news
    association = Association(Settings(detector_confirm=2))
    association.step([seen(*BOX, class_name="dog")], [], 0)
    assert not association.step([seen(*BOX)], [], 1).new


def test_the_nearest_object_out_of_sight_comes_back_and_only_once():
    hidden = [track(name, (0, 0, 1, 1), label, visible=False) for name, label in (("a", 1), ("b", 2))]
    for far, names, order in ((29, ["b"], 1), (20, ["b"], -1), (31, [], 1)):  # of 20 x 20, one and a half are 30
        association = Association(Settings(detector_confirm=1))
        association.step([], [track("a", (0, 20, 20, 40)), track("b", (2, 20, 22, 40), 2)], 0)
        decided = association.step([seen(2 + far, 20, 22 + far, 40)], hidden[::order], 1)
        assert [name for name, _ in decided.refresh] == names and len(decided.new) == (not names)
    association = Association(Settings(detector_confirm=1))
    association.step([], [track("a", BOX)], 0)
    decided = association.step([seen(*BOX), seen(10, 31, 30, 46)], hidden[:1], 1)
    assert [name for name, _ in decided.refresh] == ["a"] and len(decided.new) == 1


def test_where_it_was_last_seen_is_remembered_while_it_is_out_of_sight():
    association, hidden = Association(Settings(detector_confirm=1)), track("a", (0, 0, 1, 1), visible=False)
    association.step([], [track("a", BOX)], 0)
    for now_ns in (1, 2):
        association.step([], [hidden], now_ns)
    assert [name for name, _ in association.step([seen(*BOX)], [hidden], 3).refresh] == ["a"]
    association.note([], 3, [])  # removed, and another one of the name
    assert not association.step([seen(*BOX)], [hidden], 5).refresh


def test_an_object_must_have_drifted_several_times_in_a_row():
    association, box = Association(Settings(detector_confirm=2, detector_refresh_below=0.6)), seen(10, 10, 30, 30)
    drifted, well = [track("a", (10, 10, 30, 20))], [track("a", BOX)]
    decided = [bool(association.step([box], tracks, n).refresh) for n, tracks in enumerate(
        [drifted, well, drifted, drifted, drifted, drifted]
    )]  # fmt: skip
    assert decided == [False, False, False, True, False, True]


def test_just_as_much_overlap_as_is_asked_for_is_no_drift():
    for below, is_drift in ((0.5, False), (0.51, True)):
        decided = step(dict(confirm=1, refresh_below=below), [seen(*BOX)], [track("a", (10, 10, 30, 20))])
        assert bool(decided.refresh) == is_drift


def test_an_object_is_forgotten_after_its_time_and_not_with_it():
    hidden = track("a", (0, 0, 1, 1), visible=False, last_seen_ns=S)
    for now_ns, names in ((6 * S, []), (6 * S + 1, ["a"])):
        assert step(dict(unattended=True, forget_s=5.0), [], [hidden], now_ns).remove == names
    visible = replace(hidden, state=sam2.State.VISIBLE)  # as with `occluded_after` above 30
    assert not step(dict(unattended=True, forget_s=5.0), [], [visible], 60 * S).remove


def test_masks_that_agree_as_far_as_the_rule_says_are_one_thing():
    """20 columns against 14, seven tenths, and against 13."""
    whole = track("a", BOX)
    for columns, other in ((14, "a"), (13, "")):
        part = track("b", (10, 10, 10 + columns, 30), 2)
        assert twin_of(part, [whole, part], boxes_of([whole, part])) == other


def test_a_prompt_of_less_than_a_pixel_is_none_and_says_its_class():
    assert (
        as_prompt(seen(-5, 10, 0.9, 20), "", 0, SIZE_HW) is None
        and as_prompt(seen(9, -5, 20, 0.9), "", 0, SIZE_HW) is None
    )
    prompt = as_prompt(seen(-5, 10, 1.0, 100), "a", 7, SIZE_HW)
    assert prompt.box_xyxy.tolist() == [0, 10, 1, 48] and prompt.class_name == "cup" and prompt.object_id == "a"


# What waits, and what is made of it.


class Desk:
    """AutoPrompt with notes of what it told."""

    def __init__(self, **settings):
        self.counters, self.told = Counters(), []
        self.auto = AutoPrompt(Settings(**(dict(detector_confirm=1) | settings)), self.counters, self.note)
        self.auto.is_expected = True

    def note(self, object_id, stamp_ns, answer):
        self.told.append((object_id, stamp_ns, answer.code))

    def results(self, *stamps, tracks=()):
        for stamp in stamps:
            self.auto.remember(stamp, list(tracks))

    def made(self):
        return self.auto.requests(SIZE_HW)


def test_the_oldest_message_is_lost_to_the_ninth():
    desk = Desk()
    for number in range(WAITING + 1):
        assert desk.counters.detections == {}
        desk.auto.post(number, [seen(*BOX)])
    assert desk.counters.detections == {"dropped for a newer message": 1}
    assert [stamp for stamp, *_ in desk.auto._waiting] == list(range(1, WAITING + 1))


def test_a_detection_meets_the_tracks_of_its_own_image():
    """Or of the nearest; without a stamp of the newest."""
    for posted, expected in ((20, 20), (24, 20), (26, 30), (0, 40), (10, 10)):
        desk = Desk()
        desk.results(10, 20, 30, 40)
        desk.auto.post(posted, [seen(*BOX)])
        (add,) = desk.made()
        assert add.prompts[0].stamp_ns == expected
    desk = Desk()
    desk.results(10, 20)
    desk.auto.post(9, [seen(*BOX), seen(40, 10, 50, 20)])
    assert desk.made() == [] and desk.counters.detections == {"too late": 2}


def test_a_request_has_the_time_that_prompts_have_and_only_a_new_object_may_be_new(monkeypatch):
    monkeypatch.setattr(auto_prompt_module.time, "monotonic_ns", lambda: 1000 * S)
    desk = Desk(prompt_wait_s=2.5, detector_refresh_below=0.9)
    desk.results(10, tracks=[track("a", (10, 10, 30, 20))])
    desk.auto.post(10, [seen(*BOX), seen(40, 10, 50, 20)])
    made = desk.made()
    assert [(add.prompts[0].object_id, add.only_live, add.deadline_ns) for add in made] == [
        ("", False, 1002 * S + S // 2), ("a", True, 1002 * S + S // 2),
    ]  # fmt: skip
    assert desk.counters.detections == {"objects new": 1, "objects refreshed": 1}
    assert all(desk.auto.made(add) for add in made) and not desk.auto.made(Add([], 0, print))


def test_one_message_at_a_time_and_the_next_sees_what_came_of_it():
    desk = Desk()
    desk.results(10, 20)
    desk.auto.post(10, [seen(*BOX), seen(40, 10, 50, 20)])
    desk.auto.post(30, [seen(40, 30, 50, 40)])
    first, second = desk.made()
    first.prompts = [replace(first.prompts[0], object_id="a")]
    desk.auto.remember(30, [track("a", BOX)], [first])
    first.answer(Code.OK)
    assert desk.made() == [], "the second is still under way"
    second.answer(Code.BAD_INPUT)
    assert desk.told == [("", 10, Code.OK), ("", 10, Code.BAD_INPUT)]
    (third,) = desk.made()
    assert third.prompts[0].stamp_ns == 30, "of an image with what came of the first"
    third.answer(Code.BAD_INPUT)
    desk.auto.post(20, [seen(40, 10, 50, 20)])
    assert desk.made() == [] and desk.counters.detections["too late"] == 1


def test_what_is_removed_is_asked_for_counted_and_told():
    desk = Desk(detector_unattended=True, detector_forget_s=1.0)
    gone = [track(name, (0, 0, 1, 1), visible=False, last_seen_ns=S) for name in ("a", "b")]
    desk.results(3 * S, tracks=gone)
    (remove,) = desk.made()
    assert isinstance(remove, Remove) and remove.object_ids == {"a", "b"}
    remove.answer(Code.OK)
    assert desk.told == [(None, 3 * S, Code.OK)] and desk.counters.detections == {"objects removed": 2}
    assert desk.made() == [], "though no image has come since"


def test_a_box_outside_the_image_is_no_request_and_holds_nothing_up():
    desk = Desk()
    desk.results(10)
    desk.auto.post(10, [seen(90, 10, 99, 20)])
    desk.auto.post(10, [seen(*BOX)])
    assert len(desk.made()) == 1 and desk.counters.detections == {"outside the image": 1, "objects new": 1}


@pytest.mark.parametrize("unattended", [False, True])
def test_whose_twins_have_to_go(unattended):
    """Of requests made for a detector always; of people's objects the younger one, and only when unattended."""
    desk = Desk(detector_unattended=unattended)
    desk.results(10)
    desk.auto.post(10, [seen(*BOX)])
    (add,) = desk.made()
    add.prompts[0] = sam2.Prompt("theirs", box_xyxy=BOX)
    tracks = [
        track("mine", BOX, 1), track("theirs", BOX, 2),
        track("old", (40, 5, 60, 25), 3), track("young", (40, 5, 60, 25), 4),
    ]  # fmt: skip
    twins = desk.auto.twins([add], tracks)
    assert twins == {"theirs": "mine"} | ({"young": "old"} if unattended else {})
    assert desk.auto.count_twins([add], twins) == (["young"] if unattended else [])
    expected = {"objects new": 1, "turned out to be tracked": 1}
    assert desk.counters.detections == expected | ({"objects that became another": 1} if unattended else {})
    assert desk.auto.twins([], tracks).keys() == ({"theirs", "young"} if unattended else set())
    add.only_live = True  # it refreshed "theirs", which was tracked before
    assert desk.auto.count_twins([add], twins)[0] == "theirs"


def test_a_new_stream_leaves_the_messages_and_results_of_before():
    desk = Desk()
    desk.results(10)
    desk.auto.post(10, [seen(*BOX)])
    desk.auto.forget()
    assert desk.made() == [] and not desk.auto._waiting and not desk.auto._results
    assert desk.auto.is_expected
