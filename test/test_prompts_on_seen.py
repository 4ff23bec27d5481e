"""Prompts on images that came, while no other comes: a bag that pauses, a camera that is triggered."""

import queue
from types import SimpleNamespace

import pytest
from bench import names, point
from fakes import FakeTracker
from test_pipeline_inside import Line

import sam2
from sam2_ros import pending_requests
from sam2_ros import pipeline as pipeline_module
from sam2_ros.requests import Add, Code, Remove, Reset

S = 10**9
WAIT_S = 2.0


class Still(Line):
    """Its prompts wait for `WAIT_S`, and `wait` is when they have."""

    def __init__(self, clock, tracker=None, **settings):
        super().__init__(tracker, **settings)
        self.clock = clock

    def add(self, *prompts, **more):
        deadline_ns = self.clock.ns + int(WAIT_S * S)
        self.mailbox.post_request(Add(list(prompts), deadline_ns, self.answers.put, **more))

    def wait(self):
        self.turn()
        self.clock.ns += int(WAIT_S * S)
        self.turn()

    def codes(self):
        found = []
        while True:
            try:
                found.append(self.answers.get_nowait().code)
            except queue.Empty:
                return found


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(ns=1000 * S)
    for module in (pipeline_module, pending_requests):
        monkeypatch.setattr(module.time, "monotonic_ns", lambda: clock.ns)
        monkeypatch.setattr(module.time, "monotonic", lambda: clock.ns / S)
    return clock


def test_when_no_other_image_has_come_in_time_the_newest_result_is_published_again(clock):
    """With everything that is tracked, and with the same image."""
    line = Still(clock)
    line.add(point("a"))
    line.step(4)
    line.answers.get_nowait()
    assert line.step(5) == ["a"]
    line.add(point("cup", stamp=4))
    line.turn()
    clock.ns += int(WAIT_S * S) - 1
    line.turn()
    assert len(line.results) == 2 and line.pipeline.patience_s(3600.0) == pytest.approx(1e-9)
    clock.ns += 1
    line.turn()
    answer = line.answers.get_nowait()
    assert (answer.code, answer.object_ids, answer.labels, answer.headers) == (Code.OK, ("cup",), (2,), ("header 4",))
    assert names(line.results[2]) == ["a", "cup"] and line.results[2][:2] == line.results[1][:2]
    line.turn()
    assert len(line.results) == 3 and line.pipeline.patience_s(3600.0) == 3600.0


def test_an_image_that_comes_in_time_is_what_the_prompt_is_carried_out_with(clock):
    line = Still(clock)
    line.step(4)
    line.add(point("cup", stamp=4))
    line.turn()
    clock.ns += int(WAIT_S * S)
    assert line.step(5) == ["cup"] and "prompt" not in line.pipeline.tracker.calls


def test_a_result_that_is_published_again_counts_once(clock):
    """Rates and ages are those of images."""
    line = Still(clock)
    line.step(5)
    before = vars(line.counters).copy()
    ages_ns = list(line.counters.ages_ns)
    line.add(point("cup", stamp=5))
    line.wait()
    assert line.codes() == [Code.OK] and len(line.results) == 2
    assert vars(line.counters) == before and list(line.counters.ages_ns) == ages_ns


@pytest.mark.parametrize(("more", "code"), [({}, Code.NO_IMAGE), (dict(newest_will_do=True), Code.OK)])
def test_without_a_stamp_the_next_image_is_meant_unless_somebody_has_seen_the_newest(clock, more, code):
    line = Still(clock)
    line.step(4)
    line.step(5)
    line.add(point("cup"), **more)
    line.wait()
    answer = line.answers.get_nowait()
    assert answer.code is code
    if code is Code.OK:
        assert answer.headers == ("header 5",)
    else:
        assert answer.sentence.startswith("no image has come since") and "with the stamp of an image" in answer.sentence


def test_before_the_first_image_nobody_has_seen_one(clock):
    line = Still(clock)
    line.add(point("cup"), newest_will_do=True)
    line.wait()
    assert line.codes() == [Code.NO_IMAGE] and "prompt" not in line.pipeline.tracker.calls


@pytest.mark.parametrize("change", [dict(new_stream=True), dict(size_hw=(64, 64))], ids=["jump", "size"])
def test_what_was_seen_before_a_new_stream_is_forgotten(clock, change):
    """Even if its first image fails."""
    line = Still(clock, FakeTracker(raise_on={"step": [None, RuntimeError("boom")]}))
    line.step(5)
    line.image(6, **change)
    line.turn()
    line.add(point("cup", stamp=5))
    line.add(point("mug"), newest_will_do=True)
    line.wait()
    assert line.codes() == [Code.NO_IMAGE] * 2 and "prompt" not in line.pipeline.tracker.calls


def test_what_is_gone_is_not_published_again(clock):
    line = Still(clock)
    line.add(point("a"), point("b"))
    line.step(5)
    line.mailbox.post_request(Remove(["a"], line.answers.put))
    line.add(point("cup", stamp=5))
    line.wait()
    assert names(line.results[-1]) == ["cup", "b"], "by rising label"
    line.mailbox.post_request(Reset(line.answers.put))
    line.add(point("mug", stamp=5))
    line.wait()
    assert names(line.results[-1]) == ["mug"]


def test_an_error_is_answered_and_costs_neither_image_nor_object(clock):
    line = Still(clock, FakeTracker(raise_on={"prompt": [RuntimeError("boom")]}), max_failures=1)
    line.add(point("a"))
    line.step(5)
    line.answers.get_nowait()
    line.add(point("cup", stamp=5))
    line.wait()
    answer = line.answers.get_nowait()
    assert answer.code is Code.INTERNAL and "boom" in answer.sentence
    assert line.counters.failures == {"prompt: RuntimeError": 1} and line.counters.failures_in_a_row == 0
    assert len(line.results) == 1 and line.step(6) == ["a"]


