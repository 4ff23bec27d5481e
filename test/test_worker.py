"""The worker with a fake tracker: errors, overload, new streams and stop. No ROS, no torch, no sleeping for luck."""

import queue
import threading
import time
from types import SimpleNamespace

import cv2
import pytest
from bench import PATIENCE_S, Bench, names, point
from fakes import FakeTracker

import sam2
from sam2_ros import image_in
from sam2_ros.mailbox import Arrival
from sam2_ros.params import Settings
from sam2_ros.requests import Add, Code, Remove
from sam2_ros.worker import Phase


def test_an_image_comes_out_as_it_went_in_with_no_object_too():
    with Bench() as bench:
        header, frame, tracks = bench.step(7)
        assert (header, frame.stamp_ns, frame.rgb[0, 0, 0], tracks) == ("header 7", 7, 7, [])


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(new_stream=True), "the clock jumped: all objects are reset"),
        (dict(size_hw=(64, 64)), "the image size changed from (48, 64) to (64, 64): all objects are reset"),
    ],
)
def test_a_new_stream_or_size_resets_once_and_the_image_is_processed(change, said):
    with Bench() as bench:
        bench.add(point("a"))
        bench.step(1)
        assert names(bench.step(2, **change)) == []
        bench.step(3, size_hw=change.get("size_hw", (48, 64)))
        assert sum(bench.counters.resets.values()) == 1
        assert bench.tracker.calls.count("reset") == 1
        assert [said in sentence for sentence in bench.logged] == [True]


def test_a_clock_that_jumps_with_every_image_is_told_once_and_counted():
    with Bench() as bench:
        for n in range(1, 5):
            bench.step(n, new_stream=True)
        assert bench.counters.resets["clock jump"] == 4
        assert sum("the clock jumped" in sentence for sentence in bench.logged) == 1


def test_objects_are_gone_even_if_the_reset_fails():
    with Bench(FakeTracker(raise_on={"reset": [RuntimeError("odd")]})) as bench:
        bench.add(point("a"))
        bench.step(1)
        assert names(bench.step(2, new_stream=True)) == []
        assert names(bench.step(3)) == []
        assert bench.counters.failures == {"reset: RuntimeError": 1}


def test_a_broken_file_costs_its_image_only():
    with Bench() as bench:
        cut = SimpleNamespace(format="jpeg", data=b"\xff\xd8garbage\xff\xd9", header="cut")
        bench.mailbox.post_image(Arrival(cut, 1, 0))
        bench.add(point("a"), wait_s=0.05)
        assert bench.answer().code is Code.NO_IMAGE
        assert names(bench.step(2)) == []
        assert bench.counters.refused == {"decode": 1}


@pytest.mark.parametrize("error", [MemoryError("full"), ValueError("odd"), cv2.error("internal")])
def test_whatever_a_conversion_raises_costs_its_image_only(error, monkeypatch):
    with Bench() as bench:
        bench.add(point("a"))
        bench.step(1)
        with monkeypatch.context() as patch:
            patch.setattr(image_in, "to_rgb", lambda message: (_ for _ in ()).throw(error))
            bench.image(2)
            bench.ask(Remove, ["nobody"])
            assert [bench.answer().code for _ in range(2)] == [Code.OK, Code.UNKNOWN_OBJECT]
        assert bench.counters.failures_in_a_row == 1  # the diagnostics tell
        assert names(bench.step(3)) == ["a"]
        assert bench.counters.failures == {f"image: {type(error).__name__}": 1} and bench.counters.processed == 2


def test_an_image_that_is_lost_before_the_network_is_told():
    """Whatever the rest of a turn raises: objects are kept, and the diagnostics say that nothing comes out."""
    with Bench() as bench:
        bench.add(point("a"))
        bench.step(1)
        turns, requests = queue.Queue(), bench.auto.requests
        bench.auto.requests = lambda *_: turns.put(bench.counters.failures_in_a_row) or 1 / 0
        for n in range(3):
            bench.image(2 + n)
            assert turns.get(timeout=PATIENCE_S) == n
        bench.auto.requests = requests
        assert names(bench.step(9)) == ["a"] and bench.counters.failures_in_a_row == 0


