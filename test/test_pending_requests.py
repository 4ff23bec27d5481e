"""Requests in front of a fake tracker: order, naming, deadlines, refusals, and one answer each. No ROS, no torch."""

import re
import threading
import time

import numpy as np
import pytest
from bench import PATIENCE_S, Bench, names, point
from fakes import FakeTracker
from small_stream import small_model

import sam2
from sam2_ros.params import Settings
from sam2_ros.requests import Add, Code, Remove, Reset, Restore, Save


def test_a_prompt_waits_for_the_next_image_and_gets_an_id_and_a_label():
    with Bench() as bench:
        bench.add(point(), point())
        assert names(bench.step(1)) == ["object_1", "object_2"]
        answer = bench.answer()
        assert (answer.code, answer.object_ids, answer.labels) == (Code.OK, ("object_1", "object_2"), (1, 2))
        assert answer.headers == ("header 1", "header 1")


def test_a_given_id_is_never_taken_by_a_new_object():
    with Bench() as bench:
        bench.add(point("object_1"))
        bench.add(point(""))
        assert names(bench.step(1)) == ["object_1", "object_2"]


def test_a_prompt_is_answered_with_the_image_it_ran_on():
    with Bench() as bench:
        bench.step(10)
        bench.step(20)
        for name, stamp in (("now", 30), ("late", 10), ("skipped", 18), ("next", 0), ("too late", 9)):
            bench.add(point(name, stamp=stamp))
        bench.step(30)
        answers = {a.object_ids[0] if a.object_ids else a.code: a.headers for a in (bench.answer() for _ in range(5))}
        assert answers == {
            "now": ("header 30",), "late": ("header 10",), "skipped": ("header 20",), "next": ("header 30",),
            Code.STALE: (),
        }  # fmt: skip


def test_prompts_of_one_request_on_different_images_are_each_answered_with_their_own():
    with Bench() as bench:
        bench.step(10)
        bench.add(point("now", stamp=20), point("late", stamp=10), point("next"))
        bench.step(20)
        assert bench.answer().headers == ("header 20", "header 10", "header 20")


def test_a_prompt_on_a_later_image_waits_for_it():
    with Bench() as bench:
        bench.add(point("cup", stamp=3))
        assert names(bench.step(1)) == [] and names(bench.step(2)) == []
        assert names(bench.step(3)) == ["cup"]
        assert bench.answer().code is Code.OK


@pytest.mark.parametrize("stamp, images, code", [(0, 0, Code.NO_IMAGE), (9, 0, Code.NO_IMAGE), (9, 1, Code.STALE)])
def test_a_prompt_whose_image_never_comes_is_answered_all_the_same(stamp, images, code):
    with Bench() as bench:
        for n in range(images):
            bench.step(n + 1)
        bench.add(point("cup", stamp=stamp), wait_s=0.05)
        assert bench.answer().code is code
        assert "cup" not in bench.tracker.object_ids


def test_an_add_is_all_or_nothing():
    with Bench() as bench:
        bench.add(point("in"), point("out", xy=(64, 5)))
        assert names(bench.step(1)) == []
        answer = bench.answer()
        assert answer.code is Code.BAD_INPUT and answer.object_ids == ()
        assert re.match(r"prompt 1: prompt\.points_xy: point 0 at .*64x48", answer.sentence)


def test_a_refusal_by_the_step_itself_hits_the_newest_request():
    with Bench(FakeTracker(max_objects=2)) as bench:
        for name in ("a", "b", "c"):
            bench.add(point(name))
        assert names(bench.step(1)) == ["a", "b"]
        answers = [bench.answer() for _ in range(3)]
        assert [a.code for a in answers] == [Code.LIMIT_REACHED, Code.OK, Code.OK]


def test_requests_about_one_object_keep_their_order():
    with Bench() as bench:
        bench.add(point("a"))
        bench.ask(Remove, ["a"])
        bench.add(point("a"))
        bench.step(1)
        assert [bench.answer().code for _ in range(2)] == [Code.OK, Code.OK]  # put in, taken out
        assert names(bench.step(2)) == ["a"]  # and put in again
        assert bench.answer().code is Code.OK
        bench.ask(Remove, ["a"])
        bench.add(point("a", xy=(5, 5)))
        assert names(bench.step(3)) == ["a"]
        assert bench.tracker.prompted[-1].points_xy == [(5, 5)]


