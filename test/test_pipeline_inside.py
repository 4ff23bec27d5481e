"""One camera's pipeline turn by turn, without a thread: what is counted, told and handed on."""

import queue
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from bench import names, point
from fakes import FakeOutputs, FakeTracker, image_like

import sam2
from sam2_ros import pipeline as pipeline_module
from sam2_ros.auto_prompt import AutoPrompt
from sam2_ros.counters import Counters
from sam2_ros.mailbox import Arrival, Mailbox
from sam2_ros.params import Settings
from sam2_ros.pipeline import LOG_EVERY_S, Pipeline
from sam2_ros.requests import Add, Code, Remove, Reset, Restore

S = 10**9


class Line:
    """A pipeline with a tracker, and outputs that note; `turn` is what the worker does."""

    def __init__(self, tracker=None, **settings):
        self.settings, self.counters = Settings(**settings), Counters()
        self.mailbox, self.answers = Mailbox(self.settings.prompt_queue), queue.Queue()
        self.told, self.logged, self.results, self.is_open = [], [], [], True
        self.outputs = FakeOutputs(
            lambda *result: self.results.append(result) or self.is_open, lambda *what: self.told.append(what)
        )
        log = SimpleNamespace(info=self.logged.append, warning=self.logged.append, error=self.logged.append)
        self.auto = AutoPrompt(self.settings, self.counters, lambda *_: None)
        self.closed, self.why_none = None, ""
        self.pipeline = Pipeline(
            self.mailbox, self.settings, self.counters, self.outputs, self.auto, log,
            lambda: self.closed, lambda: self.why_none,
        )  # fmt: skip
        self.pipeline.tracker = tracker or FakeTracker()

    def image(self, stamp_ns, size_hw=(48, 64), new_stream=False, arrived_ns=0):
        msg = image_like(np.zeros((*size_hw, 3), np.uint8), "rgb8")
        msg.header = f"header {stamp_ns}"
        self.mailbox.post_image(Arrival(msg, stamp_ns, arrived_ns, new_stream))

    def add(self, *prompts, **more):
        self.mailbox.post_request(Add(list(prompts), 2**62, self.answers.put, **more))

    def turn(self):
        self.pipeline.turn(*self.pipeline.take())

    def step(self, stamp_ns, **image):
        self.image(stamp_ns, **image)
        self.turn()
        return names(self.results[-1])


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(ns=1000 * S)
    monkeypatch.setattr(pipeline_module.time, "monotonic_ns", lambda: clock.ns)
    monkeypatch.setattr(pipeline_module.time, "monotonic", lambda: clock.ns / S)
    return clock


def test_a_result_is_as_old_as_its_image_and_late_beyond_the_setting(clock):
    line = Line(max_age_s=2.0)
    for stamp, age_ns in enumerate((2 * S, 2 * S + 1), start=1):
        line.image(stamp, arrived_ns=clock.ns - age_ns)
        line.turn()
    assert list(line.counters.ages_ns) == [2 * S, 2 * S + 1] and line.counters.late_in_a_row == 1
    assert list(line.counters.outputs_ns) == [clock.ns] * 2 and line.counters.published == 2


def test_busy_is_known_from_the_image_that_is_taken_to_the_end_of_its_turn(clock):
    line, seen = Line(), []
    since_ns = lambda: (line.pipeline.turn_since_ns, line.counters.busy_since_ns)  # noqa: E731
    line.pipeline._turn = lambda arrival, frame: seen.append(since_ns())
    for image_ns in (0, clock.ns):
        taken = line.pipeline.take()
        assert since_ns() == (clock.ns, image_ns), "without an image only requests can take their time"
        line.pipeline.note_waiting()
        assert since_ns() == (0, 0), "others have their turns"
        line.pipeline.turn(*taken)
        assert seen.pop() == (clock.ns, image_ns) and since_ns() == (0, 0)
        line.image(1)
    line.pipeline.take()
    line.pipeline.close()
    assert since_ns() == (0, 0)


def test_a_result_that_is_held_back_is_no_output():
    line = Line()
    line.is_open = False
    line.step(1)
    assert (line.counters.processed, line.counters.withheld, line.counters.published) == (1, 1, 0)


