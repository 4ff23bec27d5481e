"""What the requests that wait come to, step by step: no thread, no ROS."""

import queue
import time
from types import SimpleNamespace

import numpy as np
import pytest
from bench import point
from fakes import FakeTracker

import sam2
from sam2_ros import pending_requests
from sam2_ros.pending_requests import PendingRequests
from sam2_ros.requests import Add, Code, Remove, Reset

S = 10**9


class Desk:
    """Requests with a fake tracker; `heard` notes what others are told."""

    def __init__(self, history_frames=30):
        self.tracker, self.heard, self.answers = FakeTracker(), [], queue.Queue()
        note = lambda name: lambda *what: self.heard.append((name, *what))  # noqa: E731
        self.pending = PendingRequests(history_frames, note("failed"), note("gone"), note("back"))

    def put(self, *requests):
        self.pending.waiting += requests
        return requests[0]

    def add(self, *prompts, deadline_ns=2**62, reply=None, **more):
        return self.put(Add(list(prompts), deadline_ns, reply or self.answers.put, **more))

    def image(self, stamp_ns, header=""):
        """The image with everything that is due; what was left to run is answered."""
        frame = sam2.Frame(np.zeros((48, 64, 3), np.uint8), stamp_ns)
        adds = self.pending.sort_out(self.tracker, frame, now_ns=0)
        tracks = self.tracker.step(frame, [prompt for add in adds for prompt in add.prompts])
        self.pending.remember(stamp_ns, header or f"header {stamp_ns}", arrived_ns=0)
        for add in adds:
            self.pending.confirm(add, tracks)

    def answer(self):
        return self.answers.get_nowait()

    def expired(self, any_image, known=""):
        if any_image:
            self.pending.expire_ahead(time.monotonic_ns())
        self.pending.expire(any_image, lambda: known, time.monotonic_ns())
        return None if self.answers.empty() else self.answer()


@pytest.fixture
def now(monkeypatch):
    clock = SimpleNamespace(ns=100 * S)
    monkeypatch.setattr(pending_requests.time, "monotonic_ns", lambda: clock.ns)
    return clock


def test_patience_ends_with_the_first_deadline_and_is_never_negative(now):
    desk = Desk()
    assert desk.pending.patience_s(3600.0) == 3600.0
    desk.put(Reset(print))
    assert desk.pending.patience_s(3600.0) == 3600.0, "a request without a deadline may wait for ever"
    desk.add(point("late"), deadline_ns=107 * S)
    desk.add(point("early"), deadline_ns=102 * S)
    assert desk.pending.patience_s(3600.0) == 2.0
    now.ns = 103 * S
    assert desk.pending.patience_s(3600.0) == 0.0


def test_a_request_expires_at_its_deadline_and_not_a_moment_later(now):
    """Until when the worker slept: one that is left over would keep it awake without end."""
    desk = Desk()
    desk.add(point("a"), deadline_ns=102 * S)
    now.ns = 102 * S - 1
    assert desk.expired(any_image=False) is None and len(desk.pending.waiting) == 1
    now.ns = 102 * S
    assert desk.expired(any_image=False).code is Code.NO_IMAGE and not desk.pending.waiting


def test_what_turns_out_to_be_wrong_once_an_image_has_come_is_refused_then():
    def check():
        raise sam2.BadInput("of another frame")

    desk = Desk()
    desk.add(point("cup"), check=check)
    desk.add(point("mug"))
    desk.image(1)
    assert [(answer.code, answer.sentence) for answer in (desk.answer(), desk.answer())] == [
        (Code.BAD_INPUT, "of another frame"), (Code.OK, "")
    ]  # fmt: skip
    assert desk.tracker.object_ids == ["mug"]