def test_a_reset_waits_for_the_prompts_before_it_and_no_others():
    with Bench() as bench:
        bench.add(point("a"))
        bench.ask(Reset)
        bench.add(point("b"))
        bench.step(1)
        assert names(bench.step(2)) == ["b"]


def test_what_waits_for_a_prompt_whose_image_never_comes_is_done_when_that_is_given_up():
    with Bench() as bench:
        bench.add(point("cup"))
        bench.step(1)
        bench.answer()
        bench.add(point("mug"), wait_s=0.05)
        bench.ask(Reset)
        bench.ask(Remove, ["mug"])
        assert [bench.answer().code for _ in range(3)] == [Code.NO_IMAGE, Code.OK, Code.UNKNOWN_OBJECT]
        assert bench.tracker.object_ids == []


def test_a_prompt_on_an_image_that_came_is_carried_out_though_no_image_follows():
    with Bench() as bench:
        bench.step(5)
        bench.add(point("mug"), wait_s=0.05)
        answer = bench.answer()
        assert answer.code is Code.NO_IMAGE and "no image has come since" in answer.sentence
        bench.add(point("mug", stamp=6), wait_s=0.05)
        assert bench.answer().code is Code.STALE
        bench.add(point("cup", stamp=5), wait_s=0.05)
        assert bench.answer().headers == ("header 5",)
        again = bench.outputs.get(timeout=PATIENCE_S)
        assert again[1].stamp_ns == 5 and names(again) == ["cup"] and names(bench.step(6)) == ["cup"]


def test_a_new_stream_has_headers_of_its_own():
    """Though its stamps come to those of the old one."""
    with Bench() as bench:
        for stamp, is_new in ((100, False), (50, True), (90, False), (105, False)):
            bench.step(stamp, new_stream=is_new)
        bench.add(point("a", stamp=100))
        bench.step(120)
        assert bench.answer().headers == ("header 105",)


@pytest.mark.parametrize("is_seen", [False, True], ids=["with an image", "without"])
def test_the_image_a_prompt_ran_on_is_the_one_that_the_tracker_says(is_seen):
    """The clock was set back, and what is older than the gap is forgotten: at 1.05 s there is no image any more."""
    with Bench(sam2.Tracker(small_model(), sam2.Limits(history_s=0.5))) as bench:
        stamps = [900_000_000, 1_050_000_000, 960_000_000, 1_500_000_000]
        for stamp in stamps[: 4 if is_seen else 3]:
            bench.step(stamp)
        bench.add(point("cup", stamp=stamps[1]), wait_s=0.0 if is_seen else PATIENCE_S)
        if not is_seen:
            bench.step(stamps[3])
        assert bench.answer().headers == (f"header {stamps[2]}",)


def test_remove_needs_no_image_and_names_the_unknown():
    with Bench() as bench:
        bench.add(point("a"), point("b"))
        bench.step(1)
        bench.answer()
        bench.ask(Remove, ["a", "x", "y"])
        answer = bench.answer()
        assert (answer.code, answer.unknown_ids) == (Code.UNKNOWN_OBJECT, ("x", "y"))
        assert names(bench.step(2)) == ["b"]


def test_a_prompt_on_an_image_of_the_old_stream_is_stale():
    with Bench() as bench:
        bench.step(10)
        bench.step(20)
        bench.add(point("a", stamp=21))
        bench.step(50, new_stream=True)
        assert bench.answer().code is Code.STALE


def test_a_flood_of_requests_is_bounded_and_answered():
    with Bench(settings=Settings(prompt_queue=8)) as bench:
        for n in range(1000):
            bench.add(point(f"{n}", stamp=99), wait_s=5)  # longer than it takes to ask for all
        codes = [bench.answer().code for _ in range(1000)]
        assert (codes.count(Code.BUSY), codes.count(Code.NO_IMAGE)) == (992, 8)
        bench.step(1)  # the turn in which the last were answered is over, and they no longer count
        bench.add(point("after"))
        assert names(bench.step(2)) == ["after"]


def test_the_same_requests_in_the_same_order_give_the_same_objects():
    def run(seed):
        random = np.random.default_rng(seed)
        with Bench() as bench:
            for n in range(20):
                for _ in range(random.integers(0, 4)):
                    name = f"o{random.integers(0, 3)}"
                    if random.random() < 0.6:
                        bench.add(point(name, xy=(int(random.integers(0, 64)), 5)))
                    else:
                        bench.ask(Remove, [name])
                yield names(bench.step(n + 1)), [track.label for track in bench.step(1000 + n, size_hw=(48, 64))[2]]

    for seed in range(3):
        assert list(run(seed)) == list(run(seed))