def test_an_answer_that_cannot_be_delivered_costs_nobody_else_anything():
    """A reply that raises, as a publisher does whose context is gone: before the image, and after it."""
    with Bench() as bench:
        bench.mailbox.post_request(Remove(["nobody"], lambda answer: 1 / 0))
        bench.mailbox.post_request(Add([point("a")], time.monotonic_ns() + 10**10, lambda answer: 1 / 0))
        bench.add(point("b"))
        # At the latest with the image after the one the error was in.
        assert ["a", "b"] in [names(bench.step(1)), names(bench.step(1))]
        assert bench.answer().code is Code.OK
        assert bench.counters.failures == {"request: ZeroDivisionError": 2}


def test_a_new_stream_that_begins_with_a_broken_file_begins_all_the_same():
    with Bench() as bench:
        bench.add(point("a"))
        bench.step(1)
        cut = SimpleNamespace(format="jpeg", data=b"\xff\xd8garbage\xff\xd9", header="cut")
        bench.mailbox.post_image(Arrival(cut, 1, 0, new_stream=True))
        bench.ask(Remove, ["nobody"])
        assert [bench.answer().code for _ in range(2)] == [Code.OK, Code.UNKNOWN_OBJECT]
        assert names(bench.step(2)) == [] and bench.counters.resets == {"clock jump": 1}


def test_out_of_memory_costs_the_image_and_keeps_the_objects():
    tracker = FakeTracker(raise_on={"step": [None, sam2.OutOfMemory("3 GB short")]})
    with Bench(tracker) as bench:
        bench.add(point("a"))
        bench.step(1)
        bench.answer()
        bench.add(point("b"))
        bench.image(2)
        answer = bench.answer()
        assert answer.code is Code.INTERNAL and "3 GB short" in answer.sentence
        assert names(bench.step(3)) == ["a"]
        assert bench.counters.failures == {"step: OutOfMemory": 1} and bench.counters.resets == {}


def test_whatever_is_raised_after_the_step_its_requests_are_answered():
    with Bench() as bench:
        bench.auto.remember = lambda *_, **__: 1 / 0
        bench.add(point("a"))
        bench.image(1)
        answer = bench.answer()
        assert answer.code is Code.INTERNAL and "not known" in answer.sentence


@pytest.mark.parametrize("error", [sam2.OutOfMemory("full"), RuntimeError("odd")])
def test_a_step_that_fails_for_ever_drops_the_objects_and_the_thread_lives(error):
    tracker = FakeTracker()
    with Bench(tracker, settings=Settings(max_failures=3)) as bench:
        bench.add(point("a"))
        bench.step(1)
        assert bench.answer().code is Code.OK
        tracker.raise_on["step"] = [error] * 3
        for n in range(3):
            assert tracker.object_ids == ["a"]
            bench.add(point(f"x{n}"))
            bench.image(2 + n)
            assert bench.answer().code is Code.INTERNAL
        assert names(bench.step(9)) == []
        assert bench.counters.resets == {"failure": 1}


@pytest.mark.parametrize("method", ["step", "check", "remove"])
@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyError("boom"), AssertionError(), ZeroDivisionError()])
def test_an_unknown_error_in_any_method_is_answered_counted_logged_once_and_survived(method, error):
    tracker = FakeTracker()
    with Bench(tracker) as bench:
        bench.add(point("a"))
        bench.step(1)
        bench.answer()
        tracker.raise_on[method] = [error, error]
        for n in range(2):
            if method in ("step", "check"):
                bench.add(point("b"))
                bench.image(2 + n)
            else:
                bench.ask(Remove, ["a"])
            assert bench.answer().code is Code.INTERNAL
        bench.add(point("c"))
        assert {"a", "c"} <= set(names(bench.step(9)))  # what fails has changed nothing
        assert sum(bench.counters.failures.values()) == 2
        assert sum("Traceback" in line for line in bench.logged) == 1


def test_an_error_while_publishing_is_counted_and_the_next_image_goes_out():
    calls = []

    def publish(*result):
        calls.append(result[0])
        if len(calls) == 1:
            raise RuntimeError("publisher")
        bench.outputs.put(result)

    with Bench(publish=publish) as bench:
        bench.add(point("a"))
        bench.image(1)
        bench.answer()
        bench.step(2)
        assert bench.counters.failures == {"publish: RuntimeError": 1}