@pytest.mark.parametrize(
    ("stamps", "any_image", "known", "code", "sentence"),
    [
        ((0,), False, "", Code.NO_IMAGE, "no image came; is the camera running?"),
        ((0,), False, "nobody publishes /image", Code.NO_IMAGE, "no image came; nobody publishes /image"),
        ((9,), False, "", Code.NO_IMAGE, "no image came; is the camera running?"),
        ((5,), True, "it is refused", Code.NO_IMAGE,
         "no image has come since, and a prompt needs the next one; it is refused"),
        ((5,), True, "", Code.NO_IMAGE, "no image has come since, and a prompt needs the next one"),
        ((5, 0), True, "", Code.NO_IMAGE, "no image has come since, and a prompt needs the next one; with the stamp of "
         "an image that came (`sam2_ros prompt --newest`), it would mean that image"),
        ((5, 6 * 10**7), True, "", Code.STALE,
         "the image the prompt was made on did not come: its stamp is 0.060 s later than the newest image's"),
        ((5, 60 * 10**9), True, "", Code.STALE, "the image the prompt was made on did not come: its stamp is 60.000 s "
         "later than the newest image's; is it of another clock?"),
    ],
)  # fmt: skip
def test_who_waited_in_vain_is_told_for_what(now, stamps, any_image, known, code, sentence):
    desk = Desk()
    desk.pending.remember(5, "header 5", arrived_ns=0)
    desk.add(*(point(f"{stamp}", stamp=stamp) for stamp in stamps), deadline_ns=0)
    answer = desk.expired(any_image, known)
    assert (answer.code, answer.sentence) == (code, sentence)


def test_of_images_without_stamps_none_is_compared_with():
    desk = Desk()
    desk.pending.remember(0, "header", arrived_ns=0)
    desk.add(point("a", stamp=60 * 10**9), deadline_ns=0)
    assert desk.expired(True).sentence == "the image the prompt was made on did not come"


def test_what_somebody_else_has_answered_is_not_carried_out():
    """A prompt, and what needs no image: its client was told that it failed."""
    desk = Desk()
    desk.add(point("a"))
    desk.image(1)
    desk.answer()
    for request in (desk.put(Remove(["a"], print)), desk.put(Reset(print)), desk.add(point("b"))):
        request.give_up(Code.INTERNAL, "the network hangs")
    desk.image(2)
    assert desk.tracker.object_ids == ["a"] and not desk.heard


def test_what_was_served_is_kept_no_longer():
    """It would count as a request that waits, until all that come are turned away."""
    desk = Desk()
    desk.add(point("a"))
    desk.put(Remove(["nobody"], print))
    desk.add(point("far", xy=(99, 99)))
    desk.image(1)
    assert desk.pending.waiting == []


def test_without_an_image_a_prompt_waits_and_nothing_has_failed():
    desk = Desk()
    add = desk.add(point("a"))
    assert desk.pending.sort_out(desk.tracker, None, add.deadline_ns) == []
    assert desk.pending.waiting == [add] and not desk.heard


def test_a_request_about_several_images_waits_for_the_last_of_them():
    desk = Desk()
    desk.add(point("a", stamp=1), point("b", stamp=2))
    desk.image(1)
    assert desk.answers.empty()
    desk.image(2)
    assert desk.answer().headers == ("header 1", "header 2")


def test_what_goes_only_for_live_objects_goes_for_these():
    desk = Desk()
    desk.add(point("a"))
    desk.image(1)
    for name in ("a", "removed"):
        desk.add(point(name), only_live=True)
    desk.image(2)
    assert [desk.answer().code for _ in range(3)] == [Code.OK, Code.UNKNOWN_OBJECT, Code.OK]


def test_a_request_about_other_objects_overtakes_and_one_about_the_same_waits():
    desk = Desk()
    desk.add(point("a"), point("b"))
    desk.image(1)
    desk.answer()
    waits = desk.add(point("a", stamp=9), point("new", stamp=9))
    first, second = desk.put(Remove(["a"], print)), desk.add(point("a"))
    desk.put(Remove(["b"], print))
    desk.image(2)
    assert desk.tracker.object_ids == ["a"] and desk.pending.waiting == [waits, first, second]


def test_a_reset_that_waits_holds_everything_behind_it():
    desk = Desk()
    waits, reset = desk.add(point("a", stamp=9)), desk.put(Reset(print))
    behind = desk.add(point("b"))
    desk.image(2)
    assert desk.pending.waiting == [waits, reset, behind] and not desk.tracker.object_ids


def test_two_nameless_objects_do_not_wait_for_each_other():
    """Each is a new one: the same empty name does not make them one."""
    desk = Desk()
    desk.add(point("", stamp=9))
    desk.add(point(""))
    desk.image(2)
    assert desk.answer().object_ids == ("object_1",) and len(desk.pending.waiting) == 1