def test_results_that_cannot_be_published_are_counted_until_one_is():
    line = Line()
    publish, line.outputs.publish = line.outputs.publish, lambda *_: 1 / 0
    for stamp in (1, 2):
        line.image(stamp)
        line.turn()
    assert (line.counters.unpublished_in_a_row, line.counters.processed, line.counters.published) == (2, 2, 0)
    line.outputs.publish = publish
    line.step(3)
    assert (line.counters.unpublished_in_a_row, line.counters.failures_in_a_row) == (0, 0)


def test_what_is_tracked_is_known_with_every_image_and_every_request():
    line = Line()
    line.add(point("a"), point("b"))
    line.step(1)
    assert line.outputs.newest.object_ids == ["a", "b"]
    line.mailbox.post_request(Remove(["a"], line.answers.put))
    line.turn()
    assert line.outputs.newest.object_ids == ["b"] and line.told[-1] == ("drop", ["a"])
    line.mailbox.post_request(Reset(line.answers.put))
    line.turn()
    assert line.outputs.newest.object_ids == [] and line.told[-1] == ("drop", None)


def test_the_outputs_hear_of_an_image_before_they_get_its_result():
    """Its depth must still be there then."""
    line = Line()
    line.step(7)
    assert line.told == [("begin", 7)] and line.results[0][1].stamp_ns == 7


def test_a_stream_begins_with_nothing_of_the_one_before(clock):
    """Objects, messages of a detector, headers: none belongs to it."""
    line = Line()
    line.add(point("a"))
    line.auto.post(5, [])
    line.step(10)
    assert line.auto._results and line.step(5, new_stream=True) == []
    assert ("drop", None) in line.told and not line.auto._waiting
    assert [stamp for stamp, _ in line.auto._results] == [5] and list(line.pipeline._pending._headers) == [5]
    assert line.counters.resets == {"clock jump": 1} and list(line.counters.resets_ns) == [clock.ns]


def test_a_size_that_changes_is_told_once_in_a_while_and_each_cause_for_itself(clock):
    line = Line()
    line.step(1)
    for passed_s, size_hw, more in ((0, (64, 64), 1), (LOG_EVERY_S - 1, (48, 64), 0), (1, (64, 64), 1)):
        clock.ns += int(passed_s * S)
        before = len(line.logged)
        line.step(2, size_hw=size_hw)
        assert len(line.logged) - before == more
    line.step(3, size_hw=(64, 64), new_stream=True)
    assert "the clock jumped" in line.logged[-1] and line.counters.resets == {"image size": 3, "clock jump": 1}
    line.step(1, size_hw=(48, 64), new_stream=True)
    assert line.counters.resets == {"image size": 3, "clock jump": 2}, "a new stream may have another size"


def test_who_is_too_much_is_found_among_requests_and_nobody_else_is_refused():
    line = Line(FakeTracker(max_objects=3))
    line.add(point("a"), point("b"))
    line.add(point("c"), point("d"))
    line.add(point("e"))
    assert line.step(1) == ["a", "b", "e"]
    answers = [line.answers.get_nowait() for _ in range(3)]
    assert [(answer.code, answer.object_ids) for answer in answers] == [
        (Code.LIMIT_REACHED, ()), (Code.OK, ("a", "b")), (Code.OK, ("e",)),
    ]  # fmt: skip


def test_where_each_alone_would_do_the_newest_is_refused():
    """The step itself finds a fault that no check does."""
    line = Line(FakeTracker(raise_on={"step": [sam2.BadInput("not these two")]}))
    line.add(point("a"))
    line.add(point("b"))
    assert line.step(1) == ["a"]
    answers = [line.answers.get_nowait() for _ in range(2)]
    assert [answer.code for answer in answers] == [Code.BAD_INPUT, Code.OK]
    assert "not these two" in answers[0].sentence


def test_a_fault_of_the_image_itself_is_nobodys_request():
    line = Line(FakeTracker(raise_on={"step": [sam2.BadInput("what an image")]}))
    line.image(1)
    line.turn()
    assert not line.results and line.counters.failures == {"step: BadInput": 1}
    assert line.counters.failures_in_a_row == 1


