"""A detector hands over: which box is whom, and two thousand frames of a bad one."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from bench import Bench, names, point

import sam2
from benchmarks.hand_off import Badness, run
from sam2_ros.auto_prompt import AutoPrompt
from sam2_ros.counters import Counters
from sam2_ros.hand_off import LOOKED_FOR, MOST, Association, Detection, as_prompt, boxes_of, twin_of
from sam2_ros.params import Settings
from sam2_ros.requests import Add, Code, Remove

SIZE_HW = (48, 64)


def track(name, box, label=1, visible=True, class_name="cup", last_seen_ns=0):
    """A visible track whose mask is the box x0, y0, x1, y1; hidden ones have none."""
    mask = np.zeros(SIZE_HW, bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return sam2.Track(
        object_id=name, class_name=class_name, label=label,
        state=sam2.State.VISIBLE if visible else sam2.State.OCCLUDED, object_score=4.0, presence=0.98,
        predicted_iou=0.9, last_seen_ns=last_seen_ns, frames_since_seen=0 if visible else LOOKED_FOR, size_hw=SIZE_HW,
        low_res_logits=np.where(mask, 4.0, -4.0).astype(np.float32),
    )  # fmt: skip


def seen(*box, class_name="cup", score=0.9):
    return Detection(np.array(box, np.float32), class_name, score)


def test_a_box_on_nobody_is_an_object_once_it_is_confirmed():
    association = Association(Settings(detector_confirm=3))
    decided = [association.step([seen(10 + n, 10, 20 + n, 20)], [], n) for n in range(3)]
    assert [len(d.new) for d in decided] == [0, 0, 1] and decided[0].ignored == {"not confirmed yet": 1}
    blinking = Association(Settings(detector_confirm=2))
    for n in range(6):
        assert not blinking.step([seen(10, 10, 20, 20)] if n % 2 else [], [], n).new


def test_a_box_on_a_live_object_is_never_another_one():
    association, tracks = Association(Settings(detector_confirm=1)), [track("a", (10, 10, 30, 30))]
    for box in ((11, 9, 31, 29), (5, 5, 40, 40), (10, 10, 30, 19)):
        decided = association.step([seen(*box)], tracks, 0)
        assert not decided.new and not decided.refresh, box
    assert len(association.step([seen(40, 10, 50, 20)], tracks, 0).new) == 1  # beside it


def test_a_thing_in_front_of_another_class_is_no_part_of_it():
    cup, person = track("a", (30, 30, 40, 40)), seen(5, 5, 60, 60, class_name="person")
    association = Association(Settings(detector_confirm=1, detector_refresh_below=0.9))
    assert [d.class_name for d in association.step([person], [cup], 0).new] == ["person"]
    decided = association.step([seen(28, 28, 41, 41, class_name="person")], [cup], 1)
    assert not (decided.refresh or decided.new), "nearly its box is the same thing, whatever it is called"
    assert not Association(Settings(detector_confirm=1)).step([seen(5, 5, 60, 60, class_name="")], [cup], 0).new


def test_several_boxes_on_one_thing_are_one():
    boxes = [seen(10, 10, 20, 20), seen(11, 10, 21, 20, score=0.95)]
    decided = Association(Settings(detector_confirm=1)).step(boxes, [], 0)
    assert [d.score for d in decided.new] == [0.95] and decided.ignored == {"double": 1}


def test_class_score_shape_and_room_are_asked_first():
    rules = Settings(detector_classes=("cup",), detector_least_score=0.5, detector_confirm=1, max_objects=2)
    boxes = [
        seen(0, 0, 9, 9, class_name="dog"), seen(0, 0, 9, 9, score=0.4), seen(9, 9, 9, 20), seen(np.nan, 0, 9, 9),
        seen(20, 20, 30, 30), seen(40, 20, 50, 30),
    ]  # fmt: skip
    decided = Association(rules).step(boxes, [track("a", (0, 30, 9, 40))], 0)
    assert len(decided.new) == 1
    assert decided.ignored == {"class": 1, "score": 1, "box": 2, "no place left": 1}


def test_a_flood_of_boxes_is_cut_to_the_best():
    scores = np.linspace(0.6, 0.9, 1000)
    boxes = [seen(x, 0, x + 1, 9, score=score) for x, score in zip(range(0, 2000, 2), scores, strict=True)]
    association = Association(Settings(detector_confirm=2, max_objects=2000))
    for _ in range(2):
        decided = association.step([*boxes, seen(0, 20, 9, 29, score=np.nan)], [], 0)
    assert decided.ignored == {"too many": 1000 - MOST, "score": 1} and len(decided.new) == MOST
    assert min(d.score for d in decided.new) == scores[-MOST]


def test_an_object_out_of_sight_gets_its_id_back_if_the_box_is_near_and_of_its_class():
    for class_name, box, expected in (
        ("cup", (12, 12, 22, 22), (["a"], 0)), ("dog", (12, 12, 22, 22), ([], 1)), ("cup", (50, 30, 60, 40), ([], 1)),
    ):  # fmt: skip
        association = Association(Settings(detector_confirm=1))
        association.step([], [track("a", (10, 10, 20, 20))], 0)
        decided = association.step([seen(*box, class_name=class_name)], [track("a", (0, 0, 1, 1), visible=False)], 1)
        assert ([name for name, _ in decided.refresh], len(decided.new)) == expected


def test_a_drifted_object_starts_over_when_asked_for():
    for below, expected in ((0.0, []), (0.6, ["a"])):
        association = Association(Settings(detector_confirm=2, detector_refresh_below=below))
        for n in range(2):
            decided = association.step([seen(10, 10, 30, 30)], [track("a", (10, 10, 30, 20))], n)
        assert [name for name, _ in decided.refresh] == expected and not decided.new


def test_what_is_unseen_for_long_is_forgotten_when_unattended():
    hidden = track("a", (0, 0, 1, 1), visible=False, last_seen_ns=10**9)
    for is_unattended, forget_s, expected in ((True, 0.0, []), (True, 5.0, ["a"]), (True, 7.0, []), (False, 5.0, [])):
        association = Association(Settings(detector_unattended=is_unattended, detector_forget_s=forget_s))
        assert association.step([], [hidden], 7 * 10**9).remove == expected


def test_twins_are_told_by_their_masks():
    a, b, c = track("a", (10, 10, 30, 30)), track("b", (11, 10, 30, 30), 2), track("c", (10, 10, 30, 20), 3)
    boxes = boxes_of([a, b, c, track("d", (0, 0, 9, 9), 4, visible=False)])
    assert boxes["b"].tolist() == [11, 10, 30, 30] and "d" not in boxes
    assert twin_of(b, [a, b, c], boxes) == "a" and twin_of(c, [a, b, c], boxes) == twin_of(a, [a], boxes) == ""


def test_a_prompt_is_cut_to_the_image_and_replaces_only_what_lives():
    prompt = as_prompt(seen(-5, 10, 20, 100), "", 7, SIZE_HW)
    assert prompt.box_xyxy.tolist() == [0, 10, 20, 48] and prompt.mode is sam2.PromptMode.ADD and prompt.stamp_ns == 7
    assert as_prompt(seen(0, 0, 9, 9), "a", 0, SIZE_HW).mode is sam2.PromptMode.REPLACE
    assert as_prompt(seen(70, 0, 90, 9), "", 0, SIZE_HW) is None


@pytest.mark.parametrize("slip", [0.0, 0.002])
def test_two_thousand_frames_with_misses_doubles_and_ghosts(slip):
    tally = run(2000, 2, Badness(slip=slip))
    assert tally.duplicates == 0
    assert tally.most_live <= 8 and tally.uncovered < 0.1 * tally.seen and tally.switches <= 10
    assert tally.counters.detections["double"] > 100 and tally.objects > 10  # it did have something to do


def test_without_the_rules_there_are_duplicates(monkeypatch):
    """The mutation: a simulation that cannot count them would pass whatever the hand-off does."""
    monkeypatch.setattr("sam2_ros.auto_prompt.twin_of", lambda *_: "")
    monkeypatch.setattr("sam2_ros.hand_off._share_inside", lambda *_: 0.0)
    monkeypatch.setattr("sam2_ros.hand_off.ious", lambda a, b: np.zeros((len(a), len(b))))
    assert run(100, 2, Badness(slip=0.0)).duplicates > 10


def box_around(x, y):
    return Detection(np.array([x - 6, y - 4, x + 6, y + 4], np.float32), "cup", 0.9)


def test_through_the_worker():
    """Late detections become one object, of the image they were made on; a box on a thing that a person has prompted in
    between is refused, and nobody ever hears of a second one."""
    with Bench(settings=Settings(detector_confirm=1)) as bench:
        bench.auto.post(0, [])  # a detector that sees nothing
        bench.step(1)
        bench.auto.post(1, [box_around(20, 20)])
        result = bench.step(2)
        assert bench.answer().code is Code.OK and len(names(result)) == 1
        assert bench.tracker.prompted[-1].stamp_ns == 1 and result[2][0].class_name == "cup"
        for n in range(3, 6):
            bench.auto.post(n - 1, [box_around(20, 20)])
            assert len(names(bench.step(n))) == 1
        bench.auto.post(5, [box_around(50, 30)])
        bench.add(point("mine", xy=(50, 30)))
        assert names(bench.step(6)) == ["object_1", "mine"]
        answers = {bench.answer().code for _ in range(2)}
        assert answers == {Code.OK, Code.BAD_INPUT}
        assert bench.counters.detections["turned out to be tracked"] == 1


def test_a_detector_does_not_bring_back_what_a_person_removed():
    """Its box is of an image on which the object still was, and asks for the object to start over from there."""
    with Bench(settings=Settings(detector_confirm=1, detector_refresh_below=0.99)) as bench:
        bench.add(point("mine", xy=(20, 20)))
        bench.auto.post(0, [])  # there is a detector
        bench.step(1)
        assert bench.answer().code is Code.OK
        bench.auto.post(1, [Detection(np.array([14, 14, 26, 26], np.float32), "", 0.9)])
        bench.ask(Remove, ["mine"])  # taken together with what the detector says
        assert bench.answer().code is Code.OK
        assert names(bench.step(2)) == []
        refused = bench.answer()
        assert refused.code is Code.UNKNOWN_OBJECT and "'mine' was removed" in refused.sentence


def test_a_persons_prompt_on_what_is_tracked_already_is_refused_when_unattended():
    with Bench(settings=Settings(detector_unattended=True)) as bench:
        bench.add(point("a"))
        bench.step(1)
        bench.add(point("far", xy=(8, 40)), point("b"))
        assert names(bench.step(2)) == ["a"]  # all or nothing
        answers = [bench.answer() for _ in range(2)]
        assert [answer.code for answer in answers] == [Code.OK, Code.BAD_INPUT]
        assert "'b' shows 'a', which is tracked already" in answers[1].sentence and bench.tracker.object_ids == ["a"]
        bench.add(point("left", xy=(8, 40)), point("right", xy=(8, 40)))
        assert names(bench.step(9)) == bench.tracker.object_ids == ["a"]
        assert "'right' shows 'left', which this request prompts as well" in bench.answer().sentence
        assert names(bench.step(10)) == bench.tracker.object_ids == ["a"]


def test_of_a_persons_request_that_shows_what_is_tracked_already_nothing_is_done():
    """Neither to the object that starts over elsewhere in it."""
    with Bench(settings=Settings(detector_unattended=True)) as bench:
        bench.add(point("cup", xy=(15, 15)), point("bottle", xy=(45, 30)))
        _, _, before = bench.step(1)
        replaced = point("cup", xy=(15, 38), mode=sam2.PromptMode.REPLACE, class_name="mug")
        bench.add(replaced, point("", xy=(45, 30)))
        bench.add(point("third", xy=(50, 10)))  # for the same image, and innocent
        _, _, after = bench.step(2)
        assert [bench.answer().code.name for _ in range(3)] == ["OK", "BAD_INPUT", "OK"]
        assert [track.object_id for track in after] == ["cup", "bottle", "third"]
        assert all(
            np.array_equal(a.mask, b.mask) and a.class_name == b.class_name
            for a, b in zip(before, after[:2], strict=True)
        )


def test_many_refused_requests_cost_one_more_step_and_nothing_is_counted():
    with Bench(settings=Settings(detector_unattended=True)) as bench:
        bench.add(point("cup"))
        bench.step(1)
        assert bench.answer().code is Code.OK
        for n in range(8):
            bench.add(point(f"again {n}"))
        before = bench.tracker.calls.count("step")
        assert names(bench.step(2)) == ["cup"]
        assert [bench.answer().code for _ in range(8)] == [Code.BAD_INPUT] * 8
        assert bench.tracker.calls.count("step") - before == 2 and not bench.counters.detections


def test_messages_are_bounded_and_a_new_stream_forgets_them():
    with Bench(settings=Settings(detector_confirm=1)) as bench:
        bench.step(1)
        for n in range(100):
            bench.auto.post(1000 + n, [box_around(20, 20)])
        assert bench.counters.detections["dropped for a newer message"] == 92
        assert names(bench.step(2, new_stream=True)) == names(bench.step(3)) == []
        assert names(bench.step(2000)) == names(bench.step(2001)) == []


def test_without_a_detector_nothing_is_kept_and_with_one_no_masks():
    tracks = [track("a", (10, 10, 30, 30))]
    assert tracks[0].mask.any()
    auto = AutoPrompt(Settings(), Counters(), lambda *_: None)
    auto.remember(1, tracks)
    assert not auto._results
    auto.post(0, [])
    for n in range(100):
        auto.remember(n, tracks)
    assert len(auto._results) == Settings().history_frames and "mask" not in vars(auto._results[-1][1][0])


def test_boxes_of_an_image_before_the_last_change_are_not_believed():
    counters = Counters()
    auto = AutoPrompt(Settings(detector_confirm=1), counters, lambda *_: None)
    auto.post(5, [])
    auto.remember(10, [])
    auto.remember(20, [track("a", (10, 10, 30, 30))], [Add([point("a")], 0, print)])
    auto.post(10, [seen(10, 10, 30, 30)])
    assert auto.requests(SIZE_HW) == [] and counters.detections == {"too late": 1}


def test_a_detector_may_be_as_late_as_the_history_is_long():
    """Half a second at thirty images per second, say; older boxes are refused as any prompt is."""
    settings = Settings(detector_confirm=1)
    for late, news in ((settings.history_frames - 1, 1), (settings.history_frames, 0)):
        auto = AutoPrompt(settings, Counters(), lambda *_: None)
        auto.is_expected = True  # a publisher is there; its first message is about an image of before
        for n in range(100):
            auto.remember(1 + n, [])
        auto.post(100 - late, [seen(10, 10, 30, 30)])
        assert len(auto.requests(SIZE_HW)) == news


def test_a_message_ahead_of_the_images_keeps_none_waiting():
    """As of a detector with a wrong clock, or after stamps went back a little."""
    counters = Counters()
    auto = AutoPrompt(Settings(detector_confirm=1), counters, lambda *_: None)
    auto.post(500, [seen(2, 2, 9, 9)])
    auto.post(10, [seen(10, 10, 30, 30)])
    for stamp_ns in (10, 500):
        auto.remember(stamp_ns, [])
        (add,) = auto.requests(SIZE_HW)
        assert add.prompts[0].stamp_ns == stamp_ns
        add.answer(Code.OK)
    assert "too late" not in counters.detections


def test_what_is_unseen_for_long_is_forgotten_even_if_the_detector_says_nothing():
    tracks = [track("gone", (10, 10, 30, 30), visible=False, last_seen_ns=1), track("here", (1, 1, 9, 9))]
    for unattended in (False, True):
        settings = Settings(detector_unattended=unattended, detector_forget_s=1.0)
        auto = AutoPrompt(settings, Counters(), lambda *_: None)
        auto.is_expected = True  # else an attended one remembers nothing
        auto.remember(10**9, tracks)
        assert auto.requests(SIZE_HW) == []
        auto.remember(2 * 10**9, tracks)
        made = auto.requests(SIZE_HW)
        assert [request.object_ids for request in made] == ([{"gone"}] if unattended else [])
        assert auto.requests(SIZE_HW) == []  # one at a time
