"""A worker whose rounds are run by the test: whose turn it is, what is loaded for whom, what is told, and the end."""

import threading
from types import SimpleNamespace

import pytest
from bench import Bench, point
from fakes import FakeTracker

import sam2
from sam2_ros import worker as worker_module
from sam2_ros.mailbox import Mailbox
from sam2_ros.worker import IDLE_S, Phase, Worker


class Lane:
    """Where the worker would have a pipeline. taken: what it hands out; turn: called instead of one."""

    def __init__(self, bell, name, frame=None, turn=lambda: None):
        self.mailbox, self.name, self.frame, self.turned = Mailbox(4, bell), name, frame, turn
        self.stopping, self.turns, self.closed, self.turn_since_ns = False, [], 0, 0

    def patience_s(self, longest_s):
        return longest_s

    def take(self):
        return ("arrival", self.frame) if self.frame else (None, None)

    def note_waiting(self):
        pass

    def turn(self, arrival, frame):
        self.turns.append((arrival, frame))
        self.turned()

    def close(self):
        self.closed += 1


@pytest.fixture
def make(monkeypatch):
    """A function that makes a worker and its lanes; `told` are phases that were told, `reserved` counts."""
    monkeypatch.setattr(worker_module.heap, "reserve", lambda: made.reserved.append(1))
    made = SimpleNamespace(told=[], logged=[], reserved=[])

    def make(*lanes, load=FakeTracker):
        bell = threading.Condition()
        made.lanes = [Lane(bell, f"{number}", **lane) for number, lane in enumerate(lanes or ({},))]
        log = SimpleNamespace(error=made.logged.append)
        made.worker = Worker(load, made.lanes, lambda: made.told.append(made.worker.phase), log)
        return made

    return make


class Warmed(FakeTracker):
    def sibling(self):
        return Warmed()

    def warm_up(self):
        self.calls.append("warm_up")


def test_each_camera_has_a_tracker_of_its_own_that_is_warm_and_the_first_is_the_one_that_was_loaded(make):
    first = Warmed()
    made = make({}, {}, {}, load=lambda: first)
    assert made.worker._start() and made.told == [Phase.READY]
    trackers = [lane.tracker for lane in made.lanes]
    assert trackers[0] is first and len(set(map(id, trackers))) == 3
    assert [tracker.calls for tracker in trackers] == [["warm_up"]] * 3


@pytest.mark.parametrize(("device", "count"), [("cpu", 1), ("cuda", 0)])
def test_memory_is_reserved_where_the_network_computes_in_it(make, device, count):
    tracker = FakeTracker()
    tracker.model = SimpleNamespace(description="a fake", device=SimpleNamespace(type=device))
    made = make({}, {}, load=lambda: tracker)
    assert made.worker._start() and len(made.reserved) == count


@pytest.mark.parametrize(
    ("error", "phase", "traces"),
    [
        (sam2.DeviceLost("the GPU is gone"), Phase.DEVICE_LOST, 0), (sam2.BadInput("no such model"), Phase.FAILED, 0),
        (RuntimeError("odd"), Phase.FAILED, 1),
    ],
)  # fmt: skip
def test_a_loading_that_failed_says_what_it_was_and_only_the_unknown_with_its_trace(make, error, phase, traces):
    def load():
        raise error

    made = make(load=load)
    assert not made.worker._start() and made.told == [phase] and not made.worker.can_serve
    assert made.worker.sentence == f"cannot load the model: {error}" and len(made.logged) == traces


def test_nobody_is_told_of_a_worker_that_was_stopped(make):
    """Whoever stopped it may be gone."""
    made = make()
    assert made.worker.can_serve and not made.worker.is_stopping
    assert made.worker.stop(0.0), "a thread that was never started has ended"
    assert made.worker.is_stopping and not made.worker.can_serve
    assert made.worker._start() and made.told == [] and made.worker.phase is Phase.READY
    assert not made.worker.can_serve
    assert made.lanes[0].stopping and made.lanes[0].mailbox.has_work


def test_in_a_round_each_camera_has_one_turn_whose_beginning_is_known(make):
    made = make(dict(frame="a"), {}, dict(frame="c"))
    made.worker._round()
    assert [lane.turns for lane in made.lanes] == [[("arrival", "a")], [(None, None)], [("arrival", "c")]]
    for lane in made.lanes:
        lane.turn_since_ns = 7
        assert made.worker.turn_since_ns == 7
        lane.turn_since_ns = 0


@pytest.mark.parametrize("is_together", [False, True])
def test_who_is_stopped_in_a_turn_begins_no_other(make, is_together):
    made = make(dict(frame="a", turn=lambda: made.worker.stop(0.0)), dict(frame="b"))
    for lane in made.lanes:
        lane.tracker = SimpleNamespace(encode_together=lambda pairs: None)
    (made.worker._round_together if is_together else made.worker._round)()
    assert [len(lane.turns) for lane in made.lanes] == [1, 0]