def test_a_refusal_is_told_and_only_what_is_none_counts_as_a_failure():
    desk = Desk()
    boom = ZeroDivisionError()
    for error, code, sentence in (
        (sam2.Stale("old"), Code.STALE, "old"), (sam2.UnknownObject("who"), Code.UNKNOWN_OBJECT, "who"),
        (sam2.LimitReached("full"), Code.LIMIT_REACHED, "full"), (sam2.BadInput("no"), Code.BAD_INPUT, "no"),
        (boom, Code.INTERNAL, "ZeroDivisionError"),
    ):  # fmt: skip
        desk.pending.refuse(desk.add(point("a")), error)
        answer = desk.answer()
        assert (answer.code, answer.sentence) == (code, sentence)
    assert desk.heard == [("failed", boom)]


def test_who_removed_what_is_told_to_the_outputs():
    desk = Desk()
    desk.add(point("a"), point("b"), point("c"))
    desk.image(1)
    desk.put(Remove(["b", "nobody", "a"], desk.answers.put))
    desk.put(Reset(desk.answers.put))
    desk.image(2)
    answers = [desk.answer() for _ in range(3)]
    assert answers[1].sentence == "not tracked: nobody; tracked: c" and answers[1].unknown_ids == ("nobody",)
    assert desk.heard == [("gone", ["a"]), ("gone", ["b"]), ("gone", None)]
    desk.put(Remove(["a"], desk.answers.put))
    desk.pending.serve(desk.tracker)
    assert desk.answer().sentence == "not tracked: a; tracked: nothing"


@pytest.mark.parametrize("length", [2, 3])
def test_as_many_headers_are_kept_as_the_history_is_long(length):
    desk = Desk(history_frames=length)
    for stamp_ns in (10, 20, 30, 40):
        desk.image(stamp_ns)
    assert list(desk.pending._headers) == [10, 20, 30, 40][-length:]


def test_a_stamp_that_comes_twice_is_as_new_as_its_second_image():
    desk = Desk(history_frames=2)
    for stamp_ns, header in ((10, "old"), (20, ""), (10, "again")):
        desk.image(stamp_ns, header)
    desk.add(point("a", stamp=10))
    desk.image(11)
    assert desk.answer().headers == ("again",)


def test_names_of_new_objects_pass_over_those_that_are_taken():
    """By what is tracked, and by what waits to be."""
    desk = Desk()
    desk.add(point("object_1"))
    desk.image(1)
    desk.answer()
    desk.add(point("object_2", stamp=9))
    desk.add(point(""), point("mine"), point(""))
    desk.image(2)
    assert desk.answer().object_ids == ("object_3", "mine", "object_4")


def test_names_for_many_new_objects_do_not_cost_the_square_of_their_number(monkeypatch):
    desk, looked, ids = Desk(), [], Add.object_ids.fget
    monkeypatch.setattr(Add, "object_ids", property(lambda add: looked.append(add) or ids(add)))
    desk.tracker = FakeTracker(max_objects=200)
    desk.add(*[point("")] * 200)
    desk.image(1)
    assert len(set(desk.answer().object_ids)) == 200 and len(looked) < 10


def test_an_answer_that_cannot_be_delivered_costs_nobody_theirs_at_the_end():
    desk = Desk()
    desk.add(point("a"), reply=lambda answer: 1 / 0)
    desk.add(point("b"))
    desk.pending.close([Remove(["c"], desk.answers.put)])
    assert [desk.answer().code for _ in range(2)] == [Code.STOPPING] * 2
    assert [(name, type(error)) for name, error in desk.heard] == [("failed", ZeroDivisionError)]
    assert desk.pending.waiting == []


def test_when_something_was_asked_is_known():
    before_ns = time.monotonic_ns()
    assert before_ns <= Reset(print).asked_ns <= time.monotonic_ns()


def test_what_is_carried_out_is_given_up_no_more_and_what_is_answered_not_begun():
    answers = []
    begun, given_up = Reset(answers.append), Reset(answers.append)
    assert begun.begin()
    begun.give_up(Code.STOPPING, "too late")
    given_up.give_up(Code.STOPPING, "in time")
    assert not given_up.begin() and [answer.sentence for answer in answers] == ["in time"]
    given_up.give_up(Code.STOPPING, "twice")
    begun.answer(Code.OK)
    assert [answer.code for answer in answers] == [Code.STOPPING, Code.OK]
