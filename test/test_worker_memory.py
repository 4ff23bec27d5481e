"""What the worker keeps of the images that went through it; what the tracker keeps is the subject of test_flat.py."""

import gc
import weakref

import numpy as np
from bench import Bench, point
from fakes import FakeTracker

from sam2_ros.hand_off import Detection
from sam2_ros.params import Settings


def test_of_hundreds_of_images_few_are_kept():
    kept = []

    def publish(header, frame, tracks):
        kept.extend((weakref.ref(frame), weakref.ref(frame.rgb)))
        bench.outputs.put(((), frame, ()))

    with Bench(publish=publish, settings=Settings(history_frames=5)) as bench:
        post = bench.mailbox.post_image
        bench.mailbox.post_image = lambda arrival: kept.append(weakref.ref(arrival.message.data)) or post(arrival)
        bench.add(point("a"))
        for n in range(1, 301):
            bench.step(n)
        gc.collect()
        alive = [ref for ref in kept if ref() is not None]
        assert len(kept) == 900 and len(alive) <= 6  # the last one, and the one before it while it is let go
        assert len(bench.worker._pipelines[0]._pending._headers) == 5 and len(bench.auto._results) <= 5


def test_the_tracker_goes_when_the_worker_ends():
    """Not when the garbage collector comes by: what it holds of a GPU is wanted."""
    made = []

    def load():
        made.append(weakref.ref(tracker := FakeTracker()))
        return tracker

    gc.disable()
    try:
        with Bench(load=load) as bench:
            bench.step(1)
        assert made[0]() is None
    finally:
        gc.enable()


def test_the_last_results_go_with_the_worker():
    """Likewise: sixteen masks of 3840x2160 pixels are 133 MB, and a node that was cleaned up may wait for hours."""
    gc.disable()
    try:
        with Bench(settings=Settings(detector_confirm=1)) as bench:
            bench.add(point("a"))
            bench.auto.post(0, [])  # there is a detector
            bench.step(1)
            bench.auto.post(1, [Detection(np.array([44, 14, 56, 26], np.float32))])
            _, frame, tracks = bench.step(2)
            kept = [weakref.ref(frame), *(weakref.ref(track.mask) for track in tracks), weakref.ref(bench.auto)]
            assert [bench.answer().object_ids for _ in range(2)] == [("a",), ("object_1",)]
        bench.pipeline = bench.worker = bench.auto = bench.tracker = frame = tracks = None
        bench.outputs.queue.clear()
        assert [ref() for ref in kept] == [None] * 4
    finally:
        gc.enable()