def test_a_device_that_is_lost_is_answered_and_raised(clock):
    line = Still(clock, FakeTracker(raise_on={"prompt": sam2.DeviceLost("gone")}))
    line.step(5)
    line.add(point("cup", stamp=5))
    with pytest.raises(sam2.DeviceLost):
        line.wait()
    assert line.codes() == [Code.INTERNAL]


def test_of_a_request_of_which_one_prompt_needs_the_next_image_none_is_carried_out(clock):
    line = Still(clock)
    line.step(5)
    line.add(point("cup", stamp=5), point("mug"))
    line.wait()
    assert line.codes() == [Code.NO_IMAGE] and "prompt" not in line.pipeline.tracker.calls


def test_what_is_stopping_carries_out_no_prompt_any_more(clock):
    line = Still(clock)
    line.step(5)
    line.add(point("cup", stamp=5))
    line.pipeline.stopping = True
    line.wait()
    assert len(line.codes()) == 1 and "prompt" not in line.pipeline.tracker.calls


def test_behind_a_prompt_that_still_waits_for_its_image_nobody_waits_longer_than_agreed(clock):
    """Its own wait may be longer, if the setting has changed in between."""
    line = Still(clock)
    line.step(5)
    line.mailbox.post_request(Add([point("cup", stamp=9)], clock.ns + 60 * S, line.answers.put))
    line.add(point("cup", stamp=5))
    line.wait()
    assert line.codes() == [Code.NO_IMAGE] and line.pipeline.patience_s(3600.0) == pytest.approx(58.0)


@pytest.mark.parametrize("image", [False, True], ids=["no other image", "an image just then"])
def test_prompts_for_one_object_that_are_due_at_the_same_time_are_carried_out_one_after_the_other(clock, image):
    """As if each had been given after the answer to the one before; so is what waits in between."""
    line = Still(clock)
    line.step(5)
    line.add(point("cup", stamp=5))
    line.mailbox.post_request(Remove(["cup"], line.answers.put))
    line.add(point("cup", stamp=5))
    line.add(point("cup", stamp=5, xy=(9, 9)))
    if image:
        line.turn()
        clock.ns += int(WAIT_S * S)
        line.step(6)
    else:
        line.wait()
    assert line.codes() == [Code.OK] * 4 and names(line.results[-1]) == ["cup"]
    assert [prompt.points_xy for prompt in line.pipeline.tracker.prompted] == [[(30, 20)], [(30, 20)], [(9, 9)]]
    assert {result[1].stamp_ns for result in line.results[1:]} == {6 if image else 5}
    assert line.counters.busy_since_ns == 0


def test_a_prompt_that_was_held_when_its_image_came_is_carried_out_on_it(clock):
    """Without a stamp it means the next image, and that has come."""
    line = Still(clock)
    for _ in range(3):
        line.add(point("cup"))
    line.turn()
    clock.ns += int(WAIT_S * S)
    line.image(5, arrived_ns=clock.ns)
    line.turn()
    assert line.codes() == [Code.OK] * 3
    line.add(point("cup"))
    line.wait()
    assert line.codes() == [Code.NO_IMAGE], "after which none has come"


@pytest.mark.parametrize("in_between", [[], [Reset]])
def test_what_is_held_by_a_prompt_whose_image_does_not_come_is_carried_out(clock, in_between):
    """Its own image has come: it must not be told that none has."""
    line = Still(clock)
    line.step(5)
    line.add(point("cup", stamp=9))
    for kind in in_between:
        line.mailbox.post_request(kind(line.answers.put))
    line.add(point("mug" if in_between else "cup"))
    line.image(6, arrived_ns=clock.ns + 1)
    line.turn()
    line.wait()
    assert line.codes() == [Code.STALE, *[Code.OK] * (1 + len(in_between))]
    assert names(line.results[-1]) == ["mug" if in_between else "cup"] and line.results[-1][1].stamp_ns == 6


def test_while_nobody_wants_results_nothing_is_published_again(clock):
    """For prompts that waited when the node was disabled, and those of its detector also when it was deactivated."""
    line = Still(clock)
    line.step(5)
    line.add(point("cup", stamp=5))
    line.closed = Code.NOT_ACTIVE, "disabled"
    line.wait()
    answer = line.answers.get_nowait()
    assert answer.code is Code.NO_IMAGE and answer.sentence.endswith("; disabled")
    assert len(line.results) == 1 and not line.pipeline.tracker.object_ids


def test_the_network_is_busy_meanwhile(clock):
    """So that one that hangs is noticed."""
    line, busy = Still(clock), []
    line.step(5)
    original = line.pipeline.tracker.prompt

    def prompt(*args, **kwargs):
        busy.append(line.counters.busy_since_ns)
        return original(*args, **kwargs)

    line.pipeline.tracker.prompt = prompt
    line.add(point("cup", stamp=5))
    line.wait()
    assert busy == [clock.ns] and line.counters.busy_since_ns == 0


def test_of_late_prompts_every_image_that_is_gone_through_again_is_progress(clock):
    """They may take many images' time, in which no image takes long and nothing hangs."""
    line, seen = Still(clock), []
    note_progress = line.pipeline._note_progress

    def progressed():
        note_progress()
        assert line.pipeline.turn_since_ns == line.counters.busy_since_ns == clock.ns
        seen.append(clock.ns)
        clock.ns += 6 * S

    line.pipeline._note_progress = progressed
    for stamp in (5, 6, 7):
        line.step(stamp)
    for go_on in (lambda: line.step(8), line.wait):
        line.add(point("cup", stamp=6))
        go_on()
    assert len(seen) == 2 + 3
