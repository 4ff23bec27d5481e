"""Which requests run together, and what a result becomes by them; neither tracker nor detector is there."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from bench import point

import sam2
from sam2_ros.fitting import run_fitting, twin_sentences
from sam2_ros.newest_result import NewestResult
from sam2_ros.requests import Add


def track(name, label, area=0):
    return SimpleNamespace(object_id=name, label=label, area=area)


def adds_of(*requests):
    return [Add([point(name) for name in names.split()], 0, print) for names in requests]


def test_what_was_prompted_takes_the_place_of_what_was_there_and_labels_rise():
    before = [track("a", 2, area=1), track("b", 5, area=1)]
    prompted = [track("a", 2, area=9), track("late", 1, area=9), track("c", 3, area=9)]
    after = [(one.object_id, one.area) for one in NewestResult(tracks=before).tracks_with(prompted)]
    assert after == [("late", 9), ("a", 9), ("c", 9), ("b", 1)]


def test_of_several_twins_the_first_by_name_is_told_and_whose_it_is():
    names = [f"n{number}" for number in range(9)]
    own, others, innocent = adds_of(" ".join(reversed(names)), "x y", "z")
    twins = {name: "n8" for name in names[3:8]} | {"y": "old"}
    assert twin_sentences([own, others, innocent], twins) == {
        own: "the prompt for 'n3' shows 'n8', which this request prompts as well",
        others: "the prompt for 'y' shows 'old', which is tracked already",
    }


class Auto:
    """Notes the tracks that it is shown; `twins`: what it answers, run by run."""

    def __init__(self, *twins, made=()):
        self.answers, self.shown, self.made = iter(twins), [], lambda add: add in made

    def twins(self, adds, tracks):
        self.shown.append([one.object_id for one in tracks])
        return next(self.answers)


def fit(adds, auto, live=("old",), check=lambda prompts: None):
    """Returns what `run_fitting` returns, and what was refused. In the image are `old` and what is prompted."""
    refused = []

    def run(prompts, accept):
        tracks = [track(name, 1) for name in sorted({"old"} | {prompt.object_id for prompt in prompts})]
        accept(tracks)
        return tracks

    tracker = SimpleNamespace(object_ids=[*live, *(prompt.object_id for add in adds for prompt in add.prompts)])
    ran = run_fitting(tracker, run, check, adds, auto, lambda add, error: refused.append((add, str(error))))
    return ran, refused


def test_the_eldest_come_first_and_who_is_not_in_the_result_is_no_twin():
    """As an object that was restored since the image: it lives, and has no track in it."""
    auto = Auto({})
    fit(adds_of("b", "a"), auto, live=("restored", "old"))
    assert auto.shown == [["old", "b", "a"]]


def test_a_persons_twin_is_refused_and_the_rest_runs_again_while_a_detectors_is_only_told():
    one, other, found = adds = adds_of("a", "b", "c")
    (tracks, done, twins), refused = fit(adds, Auto({"a": "old", "c": "old"}, {"c": "old"}, made=(found,)))
    assert refused == [(one, "the prompt for 'a' shows 'old', which is tracked already")]
    assert done == [other, found] and twins == {"c": "old"} and [one.object_id for one in tracks] == ["b", "c", "old"]
    assert adds == [one, other, found], "the caller's own list"


def test_a_refused_requests_error_keeps_nothing_of_the_step_alive():
    errors, (*rest, newest) = [], adds_of("a", "b", "c")

    def run(prompts, accept):
        if len(prompts) > 2:
            raise sam2.BadInput("too many")
        return []

    ran = run_fitting(None, run, lambda prompts: None, [*rest, newest], None, lambda *refused: errors.append(refused))
    assert ran == ([], rest, {})
    ((add, error),) = errors
    assert add is newest and str(error) == "too many" and error.__traceback__ is None
