"""Each gate of the soak is shown to fail: a fault is planted, and the gate must see it and must be quiet without it."""

import mmap
import sys
import time
import types
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from bench import Bench, point
from fakes import FakeTracker, image_like
from gates import (
    Gate,
    drifts,
    grows,
    longest_silence,
    rises,
    slope,
    unaccounted,
    unpublished,
    wrong_pixels,
)
from proc_watch import Watch, in_use_mb
from soak_report import DRIFT_PERCENT_PER_MIN, MB_PER_MIN, unexpected_traces

from sam2_ros import health, heap
from sam2_ros.health import Situation
from sam2_ros.image_source import ImageSource
from sam2_ros.mailbox import Arrival, Mailbox
from sam2_ros.params import Settings
from sam2_ros.pipeline import Pipeline
from sam2_ros.requests import Remove

SHORT_RUN_MB_PER_MIN = 10.0  # a process that does other things, too; the leak is 60
LEAK_BYTES = 100_000
SMALL_MB = 100e-6  # more than most of Python's blocks have
IMAGES_PER_S = 10.0  # what a leak per image is converted to minutes with


class Leaky(FakeTracker):
    """Keeps something of every image."""

    def __init__(self, leak) -> None:
        super().__init__()
        self.leak, self.kept = leak, []

    def step(self, frame, prompts=(), **more):
        self.kept.append(self.leak())
        return super().step(frame, prompts, **more)


def on_the_heap():
    return np.ones(LEAK_BYTES, np.uint8)


def in_pages_of_its_own():
    pages = mmap.mmap(-1, LEAK_BYTES)
    pages.write(bytes(LEAK_BYTES))
    return pages


def in_small_objects():
    return [(number,) for number in range(1000)]


def nothing():
    pass


def gates_of_a_leak(leak) -> tuple[Gate, Gate, Gate]:
    """Of resident memory, of what is in use and of Python's blocks, in a process with a node's memory."""
    heap.keep_freed()
    heap.reserve()
    rss, in_use, blocks, watch = [], [], [], Watch("self")
    with Bench(Leaky(leak)) as bench:
        bench.add(point("a"))
        for n in range(1, 801):
            bench.step(n)
            rss.append(watch.read()["rss_mb"])
            in_use.append(in_use_mb())
            blocks.append(sys.getallocatedblocks() * SMALL_MB)
    times_s = np.arange(800) / IMAGES_PER_S
    return tuple(grows("memory", times_s, series, SHORT_RUN_MB_PER_MIN, "MB") for series in (rss, in_use, blocks))


