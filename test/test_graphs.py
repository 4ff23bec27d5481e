"""Captured steps: what is replayed, when, and that nothing leaks between runs.

The bookkeeping runs anywhere, with a graph made of plain calls on tensors that are kept, as a CUDA graph keeps them;
the CUDA graph itself needs a GPU.
"""

import gc
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from small_stream import click, run, small_model

from sam2 import Frame, Limits, OutOfMemory, Prompt, Tracker, frame_step, graphs, load_model
from sam2.graphs import AMONG, GRAPHS_KEPT, TIMES_SEEN, CudaGraph, Replayed
from sam2.memory_store import MemoryStore
from sam2.warm_up import warm_up


class PlainGraph:
    """Like a CUDA graph: own inputs, and outputs that the next replay overwrites."""

    made = 0

    def __init__(self, function, inputs):
        type(self).made += 1
        self._function, self._inputs = function, [x.clone() for x in inputs]
        self._outputs = [x.clone() for x in function(*self._inputs)]

    def __call__(self, inputs):
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        for mine, given in zip(self._outputs, self._function(*self._inputs), strict=True):
            mine.copy_(given)
        return tuple(x.clone() for x in self._outputs)


@pytest.fixture(autouse=True)
def count_anew():
    PlainGraph.made = 0


def double(x):
    return (x * 2,)


