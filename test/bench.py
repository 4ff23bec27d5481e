"""A worker on its own thread with queues where the node would be, for tests of the worker and of pending requests."""

import queue
import time
from types import SimpleNamespace

import numpy as np
from fakes import FakeOutputs, FakeTracker, image_like

import sam2
from sam2_ros.auto_prompt import AutoPrompt
from sam2_ros.counters import Counters
from sam2_ros.image_source import ImageSource
from sam2_ros.mailbox import Arrival, Mailbox
from sam2_ros.params import Settings
from sam2_ros.pipeline import Pipeline
from sam2_ros.requests import Add
from sam2_ros.worker import Worker

PATIENCE_S = 30.0  # a test that waits this long has failed


class Bench:
    """A worker on its own thread, with queues where the node would be."""

    def __init__(self, tracker=None, load=None, settings=None, publish=None, idle=None):
        self.tracker = tracker or FakeTracker()
        self.counters, self.settings = Counters(), settings or Settings()
        self.mailbox = Mailbox(self.settings.prompt_queue)
        self.outputs, self.answers, self.phases = queue.Queue(), queue.Queue(), queue.Queue()
        self.logged = []
        note = lambda sentence: self.logged.append(sentence)  # noqa: E731
        log = SimpleNamespace(info=note, warning=note, error=note)
        publish = publish or (lambda *result: self.outputs.put(result) or True)
        self.auto = AutoPrompt(self.settings, self.counters, lambda object_id, stamp, answer: self.answers.put(answer))
        outputs = FakeOutputs(publish, idle=idle or (lambda: None))
        self.pipeline = Pipeline(self.mailbox, self.settings, self.counters, outputs, self.auto, log)
        self.worker = Worker(
            load or (lambda: self.tracker), [self.pipeline], lambda: self.phases.put(self.worker.phase), log
        )

    def __enter__(self):
        self.worker.start()
        return self

    def __exit__(self, *_):
        if getattr(self.tracker, "gate", None) is not None:
            self.tracker.gate.set()
        assert self.worker.stop(PATIENCE_S)

    def image(self, n, new_stream=False, size_hw=(48, 64)):
        msg = image_like(np.full((*size_hw, 3), n % 256, np.uint8), "rgb8")
        msg.header = f"header {n}"
        self.mailbox.post_image(Arrival(msg, n, time.monotonic_ns(), new_stream))

    def step(self, n, **kwargs):
        """Posts an image and waits for its result."""
        self.image(n, **kwargs)
        while True:
            result = self.outputs.get(timeout=PATIENCE_S)
            if result[1].stamp_ns == n:
                return result

    def add(self, *prompts, wait_s=PATIENCE_S):
        deadline_ns = time.monotonic_ns() + int(wait_s * 1e9)
        self.mailbox.post_request(Add(list(prompts), deadline_ns, self.answers.put))

    def ask(self, kind, *args):
        self.mailbox.post_request(kind(*args, self.answers.put))

    def answer(self):
        return self.answers.get(timeout=PATIENCE_S)


def seen(**fields):
    """Counters and an image source with these fields."""
    source = {name: fields.pop(name) for name in ImageSource.__dataclass_fields__ if name in fields}
    return Counters(**fields), ImageSource(**source)


def point(name="", stamp=0, xy=(30, 20), **more):
    return sam2.Prompt(name, points_xy=[xy], labels=[1], stamp_ns=stamp, **more)


def names(result):
    return [track.object_id for track in result[2]]
