"""What the worker keeps of the images that went through it; what the tracker keeps is the subject of test_flat.py."""

import gc
import weakref

from bench import Bench, point
from fakes import FakeTracker

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
