"""Random sequences of images, prompts, removals, resets, failures and lifecycles through one camera's pipeline, without
threads and without ROS, against what must be true of any of them.

The model of the expected state is made of the answers alone: what was answered OK has happened, in the order of the
answers, and nothing else has. What drops all objects (a clock jump, another size, a failure) is told in the log.
"""

import time
from types import SimpleNamespace

import numpy as np
from fakes import FakeOutputs, FakeTracker, image_like
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import sam2
from sam2_ros.auto_prompt import AutoPrompt
from sam2_ros.health import Counters
from sam2_ros.mailbox import Arrival, Mailbox
from sam2_ros.params import Settings
from sam2_ros.pipeline import Pipeline
from sam2_ros.requests import Add, Code, Remove, Request, Reset

IDS = st.sampled_from(["", "a", "b", "c", "d"])
PLACES = st.sampled_from([5.0, 5.0, 63.0, 64.0, -1.0])
QUEUE, OBJECTS, HISTORY = 6, 3, 4
BROKEN = SimpleNamespace(format="jpeg", data=b"\xff\xd8\xff\xd9", header="broken")
FAILURES = [RuntimeError("boom"), sam2.OutOfMemory("full"), KeyError("what"), sam2.BadInput("odd")]


class LaneMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.settings, self.counters = Settings(prompt_queue=QUEUE, max_failures=2, history_frames=HISTORY), Counters()
        self.expected: list[str] = []  # ids that are tracked
        self.answers: dict[Request, list] = {}
        self.published: list[int] = []
        self.now = 0
        self.begin()

    def begin(self) -> None:
        """configure"""
        self.tracker = FakeTracker(max_objects=OBJECTS, history=HISTORY)
        self.mailbox = Mailbox(QUEUE)
        quiet = lambda sentence: None  # noqa: E731
        log = SimpleNamespace(info=quiet, warning=quiet, error=quiet)
        self.counters.count_reset = self.told
        auto = AutoPrompt(self.settings, self.counters, lambda object_id, stamp, answer: None)
        self.pipeline = Pipeline(self.mailbox, self.settings, self.counters, FakeOutputs(self.publish), auto, log)
        self.pipeline.tracker = self.tracker
        self.expected, self.jumped = [], False

    def told(self, cause: str, now_ns: int) -> None:
        """Of a reset."""
        self.expected = []
        if cause == "clock jump":
            self.jumped = False

    def publish(self, header, frame, tracks) -> bool:
        assert header == frame.stamp_ns
        self.published.append(self.counters.received)
        return True

    def ask(self, make) -> None:
        """Posts a request and keeps the model by its answer."""

        def reply(answer) -> None:
            assert answer.sentence or answer.code is Code.OK
            self.answers[request].append(answer)
            if isinstance(request, Remove) and answer.code in (Code.OK, Code.UNKNOWN_OBJECT):
                self.expected = [name for name in self.expected if name not in request.object_ids]
                assert not set(answer.object_ids) & set(self.expected)
            elif isinstance(request, Reset) and answer.code is Code.OK:
                self.expected = []
            elif isinstance(request, Add) and answer.code is Code.OK:
                assert len(answer.object_ids) == len(request.prompts) == len(set(answer.object_ids))
                assert all(answer.labels) and all(answer.object_ids)
                self.expected += [name for name in answer.object_ids if name not in self.expected]

        request = make(reply)
        self.answers[request] = []
        self.mailbox.post_request(request)

    @rule(names=st.lists(IDS, max_size=3, unique=True), age=st.sampled_from([None, None, 0, 2, 6, -1, -2]), x=PLACES)
    def add(self, names, age, x):
        """On the next image, on one before, on one to come; inside and outside."""
        stamp = 0 if age is None else max(self.now - age, 0)
        prompts = [sam2.Prompt(name, points_xy=[(x, 9)], labels=[1], stamp_ns=stamp) for name in names]
        self.ask(lambda reply: Add(prompts, time.monotonic_ns() + 3600 * 10**9, reply))

    @rule(name=IDS)
    def add_and_see_it_done(self, name):
        self.ask(lambda reply: Add([sam2.Prompt(name, [(5, 5)], [1])], time.monotonic_ns() + 3600 * 10**9, reply))
        self.image(False, (48, 64))
        self.turn()

    @rule(name=IDS, age=st.sampled_from([None, 0, 2, 6, -1]), is_seen=st.booleans())
    def add_that_waits_for_no_further_image(self, name, age, is_seen):
        stamp = 0 if age is None else max(self.now - age, 0)
        prompt = sam2.Prompt(name, [(5, 5)], [1], stamp_ns=stamp)
        self.ask(lambda reply: Add([prompt], time.monotonic_ns() - 1, reply, newest_will_do=is_seen))

    @rule(names=st.lists(IDS.filter(bool), max_size=3))
    def remove(self, names):
        self.ask(lambda reply: Remove(names, reply))

    @rule()
    def reset(self):
        self.ask(Reset)

    @rule(jump=st.sampled_from([False, False, True]), size_hw=st.sampled_from([(48, 64)] * 5 + [(64, 64)]))
    def image(self, jump, size_hw):
        self.now = 1 if jump else self.now + 1
        message = image_like(np.zeros((*size_hw, 3), np.uint8), "rgb8")
        message.header = self.now
        self.post(message, jump)

    @rule(jump=st.booleans())
    def broken_image(self, jump):
        self.now = 1 if jump else self.now + 1
        self.post(BROKEN, jump)

    def post(self, message, jump: bool) -> None:
        self.jumped |= jump
        self.counters.receive_image(0, 1)
        self.counters.dropped += self.mailbox.post_image(Arrival(message, self.now, time.monotonic_ns(), jump))

    @rule(method=st.sampled_from(["step", "prompt", "check", "remove"]), error=st.sampled_from(FAILURES))
    def failure(self, method, error):
        self.tracker.raise_on[method] = [error]

    @rule()
    def turn(self):
        """What the worker does when the bell rings."""
        before, answered = len(self.published), sum(map(len, self.answers.values()))
        arrival, frame = self.pipeline.take()
        assert arrival is None or not self.jumped  # whatever became of the image that brought the news
        self.pipeline.turn(arrival, frame)
        again = sum(map(len, self.answers.values())) - answered  # at most, for prompts on images that were seen
        assert len(self.published) - before <= (frame is not None) + again

    @rule()
    def somebody_loses_patience(self):
        for request in list(self.answers)[-2:]:
            if not request.answered:
                request.answer(Code.INTERNAL, "the network hangs")

    @rule(queue=st.just(QUEUE), failures=st.integers(1, 3))
    def live_settings(self, queue, failures):
        self.settings = Settings(prompt_queue=queue, max_failures=failures, history_frames=HISTORY)
        self.pipeline.settings = self.settings

    @rule()
    def deactivate(self):
        self.counters.ignored += self.mailbox.discard_image()

    @precondition(lambda self: self.answers)
    @rule()
    def whole_lifecycle(self):
        """cleanup and configure: everybody is answered, and nobody later than that."""
        self.counters.ignored += self.mailbox.discard_image()
        self.pipeline.close()
        assert all(len(answers) == 1 for answers in self.answers.values())
        self.ask(Reset)
        assert [answer.code for answer in self.answers.popitem()[1]] == [Code.STOPPING]
        self.begin()

    @invariant()
    def what_is_tracked_is_what_was_answered(self):
        assert self.tracker.object_ids == self.expected
        assert len(self.tracker.object_ids) <= OBJECTS

    @invariant()
    def nobody_is_answered_twice_and_few_wait(self):
        assert all(len(answers) <= 1 for answers in self.answers.values())
        assert sum(not answers for answers in self.answers.values()) <= QUEUE
        assert len(self.pipeline._pending._headers) <= HISTORY

    @invariant()
    def every_image_has_a_fate(self):
        c = self.counters
        known = (
            c.processed
            + c.dropped
            + c.ignored
            + sum(c.refused.values())
            + sum(n for kind, n in c.failures.items() if kind.startswith(("step: ", "image: ")))
        )
        waiting = self.mailbox._arrival is not None
        assert c.received == known + waiting

    def teardown(self):
        self.pipeline.close()
        assert all(len(answers) == 1 for answers in self.answers.values())


TestLane = LaneMachine.TestCase
# The same sequences every time, as for the node: what fails here can be repeated.
TestLane.settings = settings(max_examples=150, stateful_step_count=40, derandomize=True)
