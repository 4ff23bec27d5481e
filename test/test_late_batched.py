"""Late prompts in a tracker like the node's, whose objects go through the network together: as if given on time but for
rounding, since the order of sums depends on who is in the batch; and nobody else notices."""

from dataclasses import replace

import pytest
from golden_mutations import around
from small_stream import click, disc, frame, largest_difference, made_on, run, small_model
from test_late_prompts import CASES, OUT_OF_ORDER, REFINED, ring_too_short, tracks_nothing_again

import sam2
from sam2.frame_step import FrameStep
from sam2.memory_store import MemoryStore
from sam2.object_steps import ObjectSteps

REPLACE = sam2.PromptMode.REPLACE
# Of logits, whose standard deviation is about 1; the README says it. Noise 6.0e-6, on one thread and two, with AVX-512,
# AVX2 or neither; the smallest mistake below changes 4.4e-4.
TOLERANCE = 1e-5
COMPANY = {0: [click("a"), disc("b", 50, 30), click("c", 60, 10)]}
LATE = {"refined": click("a", 40, 30, 0), "started over": click("a", 40, 30, mode=REPLACE), "new": click("d", 40, 30)}


def test_late_prompts_of_a_step_are_caught_up_together(monkeypatch):
    """Those on one image in as many steps of the network as they are late, which whoever waits can be told of."""
    batches, told = [], []

    def track(original, self, objects, moment, self_attended):
        batches.append((moment.index, sorted(obj.object_id for obj in objects)))
        return original(self, objects, moment, self_attended)

    around(monkeypatch, FrameStep, "track", track)
    tracker = sam2.Tracker(small_model(), batched=True)
    run(tracker, range(9), {})
    asked = [made_on(5, click(name, 20, 20)) for name in "abc"]
    tracker.step(frame(9), asked, progress=lambda: told.append(len(batches)))
    assert batches == [(index, ["a", "b", "c"]) for index in (6, 7, 8, 9)] and told == [0, 0, 1, 2]
    tracker.prompt([made_on(7, click("a", 9, 9))], progress=lambda: told.append(len(batches)))
    assert batches[4:] == [(index, ["a"]) for index in (7, 8, 9)] and told[4:] == [4, 5, 6]


def as_the_node(case) -> tuple[list, list]:
    return replace(case, is_sticky=True, batched=True).streams()


def without_logits(streams: list) -> list:
    """All that a track says but its numbers."""
    return [
        [(t.object_id, t.label, t.state, t.last_seen_ns, t.frames_since_seen) for t in tracks] for tracks in streams
    ]


@pytest.mark.parametrize("name", CASES)
def test_late_equals_on_time_in_company(name):
    case = replace(CASES[name], is_sticky=True, batched=True)
    on_time = case.timely_stream()
    for late in case.late_stream(), case.late_stream(between=True):
        assert without_logits(on_time) == without_logits(late)
        assert largest_difference(on_time, late) < TOLERANCE


def catches_up_one_frame_too_few(monkeypatch):
    def catch_up(original, self, planned, moments, *args):
        return original(self, planned, moments[: len(moments) - 1 or 1], *args)

    around(monkeypatch, ObjectSteps, "catch_up", catch_up)


def remembers_one_frame_too_few(monkeypatch):
    def catch_up(original, self, planned, moments, *args):
        answers = original(self, planned, moments, *args)
        for object_id in answers if len(moments) > 1 else ():
            self._objects[object_id].bank.forget(moments[-1].index)
        return answers

    around(monkeypatch, ObjectSteps, "catch_up", catch_up)


def lets_late_corrections_fade(monkeypatch):
    def catch_up(original, self, *args):
        monkeypatch.setattr(self, "_sticky_corrections", False)
        answers = original(self, *args)
        monkeypatch.setattr(self, "_sticky_corrections", True)
        return answers

    around(monkeypatch, ObjectSteps, "catch_up", catch_up)


@pytest.mark.parametrize(
    ("mistake", "case", "least"),
    [
        (tracks_nothing_again, REFINED, 0.1),
        (catches_up_one_frame_too_few, CASES["out of order on a live object"], 3e-2),
        (remembers_one_frame_too_few, CASES["out of order on a live object"], 3e-2),
        (lets_late_corrections_fade, OUT_OF_ORDER, 1e-2),
        (ring_too_short, CASES["the oldest image that is kept"], 4e-4),
    ],
)
def test_mistake_is_far_from_rounding(mistake, case, least, monkeypatch):
    mistake(monkeypatch)
    assert largest_difference(*as_the_node(case)) > max(least, 10 * TOLERANCE)


def others(given: list[sam2.Prompt], with_frame: int = 7) -> list[list[sam2.Track]]:
    """Tracks of b and c, in whose company a prompt for frame 4 is given."""
    tracker = sam2.Tracker(small_model(), None, True, batched=True)
    streams = run(tracker, range(12), COMPANY | {with_frame: [made_on(4, prompt) for prompt in given]})
    return [[track for track in tracks if track.object_id in ("b", "c")] for tracks in streams]


@pytest.mark.parametrize("with_frame", [4, 7], ids=["on time", "late"])
@pytest.mark.parametrize("name", LATE)
def test_a_prompt_touches_no_other_object(name, with_frame):
    without, given = others([]), others([LATE[name]], with_frame)
    assert without_logits(without) == without_logits(given)
    assert largest_difference(without, given) < TOLERANCE


def writes_to_a_neighbours_row(monkeypatch):
    """Prompts' memories and tracked ones of an object alone, as catching up is."""

    def writing(original, self, rows, slots):
        return original(self, [1] if len(rows) == 1 and max(slots[0]) > 5 else rows, slots)

    around(monkeypatch, MemoryStore, "writing", writing)


def rewinds_everybody(monkeypatch):
    def prompt_past(original, self, plan, moment):
        for obj in self._objects.values():
            obj.rewind(plan.frame)
        return original(self, plan, moment)

    around(monkeypatch, ObjectSteps, "_prompt_past", prompt_past)


@pytest.mark.parametrize("mistake", [writes_to_a_neighbours_row, rewinds_everybody])
def test_touching_another_object_is_far_from_rounding(mistake, monkeypatch):
    without = others([])
    mistake(monkeypatch)
    assert largest_difference(without, others([LATE["refined"]])) > 10 * TOLERANCE