def test_only_images_of_several_cameras_are_encoded_together(make):
    pairs = []
    for frames, expected in (((None, "b"), []), (("a", "b"), ["a", "b"]), ((None, None), [])):
        made = make(*(dict(frame=frame) for frame in frames))
        for lane in made.lanes:
            lane.tracker = SimpleNamespace(name=lane.name, encode_together=pairs.extend)
        pairs.clear()
        made.worker._round_together()
        assert [frame for _, frame in pairs] == expected
        assert [lane.turns[0][1] for lane in made.lanes] == list(frames)
        assert all(tracker is lane.tracker for (tracker, _), lane in zip(pairs, made.lanes, strict=False))


def test_a_device_that_is_lost_while_images_are_encoded_together_is_lost(make):
    def lose(pairs):
        raise sam2.DeviceLost("gone")

    made = make(dict(frame="a"), dict(frame="b"))
    for lane in made.lanes:
        lane.tracker = SimpleNamespace(encode_together=lose, batched=True)
    made.lanes[0].mailbox.wake()
    made.worker._serve()
    assert made.told == [Phase.DEVICE_LOST] and made.worker.sentence == "gone; the process must be started again"
    assert not any(lane.turns for lane in made.lanes)


@pytest.mark.parametrize(("count", "is_batched", "is_together"), [(1, True, False), (2, True, True), (2, False, False)])
def test_who_has_several_cameras_on_a_device_that_likes_batches_encodes_them_together(
    make, count, is_batched, is_together
):
    made = make(*[{}] * count)
    for lane in made.lanes:
        lane.tracker = SimpleNamespace(batched=is_batched)
    made.worker._stopping.set()
    made.worker._serve()
    assert made.worker._together == is_together


def test_it_sleeps_until_the_first_deadline_of_any_camera_and_then_waits_for_work(make, monkeypatch):
    made, slept = make({}, {}), []
    for lane, patience_s in zip(made.lanes, (7.0, 3.0), strict=True):
        lane.tracker = SimpleNamespace(batched=False)
        lane.patience_s = lambda longest_s, mine=patience_s: min(mine, longest_s)

    def wait(mailboxes, timeout_s):
        slept.append(timeout_s)
        if len(slept) == 2:
            made.worker.stop(0.0)

    monkeypatch.setattr(worker_module, "wait_for_any", wait)
    made.worker._serve()
    assert slept == [3.0, 3.0] and IDLE_S > 60


def test_in_the_end_everybody_is_answered_and_no_tracker_is_held(make, monkeypatch):
    """What is on the device goes at once, whoever still knows the pipelines."""
    emptied = []
    made = make({}, {})
    monkeypatch.setattr(
        worker_module.sam2, "empty_cache", lambda: emptied.append([hasattr(lane, "tracker") for lane in made.lanes])
    )
    monkeypatch.setattr(worker_module, "wait_for_any", lambda mailboxes, timeout_s: 1 / 0)
    made.worker._run()
    assert [lane.closed for lane in made.lanes] == [1, 1] and emptied == [[False, False]]
    assert made.told == [Phase.READY, Phase.FAILED] and "ZeroDivisionError" in made.worker.sentence
    assert "Traceback" in made.logged[0]


@pytest.mark.parametrize("is_loading", [True, False])
def test_whatever_ends_it_the_node_hears_of_it(make, monkeypatch, is_loading):
    """A panic of a Rust library, as safetensors, is no Exception; nor is what sys.exit raises."""

    class Panic(BaseException):
        pass

    def panic(*_):
        raise Panic("index out of range")

    made = make(load=panic if is_loading else FakeTracker)
    monkeypatch.setattr(made.lanes[0], "turn", panic)
    made.lanes[0].mailbox.wake()
    made.worker._run()
    assert made.worker.phase is Phase.FAILED and "index out of range" in made.worker.sentence
    assert made.told[-1] is Phase.FAILED and any("Traceback" in sentence for sentence in made.logged)


def test_only_while_it_waits_for_work_it_is_in_no_turn(monkeypatch):
    """With a real pipeline, through images and a request: otherwise a node at rest is said to hang."""
    waits, steps = [], []
    wait = worker_module.wait_for_any
    monkeypatch.setattr(
        worker_module, "wait_for_any", lambda *args: waits.append(bench.worker.turn_since_ns) or wait(*args)
    )

    class Timed(FakeTracker):
        def step(self, *args, **kwargs):
            steps.append(bench.worker.turn_since_ns)
            return super().step(*args, **kwargs)

    bench = Bench(Timed())
    with bench:
        bench.step(1)
        bench.add(point("a"))
        bench.step(2)
        bench.answer()
        bench.step(3)
    assert len(waits) >= 3 and not any(waits) and len(steps) == 3 and all(steps)