def test_a_request_that_was_answered_by_somebody_else_is_not_carried_out():
    gate = threading.Event()
    with Bench(FakeTracker(gate=gate)) as bench:
        bench.image(1)
        assert bench.tracker.stepping.wait(PATIENCE_S)
        request = Add([point("a")], time.monotonic_ns() + 10**10, bench.answers.put)
        bench.mailbox.post_request(request)
        request.answer(Code.INTERNAL, "the network hangs")
        gate.set()
        assert names(bench.step(2)) == [] and names(bench.step(3)) == []
        assert bench.answer().code is Code.INTERNAL and bench.answers.empty()


def test_a_request_that_is_being_carried_out_is_given_up_no_more():
    """At deactivation: what waits is not done; what the network has in hand is answered when it is done."""
    gate = threading.Event()
    with Bench(FakeTracker(gate=gate)) as bench:
        asked = [Add([point(name)], time.monotonic_ns() + 10**11, bench.answers.put) for name in ("in hand", "waits")]
        bench.mailbox.post_request(asked[0])
        bench.image(1)
        assert bench.tracker.stepping.wait(PATIENCE_S)
        bench.mailbox.post_request(asked[1])
        for request in asked:
            request.give_up(Code.STOPPING, "the node is being deactivated")
        assert bench.answer().code is Code.STOPPING and bench.answers.empty()
        gate.set()
        assert bench.answer().object_ids == ("in hand",)
        assert names(bench.step(2)) == ["in hand"]


def test_only_what_is_too_much_is_refused():
    """Not whoever asks last: a correction behind somebody's new object that has no place is carried out."""
    with Bench(FakeTracker(max_objects=2)) as bench:
        bench.add(point("a"))
        bench.step(1)
        assert bench.answer().code is Code.OK
        for name in ("b", "c", "a", "d"):
            bench.add(point(name))
        assert names(bench.step(2)) == ["a", "b"]
        answers = [bench.answer() for _ in range(4)]
        assert sorted(answer.object_ids for answer in answers if answer.code is Code.OK) == [("a",), ("b",)]
        assert [answer.code for answer in answers].count(Code.LIMIT_REACHED) == 2


def test_a_new_object_has_another_name_than_one_that_is_about_to_come_back(tmp_path):
    path = tmp_path / "kept.safetensors"
    with Bench(sam2.Tracker(small_model())) as bench:
        bench.add(point())
        bench.step(1)
        bench.answer()
        bench.ask(Save, path, [])
        assert bench.answer().object_ids == ("object_1",)
    with Bench(sam2.Tracker(small_model())) as bench:
        bench.add(point("x", stamp=9))
        bench.ask(Restore, path, [], 0.0)  # behind x, which waits
        bench.add(point(xy=(50, 40)))
        bench.step(9)
        assert [bench.answer().object_ids for _ in range(2)] == [("x",), ("object_1",)]
        assert len(names(bench.step(10))) == 3 and bench.answer().object_ids == ("object_2",)


def test_what_is_gone_is_counted_no_more():
    with Bench() as bench:
        bench.add(point("a"), point("b"), point("c"))
        bench.step(1)
        bench.answer()
        for kind, args, left in ((Remove, (["a"],), ["b", "c"]), (Reset, (), [])):
            bench.ask(kind, *args)
            assert bench.answer().code is Code.OK and bench.pipeline.outputs.newest.object_ids == left


def test_save_and_restore_are_served_without_an_image_and_refused_by_name(tmp_path):
    path = tmp_path / "kept" / "x.safetensors"
    with Bench(sam2.Tracker(small_model())) as bench:
        bench.add(point("a"))
        bench.step(1)
        assert bench.answer().code is Code.OK
        for kind, args, code in (
            (Save, (path, []), Code.OK), (Save, (path, ["b"]), Code.UNKNOWN_OBJECT),
            (Restore, (path, [], 0.0), Code.BAD_INPUT), (Remove, (["a"],), Code.OK),
            (Restore, (path, ["b"], 0.0), Code.UNKNOWN_OBJECT), (Restore, (path, ["a"], 60.0), Code.OK),
            (Restore, (path.parent / "none", [], 0.0), Code.BAD_INPUT), (Restore, (path, [], -1.0), Code.BAD_INPUT),
        ):  # fmt: skip
            bench.ask(kind, *args)
            answer = bench.answer()
            assert answer.code is code, answer.sentence
        assert names(bench.step(2)) == ["a"]
