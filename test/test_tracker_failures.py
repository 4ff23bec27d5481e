"""A step that fails leaves no trace."""

from functools import cache

import pytest
import torch
from golden_mutations import around
from small_stream import assert_same, click, disc, fork, frame, made_on, run, small_model, stamp

import sam2
from sam2 import device, frame_step, tracker
from sam2.history import History
from sam2.live_objects import LiveObjects
from sam2.memory_bank import MemoryBank
from sam2.memory_store import MemoryStore
from sam2.model import SAM2
from sam2.tracked_object import TrackedObject

STAGES = [
    (frame_step, "to_model_input"),
    (SAM2, "encode_image"),
    (History, "add"),
    (SAM2, "attend"),
    (SAM2, "decode"),
    (SAM2, "select"),
    (SAM2, "segment_mask"),
    (SAM2, "encode_memory"),
    (frame_step, "fill_small_holes"),
    (MemoryStore, "take_row"),
    (MemoryStore, "copy_row"),
    (MemoryStore, "gather"),
    (MemoryStore, "write"),
    (MemoryBank, "remember"),
    (MemoryBank, "remember_prompted"),
    (TrackedObject, "record"),
    (tracker, "track_of"),
]
LIMITS = sam2.Limits(prompted_memories=2, max_objects=5)
BUSY = [  # frame 8: with late and timely prompts, a memory that has to go, an object started over, new ones
    made_on(5, click("a", 40, 30, 0)),
    click("a", 60, 9),
    disc("b", 20, 20, mode=sam2.PromptMode.REPLACE),
    click("new", 9, 9),
    made_on(6, click("newer", 70, 40)),
]


@cache
def started() -> sam2.Tracker:
    """After frame 7; only forks of it go on."""
    stream = sam2.Tracker(small_model(), LIMITS, sticky_corrections=True)
    prompts = {0: [click("a"), disc("b", 50, 30)], 2: [click("a", 22, 16)], 4: [click("a", 9, 9, 0)]}
    run(stream, range(8), prompts)
    return stream


def continued(stream: sam2.Tracker) -> list[list[sam2.Track]]:
    """Frames that show whatever may have been left behind: memories, labels, rows, the history."""
    return run(stream, range(8, 11), {8: [click("next", 30, 30), made_on(2, click("b", 70, 40, 0))]})


@cache
def undisturbed() -> list[list[sam2.Track]]:
    return continued(fork(started()))


def fail(monkeypatch, stage: tuple, at_call: int, error: BaseException) -> list[int]:
    """Lets a stage raise when it has done its work for the `at_call`th time; returns how often it was called."""
    calls = [0]

    def raising(original, *args, **kwargs):
        result = original(*args, **kwargs)
        calls[0] += 1
        if calls[0] == at_call:
            raise error
        return result

    around(monkeypatch, *stage, raising)
    return calls


def disturbed(monkeypatch, stage: tuple, at_call: int, error: BaseException, expected=None) -> list[list[sam2.Track]]:
    stream = fork(started())
    with monkeypatch.context() as patch:
        fail(patch, stage, at_call, error)
        with pytest.raises(expected or type(error)):
            stream.step(frame(8), BUSY)
    assert stream.object_ids == ["a", "b"]
    return continued(stream)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage[1])
def test_failed_step_changes_nothing(stage, monkeypatch):
    stream = fork(started())
    with monkeypatch.context() as patch:
        calls = fail(patch, stage, 0, None)
        stream.step(frame(8), BUSY)
    assert calls[0] > 0
    for at_call in {1, calls[0]}:
        assert_same(disturbed(monkeypatch, stage, at_call, RuntimeError("broken")), undisturbed())


def test_tracks_that_are_not_accepted_change_nothing():
    stream, seen = fork(started()), []

    def refuse(tracks):
        seen.extend(tracks)
        raise sam2.BadInput("not these")

    with pytest.raises(sam2.BadInput, match="not these"):
        stream.step(frame(8), BUSY, accept=refuse)
    assert [track.object_id for track in seen] == ["a", "b", "newer", "new"] and stream.object_ids == ["a", "b"]
    assert_same(continued(stream), undisturbed())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), sam2.OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), sam2.OutOfMemory),
        (RuntimeError("could not create a primitive"), sam2.OutOfMemory),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), sam2.OutOfMemory),
        (RuntimeError("CUDA driver error: out of memory"), sam2.OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), sam2.OutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), sam2.DeviceLost),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["gpu memory", "cpu memory", "kernel", "context", "driver", "library", "device", "interrupt"],
)
def test_whatever_the_error(error, expected, monkeypatch):
    assert_same(disturbed(monkeypatch, (MemoryStore, "write"), 4, error, expected), undisturbed())