@pytest.mark.skipif(np.isnan(in_use_mb()), reason="other C libraries do not say what is in use")
@pytest.mark.parametrize(
    "leak, kept",
    [
        (nothing, (True, True, True)),
        (on_the_heap, (True, False, True)),
        (in_pages_of_its_own, (False, True, True)),
        (in_small_objects, (False, True, False)),
    ],
)
def test_a_leak_of_100_kb_per_image(leak, kept):
    """What was reserved hides a leak on the heap from resident memory, not from what is in use. What is not on the heap
    is the other way round; of that, what Python allots to small objects is in its blocks."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        assert tuple(gate.is_kept for gate in process.submit(gates_of_a_leak, leak).result()) == kept


@pytest.mark.parametrize("percent, is_kept", [(0, True), (2, False)])
@pytest.mark.parametrize("seed", range(5))
def test_a_latency_that_drifts_by_two_percent_a_minute(percent, is_kept, seed):
    """Ages of an hour, with the scatter of a machine that does other things, too."""
    t = np.arange(0, 3600, 5.0)
    ages = 0.2 * np.random.default_rng(seed).lognormal(0, 0.3, len(t)) * (1 + percent / 100 * t / 60)
    assert drifts("age", t, ages, DRIFT_PERCENT_PER_MIN).is_kept is is_kept


def test_too_little_evidence_keeps_no_gate():
    assert not grows("memory", range(30), [100.0] * 30, 1.0, "MB").is_kept
    assert not rises("memory", range(70), [100.0] * 70, 1.0, "MB").is_kept
    assert not Gate("nothing", float("nan"), 1.0).is_kept


def test_a_slope_is_in_units_per_minute_with_an_interval_that_holds_it():
    t = np.arange(0, 600, 1.0)
    fit = slope(t, 5 + 3 * t / 60 + np.random.default_rng(0).normal(0, 1, len(t)))
    assert abs(fit.per_minute - 3) < fit.half_width < 0.2 and not fit.holds_zero


@pytest.mark.parametrize("mb_per_min, is_kept", [(0.0, True), (0.15, False)])
@pytest.mark.parametrize("seed", range(5))
def test_memory_that_grows_by_ten_megabytes_an_hour(mb_per_min, is_kept, seed):
    """A memory that only flickers by half a megabyte keeps the gate."""
    t = np.arange(0, 3600, 5.0)
    rss = 500 + np.random.default_rng(seed).normal(0, 0.5, len(t)) + mb_per_min * t / 60
    assert grows("memory", t, rss, MB_PER_MIN, "MB").is_kept is is_kept


@pytest.mark.parametrize("mb_per_min, is_kept", [(0.0, True), (0.15, False)])
@pytest.mark.parametrize("seed", range(5))
def test_what_comes_and_goes_does_not_hide_what_stays(mb_per_min, is_kept, seed):
    """For some minutes each there are none to two objects, of 15 MB, and kernels of 6 MB; before the first count there
    is none. A slope is lost in that."""
    t, random = np.arange(0, 3600, 5.0), np.random.default_rng(seed)
    objects, kernels = random.integers(0, 3, 30).repeat(24), random.integers(0, 2, 30).repeat(24)
    in_use = 200 + 15.0 * objects + 6 * kernels * (objects > 0) + mb_per_min * t / 60
    in_use[:10] = np.nan
    assert rises("memory", t, in_use, MB_PER_MIN, "MB").is_kept is is_kept
    assert not grows("memory", t, in_use, MB_PER_MIN, "MB").is_kept


def test_a_node_that_falls_silent():
    t = np.arange(0, 600, 5.0)
    results = np.full(len(t), 30.0)
    assert longest_silence(t, results, 60).is_kept
    results[40:60] = 0
    assert longest_silence(t, results, 60).value == 105
    results[100:] = 0  # and for good
    assert longest_silence(t, results, 60).value == 105
    assert not longest_silence(t, np.zeros(len(t)), 60).is_kept


def test_results_that_are_computed_and_not_published():
    assert unpublished({"processed": "30", "published": "28", "failed: publish: RCLError": "2"}).is_kept
    assert unpublished({"processed": "30", "published": "29", "withheld at deactivation": "1"}).is_kept
    assert not unpublished({"processed": "30", "published": "15"}).is_kept
    assert not unpublished({}).is_kept and not unaccounted({}).is_kept


def flooded(mailbox: Mailbox) -> Gate:
    """The most requests that waited, against the bound the node was given."""
    waiting = 0
    for n in range(200):
        mailbox.post_request(types.SimpleNamespace(answer=lambda *a: None, n=n))
        waiting = max(waiting, len(mailbox._requests))
    return Gate("waiting requests", waiting, mailbox.max_requests)


def test_a_prompt_list_without_a_bound(monkeypatch):
    assert flooded(Mailbox(8)).is_kept
    monkeypatch.setattr(Mailbox, "post_request", lambda self, request: self._requests.append(request))
    assert not flooded(Mailbox(8)).is_kept


def fates_after_a_failure() -> Gate:
    tracker = FakeTracker(raise_on={"step": [None, RuntimeError("boom"), None]})
    with Bench(tracker) as bench:
        for n in range(1, 4):
            bench.counters.receive_image(0, 1)
            bench.image(n)
            bench.ask(Remove, ["nobody"])
            bench.answer()  # so the worker has taken the image, too
    assert tracker.calls.count("step") == 3
    values = {}
    for finding in health.report(bench.counters, ImageSource(), Situation("active", "ready"), Settings(), 0):
        values |= finding.values
    return unaccounted(values)


def test_a_swallowed_exception(monkeypatch):
    assert fates_after_a_failure().is_kept
    monkeypatch.setattr(Pipeline, "_report_failure", lambda self, what, error: None)
    assert not fates_after_a_failure().is_kept


def test_a_traceback_that_nobody_planted():
    ours = "[ERROR] [1.0] [sam2]: step: RuntimeError: injected by the soak\nTraceback (most recent call last):\n  x\n"
    assert unexpected_traces("[INFO] [1.0] [sam2]: fine\n" + ours) == []
    assert len(unexpected_traces(ours + "[ERROR] [2.0] [sam2]: KeyError\nTraceback (most recent call last):\n")) == 1


class Seer(FakeTracker):
    """Finds the white square that `truth` says is there; `shift` pixels or `late` images off."""

    def __init__(self, shift: int = 0, late: int = 0) -> None:
        super().__init__()
        self.shift, self.late, self.seen = shift, late, []

    def step(self, frame, prompts=(), **more):
        self.seen.append(frame.rgb[:, :, 0] == 255)
        mask = np.roll(self.seen[-1 - min(self.late, len(self.seen) - 1)], self.shift, axis=1)
        return [types.SimpleNamespace(object_id="a", mask=mask)]


def truth(n: int) -> np.ndarray:
    mask = np.zeros((48, 64), bool)
    mask[10:20, n : n + 10] = True
    return mask


def seen_by(seer: Seer) -> Gate:
    """Results paired with the truth of the image whose header they carry."""
    with Bench(seer) as bench:
        bench.image = lambda n, **_: post(bench, n)
        return wrong_pixels([(bench.step(n)[2][0].mask, truth(n)) for n in range(1, 20)])


def post(bench: Bench, n: int) -> None:
    message = image_like(np.repeat(truth(n)[:, :, None], 3, axis=2).astype(np.uint8) * 255, "rgb8")
    message.header = n
    bench.mailbox.post_image(Arrival(message, n, time.monotonic_ns()))


@pytest.mark.parametrize("change, is_kept", [({}, True), ({"shift": 1}, False), ({"late": 1}, False)])
def test_a_shifted_mask_and_a_mask_of_the_image_before(change, is_kept):
    assert seen_by(Seer(**change)).is_kept is is_kept