def test_a_shape_is_captured_when_it_has_come_often_enough_of_late():
    step = Replayed(double, PlainGraph)
    for _ in range(TIMES_SEEN):
        for size in range(10, 10 + AMONG // (TIMES_SEEN - 1) + 1):
            assert torch.equal(step(torch.ones(size))[0], torch.full((size,), 2.0))
    assert PlainGraph.made == 0, "shapes that come so seldom are not worth a graph"
    for number in range(TIMES_SEEN + 2):
        assert step(torch.full((2,), float(number)))[0].tolist() == [2.0 * number] * 2
        assert PlainGraph.made == (number + 1 >= TIMES_SEEN)


def test_an_answer_is_not_overwritten_by_the_next():
    step = Replayed(double, PlainGraph)
    answers = [step(torch.full((2,), float(number)))[0] for number in range(2 * TIMES_SEEN)]
    assert [a[0].item() for a in answers] == [2.0 * number for number in range(2 * TIMES_SEEN)]


def test_graphs_are_bounded_and_go_together():
    step = Replayed(double, PlainGraph)

    def come(size):
        for _ in range(TIMES_SEEN):
            step(torch.ones(size))

    for size in range(1, GRAPHS_KEPT + 1):
        come(size)
    assert PlainGraph.made == len(step._graphs) == GRAPHS_KEPT
    come(GRAPHS_KEPT + 1)
    assert len(step._graphs) == 1
    come(2)
    assert PlainGraph.made == GRAPHS_KEPT + 2 and len(step._graphs) == 2


def test_what_cannot_be_captured_runs_plainly_ever_after_and_says_so_once(caplog):
    def refuse(function, inputs):
        PlainGraph.made += 1
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    step = Replayed(double, refuse)
    for number in range(2 * TIMES_SEEN):
        assert step(torch.full((1,), float(number)))[0].item() == 2.0 * number
    assert PlainGraph.made == 1
    assert [r.message for r in caplog.records] == [
        "CUDA graphs are not used: operation not permitted when stream is capturing"
    ]


def play(frames: int) -> list:
    """A stream in which objects come, so that the memory's buffers grow and are replaced, and go."""
    limits = Limits(history_frames=2, recent_memories=2, pointers=3)  # soon full: then shapes stay
    tracker = Tracker(load_model("nano", device="cpu"), limits, batched=True)
    rng, got = np.random.default_rng(0), []
    for index in range(frames):
        prompts = [Prompt(f"{index}", box_xyxy=np.array([10, 10, 40, 30], np.float32))] if index in (0, 14, 16) else []
        if index == 32:
            tracker.remove("14")
        rgb = rng.integers(0, 255, (48, 64, 3), np.uint8)
        got += [(t.object_id, t.object_score, t.low_res_logits) for t in tracker.step(Frame(rgb, index + 1), prompts)]
    return got


def test_a_stream_through_graphs_is_bit_for_bit_the_stream(monkeypatch):
    expected = play(44)
    original = frame_step.Replayed
    monkeypatch.setattr(frame_step, "Replayed", lambda function, capture: original(function, PlainGraph))
    got = play(44)
    assert PlainGraph.made == 5, "encoding, looking, and tracking one, three and then two objects"
    for one, other in zip(expected, got, strict=True):
        assert one[:2] == other[:2] and np.array_equal(one[2], other[2])


def test_after_the_warm_up_a_full_memory_of_up_to_four_objects_is_replayed(monkeypatch):
    original = frame_step.Replayed
    monkeypatch.setattr(frame_step, "Replayed", lambda function, capture: original(function, PlainGraph))
    limits = Limits(history_frames=2, recent_memories=2, pointers=3)
    tracker = Tracker(load_model("nano", device="cpu"), limits, batched=True)
    warm_up(tracker, limits, captures=True)
    assert PlainGraph.made == 6, "encoding, looking, and tracking four objects, three, two, one"
    tracker.reset()
    shots = [Frame(np.zeros((48, 64, 3), np.uint8), index + 1) for index in range(8)]
    boxes = [Prompt(f"{index}", box_xyxy=np.array([10, 10, 40, 30], np.float32)) for index in range(3)]
    for shot in shots:
        tracker.step(shot, boxes if shot is shots[0] else [])
    assert PlainGraph.made == 6


def test_the_last_thing_the_warm_up_does_is_no_capture(monkeypatch):
    """Each empties torch's caches; the first image must not fill them again."""
    original, log = frame_step.Replayed, []
    monkeypatch.setattr(frame_step, "Replayed", lambda function, capture: original(function, PlainGraph))
    limits = Limits(history_frames=2, recent_memories=2, pointers=3)
    tracker = Tracker(load_model("nano", device="cpu"), limits, batched=True)
    step = tracker.step
    monkeypatch.setattr(
        tracker, "step", lambda frame, prompts=(): log.append((len(prompts), PlainGraph.made)) or step(frame, prompts)
    )
    warm_up(tracker, limits, captures=True)
    assert log[-2:] == [(1, 6), (0, 6)] and PlainGraph.made == 6


def test_graphs_of_memories_that_were_replaced_are_given_up(monkeypatch):
    """A second object takes more room than there is: a CUDA graph would go on with the old memories."""

    class Bound(PlainGraph):
        def __init__(self, function, inputs):
            super().__init__(function, inputs)
            self._store = next((arg for arg in getattr(function, "args", ()) if isinstance(arg, MemoryStore)), None)
            self._memories = self._store and self._store._spatial

        def __call__(self, inputs):
            assert self._store is None or self._store._spatial is self._memories
            return super().__call__(inputs)

    original = frame_step.Replayed
    monkeypatch.setattr(frame_step, "Replayed", lambda function, capture: original(function, Bound))
    tracker = Tracker(small_model(), Limits(history_frames=2, recent_memories=2, pointers=3))
    run(tracker, range(14), {0: [click("a")], 12: [click("b", 60, 30)]})
    assert Bound.made == 3, "encoding, looking, and tracking one object"
    run(tracker, range(14, 24))
    assert Bound.made == 4, "tracking is captured again"


@pytest.mark.parametrize("stage", ["the step", "the copies to undo it with"])
def test_out_of_memory_gives_the_graphs_back(monkeypatch, stage):
    original = frame_step.Replayed
    monkeypatch.setattr(frame_step, "Replayed", lambda function, capture: original(function, PlainGraph))
    tracker = Tracker(load_model("nano", device="cpu"))
    image = Frame(np.zeros((48, 64, 3), np.uint8))
    prompts = [Prompt("a", points_xy=[(9, 9)], labels=[1])]
    tracker.step(image, prompts)
    for _ in range(TIMES_SEEN):
        tracker.step(image)
    replayed = [tracker._network._encode, tracker._network._self_attend, tracker._network._track_and_remember]
    assert replayed[0]._graphs
    owner, name = (tracker, "_tracks") if stage == "the step" else (tracker._network.store, "copy_row")
    monkeypatch.setattr(owner, name, lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none left")))
    with pytest.raises(OutOfMemory):
        tracker.step(image, prompts)
    assert not any(one._graphs for one in replayed)


def test_what_is_on_the_device_goes_with_the_tracker():
    """At once, and not when the garbage collector comes by: the next model may need the room."""
    tracker = Tracker(load_model("nano", device="cpu"))
    tracker.step(Frame(np.zeros((48, 64, 3), np.uint8)), [Prompt("a", points_xy=[(9, 9)], labels=[1])])
    left = [weakref.ref(tracker.model), weakref.ref(tracker._network.store)]
    gc.collect()
    gc.disable()
    try:
        del tracker
        assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_replays_what_it_captured(monkeypatch):
    monkeypatch.setattr(graphs, "TIMES_SEEN", 1)
    with torch.inference_mode():
        weight = torch.randn(64, 64, device="cuda")
        step = Replayed(lambda x: (x @ weight,), partial(CudaGraph, stream=torch.cuda.Stream()))
        for _ in range(3):
            x = torch.randn(8, 64, device="cuda")
            assert torch.allclose(step(x)[0], x @ weight, atol=1e-5)
        assert step._graphs
