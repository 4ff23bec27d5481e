"""The camera's faults, off stuck garbage wrong slow delayed intermittent: the schedule, and the worker under it."""

import numpy as np
import pytest
from bench import Bench, names, point
from fakes import FAULT_KINDS, FakeTracker, Fault, FaultSchedule, faulty, image_like
from small_stream import SIZE_HW, click, small_model

import sam2
from sam2_ros.mailbox import Arrival
from sam2_ros.requests import Code

FIRST, LAST, IMAGES = 10, 20, 40


def clean():
    return [sam2.Frame(np.full((48, 64, 3), n, np.uint8), n + 1) for n in range(IMAGES)]


def one(kind, seed=0):
    return FaultSchedule(seed, [Fault(FIRST, LAST, kind)])


def stamps(frames):
    return [frame.stamp_ns for frame in frames]


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_a_fault_ends_and_keeps_the_order(kind):
    frames = list(faulty(clean(), one(kind)))
    assert stamps(frames) == sorted(set(stamps(frames)))
    for frame in frames:
        outside = not FIRST <= frame.stamp_ns - 1 < LAST
        assert (frame.rgb == frame.stamp_ns - 1).all() or not outside
    assert {*range(1, FIRST + 1), *range(LAST + 1, IMAGES + 1)} <= set(stamps(frames))


def test_each_kind_is_what_it_is_called():
    frames = {kind: list(faulty(clean(), one(kind))) for kind in FAULT_KINDS}
    inside = {
        kind: [frame.rgb for frame in stream if FIRST <= frame.stamp_ns - 1 < LAST] for kind, stream in frames.items()
    }
    assert len(inside["off"]) == 0 and len(inside["slow"]) == 1 and 0 < len(inside["intermittent"]) < 10
    assert len(inside["stuck"]) == 10 and all((rgb == FIRST - 1).all() for rgb in inside["stuck"])
    assert all(rgb.std() > 60 for rgb in inside["garbage"])
    assert [int(rgb[0, 0, 0]) for rgb in inside["wrong"]] == list(range(FIRST, LAST))  # one colour has no upside
    schedule = one("delayed")
    come = [len(schedule.apply(n, frame)) for n, frame in enumerate(clean())]
    assert come == [1] * FIRST + [0] * 10 + [11] + [1] * (IMAGES - LAST - 1)


def test_a_wrong_picture_is_upside_down_with_its_channels_swapped():
    rgb = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    (frame,) = one("wrong").apply(FIRST, sam2.Frame(rgb, 1))
    assert np.array_equal(frame.rgb[0, 0], rgb[1, 1, ::-1])


def test_the_same_seed_gives_the_same_faults_and_another_seed_others():
    def drawn(seed):
        schedule = FaultSchedule.drawn(seed, 1000, every=50, longest=20)
        frames = [sam2.Frame(np.zeros((2, 2, 3), np.uint8), n) for n in range(1000)]
        return schedule.faults, [(f.stamp_ns, f.rgb.tobytes()) for f in faulty(frames, schedule)]

    assert drawn(3) == drawn(3) and drawn(3) != drawn(4)
    faults = drawn(3)[0]
    assert all(50 * n <= fault.first < fault.last <= 50 * (n + 1) for n, fault in enumerate(faults))
    assert {fault.kind for fault in faults} == set(FAULT_KINDS)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_the_worker_comes_through_and_the_object_too(kind):
    """Every image that reaches the worker has one result, in order; afterwards all is as before."""
    tracker = FakeTracker()
    with Bench(tracker) as bench:
        bench.add(point("a"))
        given, got = [], []
        for frame in faulty(clean(), one(kind)):
            message = image_like(frame.rgb, "rgb8")
            message.header = frame.stamp_ns
            bench.mailbox.post_image(Arrival(message, frame.stamp_ns, 0))
            given.append(frame.stamp_ns)
            header, seen, tracks = bench.outputs.get(timeout=30)
            got.append(header)
            assert [track.object_id for track in tracks] == ["a"] and np.array_equal(seen.rgb, frame.rgb)
        assert bench.answer().code is Code.OK
        assert got == given and bench.counters.processed == len(given) and not bench.counters.failures
        assert names(bench.step(1000)) == ["a"]


PICTURES = {
    "noise": np.random.RandomState(0).randint(0, 256, (*SIZE_HW, 3)).astype(np.uint8),
    "black": np.zeros((*SIZE_HW, 3), np.uint8),
    "white": np.full((*SIZE_HW, 3), 255, np.uint8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_garbage_pictures_give_finite_answers(name):
    """With the real layers: nothing that is not a number comes out, and the object is still there afterwards."""
    tracker = sam2.Tracker(small_model())
    frames = [sam2.Frame(PICTURES[name], n + 1) for n in range(6)]
    for n, frame in enumerate(frames):
        (track,) = tracker.step(frame, [click("a")] if n == 0 else [])
        assert np.isfinite(track.low_res_logits).all()
        assert np.isfinite([track.object_score, track.presence, track.predicted_iou]).all()
    assert tracker.object_ids == ["a"]