def test_a_lost_gpu_does_not_keep_its_worker_from_ending(monkeypatch):
    def lost():
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lost)
    sam2.empty_cache()


def test_an_error_of_a_gpu_that_still_works_does_not_end_the_process(monkeypatch):
    """Such as a torch without kernels for it: a new process would fail the same way, for ever."""
    monkeypatch.setattr(device, "_answers", lambda place: True)
    error = RuntimeError("CUDA error: no kernel image is available for execution on the device")
    assert_same(disturbed(monkeypatch, (MemoryStore, "write"), 4, error), undisturbed())


@pytest.mark.parametrize(
    ("owner", "name", "mistake"),
    [
        (MemoryStore, "restore_row", lambda self, row, copy: None),
        (TrackedObject, "copy", lambda self: self),
        (MemoryBank, "copy", lambda self: self),
    ],
    ids=["memories", "objects", "banks"],
)
def test_trace_is_caught(owner, name, mistake, monkeypatch):
    monkeypatch.setattr(owner, name, mistake)
    with pytest.raises((AssertionError, sam2.BadInput)):  # other numbers, or an object with another past
        assert_same(disturbed(monkeypatch, (tracker, "track_of"), 1, RuntimeError("broken")), undisturbed())


def test_failed_step_gives_its_labels_back(monkeypatch):
    monkeypatch.setattr(LiveObjects, "roll_back", lambda self, snapshot: labels.append(snapshot.next_label))
    labels = []
    with pytest.raises(AssertionError):
        disturbed(monkeypatch, (tracker, "track_of"), 1, RuntimeError("broken"))
    assert labels == [started()._objects._next_label] == [3]


def after_a_failed_frame_from_the_future(monkeypatch) -> list[list[sam2.Track]]:
    """Its stamp would have made every kept image too old."""
    stream = fork(started())
    with monkeypatch.context() as patch:
        fail(patch, (SAM2, "attend"), 1, RuntimeError("broken"))
        with pytest.raises(RuntimeError):
            stream.step(sam2.Frame(frame(8).rgb, stamp(1000)))
    return continued(stream)


def test_failed_frame_costs_no_history(monkeypatch):
    assert_same(after_a_failed_frame_from_the_future(monkeypatch), undisturbed())


def test_lost_history_is_caught(monkeypatch):
    monkeypatch.setattr(History, "withdraw", lambda self, index: self._moments.pop())
    with pytest.raises(sam2.Stale):
        after_a_failed_frame_from_the_future(monkeypatch)


def test_a_new_object_needs_a_point_on_it():
    stream, nowhere = sam2.Tracker(small_model()), click("a", 9, 9, 0)
    over = sam2.Prompt("a", [(9, 9)], [0], mode=sam2.PromptMode.REPLACE)
    for prompt in (nowhere, over):
        with pytest.raises(sam2.BadInput, match="'a': an object begins with a point that is on it"):
            stream.step(frame(0), [prompt])
    stream.step(frame(0), [click("a"), nowhere])
    with pytest.raises(sam2.BadInput, match="begins with a point that is on it"):
        stream.check(over)


def test_after_a_frame_that_failed_no_prompt_is_applied_to_what_that_has_overwritten():
    streams = [sam2.Tracker(small_model(), sam2.Limits(history_frames=3)) for _ in range(2)]
    for stream in streams:
        run(stream, range(5), {0: [click("a")]})
    with pytest.raises(ZeroDivisionError):
        streams[1].step(frame(5), accept=lambda tracks: 1 / 0)
    with pytest.raises(sam2.Stale, match=f"{stamp(3)} to {stamp(4)} ns, got {stamp(2)}"):
        streams[1].prompt([made_on(2, click("new", 30, 20))])
    assert_same(*([stream.prompt([made_on(3, click("new", 30, 20))])] for stream in streams))