def test_a_lost_device_is_raised_and_its_requests_are_answered():
    line = Line(FakeTracker(raise_on={"step": sam2.DeviceLost("gone")}))
    line.add(point("a"))
    line.image(1)
    with pytest.raises(sam2.DeviceLost):
        line.turn()
    assert line.answers.get_nowait().sentence == "the image was lost: gone"
    assert line.counters.failures_in_a_row == 0 and not line.counters.failures, "the worker tells it"


def test_what_is_stopping_takes_no_image_and_tells_of_no_failure():
    """Publishers may be gone already; requests are answered all the same."""
    line = Line()
    line.outputs.idle = lambda: 1 / 0
    line.pipeline.stopping = True
    line.add(point("a"))
    line.image(1)
    assert line.pipeline.take() == (None, None)
    line.pipeline.turn(None, None)
    assert not line.counters.failures and not line.logged
    line.pipeline.close()
    line.add(point("b"))
    assert [line.answers.get_nowait().code for _ in range(2)] == [Code.STOPPING] * 2


def test_requests_that_wait_leave_no_room_for_others_until_they_are_answered():
    line = Line(prompt_queue=2)
    for name, stamp in (("a", 1), ("later", 9), ("too many", 1)):
        line.add(point(name, stamp=stamp))
    assert line.answers.get_nowait().code is Code.BUSY
    line.step(1)
    assert line.answers.get_nowait().object_ids == ("a",)
    line.add(point("b"))
    assert line.answers.empty(), "what is answered leaves its place"
    line.add(point("c"))
    assert line.answers.get_nowait().code is Code.BUSY, "one waits for its image, one for its turn"


def test_only_an_image_can_be_lost():
    line = Line()
    line.auto.requests = lambda *_: 1 / 0
    line.turn()
    assert line.counters.failures == {"turn: ZeroDivisionError": 1} and line.counters.failures_in_a_row == 0
    line.image(1)
    line.turn()
    assert line.counters.failures_in_a_row == 1


def test_what_was_seen_before_a_prompt_is_not_what_a_detector_is_measured_by():
    line = Line()
    line.auto.post(99, [])  # there is a detector
    line.step(1)
    line.step(2)
    assert [stamp for stamp, _ in line.auto._results] == [1, 2]
    line.add(point("a"))
    line.step(3)
    assert [stamp for stamp, _ in line.auto._results] == [3]


def test_what_waited_for_a_prompt_is_done_in_the_turn_of_that_prompt():
    line = Line()
    line.add(point("a"))
    line.mailbox.post_request(Remove(["a"], line.answers.put))
    line.step(1)
    assert [line.answers.get_nowait().code for _ in range(2)] == [Code.OK] * 2
    assert line.pipeline.tracker.object_ids == []


def restored(line):
    """After an image with `a`: `kept`, too, but no image has shown it."""
    line.add(point("a"))
    assert line.step(1) == ["a"]
    tracker = line.pipeline.tracker
    tracker.restore = lambda *_: tracker._objects.update(kept=replace(tracker._objects["a"], label=2)) or ["kept"]
    line.mailbox.post_request(Restore("x", [], 0.0, line.answers.put))
    line.turn()
    assert line.outputs.newest.object_ids == ["a", "kept"]
    return line


@pytest.mark.parametrize("change", [dict(new_stream=True), dict(size_hw=(30, 40))])
def test_what_is_restored_for_the_next_stream_is_not_dropped_with_the_last_one(change):
    line = restored(Line())
    assert line.step(1000, **change) == ["kept"]
    assert line.step(1001, **change | dict(new_stream=True)) == [], "what has seen an image is dropped"


def test_how_long_a_step_took_is_counted(clock):
    line = Line()
    step = line.pipeline.tracker.step

    def slow(*args, **kwargs):
        clock.ns += 3 * S
        return step(*args, **kwargs)

    line.pipeline.tracker.step = slow
    line.step(1)
    assert list(line.counters.steps_ns) == [3 * S]


def test_an_error_without_a_word_is_told_by_its_name():
    line = Line(FakeTracker(raise_on={"step": [MemoryError()]}))
    line.add(point("a"))
    line.image(1)
    line.turn()
    assert line.answers.get_nowait().sentence == "the image was lost: MemoryError"
