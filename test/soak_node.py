"""The real node process with random failures of the network and a log of its memory: soak_node.py '{...}' --ros-args

The first argument is JSON: `memory`, the file that gets a line "tensors,their bytes,MB in use,Python's blocks" every
`every_s` seconds; `seed` and `one_in`: one image in `one_in` fails or is slow; `fake`: no network.
"""

import json
import random
import sys
import time

from fakes import FakeTracker
from proc_watch import in_use_mb

import sam2
from sam2_ros.main import main

SLOW_S = 1.0
INJECTED = "injected by the soak"  # the message of every injected failure


class Watched:
    """Wraps a tracker: makes random steps fail or take long, and logs the memory in use after a step."""

    def __init__(self, tracker, options: dict) -> None:
        self._tracker, self._options = tracker, options
        self._random, self._due = random.Random(options["seed"]), 0.0

    def __getattr__(self, name: str):
        return getattr(self._tracker, name)

    def step(self, frame, prompts=(), **more):
        if self._random.randrange(self._options["one_in"]) == 0:
            self._fail()
        tracks = self._tracker.step(frame, prompts, **more)
        if time.monotonic() >= self._due and not self._options.get("fake"):
            self._count()
        return tracks

    def _fail(self) -> None:
        kind = self._random.randrange(3)
        if kind == 0:
            raise sam2.OutOfMemory(INJECTED)
        if kind == 1:
            raise RuntimeError(INJECTED)
        time.sleep(SLOW_S)

    def _count(self) -> None:
        from small_stream import live_tensors

        number, size = live_tensors()
        with open(self._options["memory"], "a") as file:
            file.write(f"{number},{size},{in_use_mb()},{sys.getallocatedblocks()}\n")
        self._due = time.monotonic() + self._options["every_s"]


def make_tracker(settings):
    options = json.loads(sys.argv[1])
    if options.get("fake"):
        return Watched(FakeTracker(delay=0.05), options)
    from sam2_ros.load_tracker import load_tracker

    return Watched(load_tracker(settings), options)


if __name__ == "__main__":
    main(sys.argv[2:], make_tracker)