def test_a_lost_device_ends_the_worker_and_answers_everybody():
    tracker = FakeTracker(raise_on={"step": sam2.DeviceLost("the GPU is gone")})
    with Bench(tracker) as bench:
        assert bench.phases.get(timeout=PATIENCE_S) is Phase.READY
        assert "loaded a fake on no device in" in bench.worker.sentence
        bench.add(point("a"))
        bench.add(point("later", stamp=99))
        bench.image(1)
        assert {bench.answer().code for _ in range(2)} == {Code.INTERNAL, Code.STOPPING}
        assert bench.phases.get(timeout=PATIENCE_S) is Phase.DEVICE_LOST
        assert "the GPU is gone" in bench.worker.sentence


@pytest.mark.parametrize("error", [sam2.BadCheckpoint("no such file"), RuntimeError("what?"), MemoryError()])
def test_a_model_that_does_not_load_is_said_and_nobody_waits(error):
    def load():
        raise error

    with Bench(load=load) as bench:
        bench.add(point("a"))
        assert bench.phases.get(timeout=PATIENCE_S) is Phase.FAILED
        assert str(error) in bench.worker.sentence
        assert bench.answer().code is Code.STOPPING


def test_a_worker_that_ends_in_a_way_nobody_thought_of_says_so():
    class Hopeless(FakeTracker):
        def sibling(self):
            raise sam2.OutOfMemory("no room for another")

    with Bench(Hopeless(raise_on={"reset": RuntimeError("odd")})) as bench:
        bench.step(1)
        bench.add(point("late", stamp=99))  # waits for its image
        bench.image(2, new_stream=True)
        assert bench.answer().code is Code.STOPPING
        assert [bench.phases.get(timeout=PATIENCE_S) for _ in range(2)] == [Phase.READY, Phase.FAILED]
        assert "has ended" in bench.worker.sentence and "no room for another" in bench.worker.sentence
        assert not bench.worker.can_serve and any("Traceback" in sentence for sentence in bench.logged)


def test_an_object_the_network_has_no_answer_for_is_invalid_for_that_image_only():
    with Bench(FakeTracker(nan_on=1)) as bench:
        bench.add(point("a"))
        states = [bench.step(n + 1)[2][0].state for n in range(3)]
        assert states == [sam2.State.VISIBLE, sam2.State.INVALID, sam2.State.VISIBLE]


def test_what_waits_for_its_depth_is_looked_after_between_images():
    looked = queue.Queue()
    with Bench(idle=lambda: looked.put(1)) as bench:
        bench.mailbox.wake()
        assert looked.get(timeout=PATIENCE_S)


def test_settings_can_be_changed_while_it_runs():
    with Bench(FakeTracker(delay=0.02), settings=Settings(max_age_s=60.0)) as bench:
        bench.step(1)
        bench.pipeline.settings = Settings(max_age_s=0.001)
        bench.step(2)
        bench.step(3)  # the second is counted by now
        assert bench.counters.late_in_a_row >= 1


def test_under_overload_the_newest_image_wins():
    gate = threading.Event()
    with Bench(FakeTracker(gate=gate)) as bench:
        bench.image(1)
        assert bench.tracker.stepping.wait(PATIENCE_S)
        for n in range(2, 50):
            bench.image(n)
        gate.set()
        assert [bench.outputs.get(timeout=PATIENCE_S)[1].stamp_ns for _ in range(2)] == [1, 49]


def test_stopping_answers_everybody_and_does_not_wait_for_images():
    with Bench() as bench:
        bench.add(point("a"))
        bench.add(point("b", stamp=99))
    assert [bench.answer().code for _ in range(2)] == [Code.STOPPING] * 2


def test_a_worker_that_hangs_is_given_up_in_time():
    gate = threading.Event()
    with Bench(FakeTracker(gate=gate)) as bench:
        bench.image(1)
        assert bench.tracker.stepping.wait(PATIENCE_S)
        assert not bench.worker.stop(0.05)
        gate.set()
