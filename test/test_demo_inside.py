"""The demo's course with nobody there: who is started when and how, what is waited for, and when it has succeeded."""

import os
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from test_demo_score import PERIOD_NS, array_of, results_of, square

import sam2
from sam2_ros import demo, demo_score
from sam2_ros.requests import Code
from sam2_ros.ros_time import stamp_ns

pytestmark = pytest.mark.ros


class Staged:
    """In place of the audience and of the processes: notes what is done with them."""

    def __init__(self, codes):
        self.done, self.codes, self.waited = [], iter(codes), []
        self.polled = chain((None, 1), repeat(0))
        self.truths = [array_of(n, {"a": square(2)}) for n in range(3)]
        self.answers = [(self.truths[1], 0)]
        self.first_image = self.truths[0]
        self.find_rivals = lambda: self.done.append("find rivals")
        self.watch = lambda: self.done.append("watch")
        self.has_image = False

    def start(self, name, *words):
        self.done.append((name, *words))
        return SimpleNamespace(poll=lambda: next(self.polled))

    def call(self, kind, name, request):
        self.done.append(name)
        assert isinstance(request, kind.Request)
        return kind.Response(code=int(next(self.codes)), sentence="told so")

    def until(self, condition, within_s, what):
        self.waited.append((what, within_s))
        if what == "the first image":
            assert not condition()
            self.has_image = True
        if what == "the last image":
            assert [condition() for _ in range(3)] == [False, False, True], "a camera that has ended well"
        if what == "the last result":
            assert not condition()
            self.answers.append((self.truths[-1], 0))
        assert condition() or what.startswith("the tracker")


@pytest.mark.parametrize(
    ("words", "given", "camera"),
    [
        (
            "",
            "-p model:=nano -p device:=auto",
            "--seed 1000036 --width 640 --height 480 --rate 12.0 --frames 240 --gentle",
        ),
        (
            "--model tiny --checkpoint a.pt --device cpu --full --objects 1"
            " --seed 7 --width 64 --height 48 --rate 5 --frames 20",
            "-p model:=tiny -p checkpoint:=a.pt -p device:=cpu",
            "--seed 7 --width 64 --height 48 --rate 5.0 --frames 20",
        ),
    ],
)
def test_who_is_started_when_with_which_words_and_what_is_waited_for(words, given, camera, capsys):
    """The camera once the tracker answers, and once somebody watches; the end is the last image's result."""
    args = demo.parse(words.split())
    stage = Staged([Code.LOADING, Code.INTERNAL, Code.NO_IMAGE, Code.OK])
    boxes, prompted_ns = demo._perform(args, stage, stage)
    assert (list(boxes), prompted_ns) == (["a"], stamp_ns(stage.truths[0].header.stamp))
    assert stage.done == [
        "find rivals", ("tracker", "track", "--ros-args", *given.split()), *["/sam2/list_objects"] * 3,
        "watch", ("camera", "simulate", "--wait", "2", *camera.split()), "/sam2/add_objects",
    ]  # fmt: skip
    told = "the tracker (told so)", demo.READY_S
    end_s = args.frames / args.rate * 3 + demo.READY_S
    assert stage.waited == [
        told, told, ("the first image", demo.READY_S), ("the last image", end_s), ("the last result", demo.ANSWER_S),
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert ("the full world" in said) == ("a gentle world" not in said) == args.full
    assert ("all that is in sight" in said) == (args.objects > 1), "one is"


def test_a_newer_image_without_anything_in_it_is_not_prompted():
    stage = Staged([Code.STALE])
    stage.newest_image = array_of(7, {"a": None})
    with pytest.raises(sam2.Sam2Error, match="STALE: told so"):
        demo._prompt(stage, 3)
    assert stage.done == ["/sam2/add_objects"]


def test_a_last_result_that_does_not_come_ends_the_demo_all_the_same(monkeypatch):
    stage = Staged([Code.OK, Code.OK])
    monkeypatch.setattr(demo, "LAST_RESULT_S", 0.0)
    stage.truths[-1], ended = array_of(9, {}), []

    def until(condition, within_s, what):
        stage.has_image, stage.polled = True, iter([0])
        ended.append(condition())

    stage.until = until
    demo._perform(demo.parse([]), stage, stage)
    assert ended == [True] * 3


@pytest.mark.parametrize("images", [0, 3])
def test_a_signal_ends_it_while_a_film_is_made(images, tmp_path, monkeypatch):
    """The camera's or, where that one has no pictures, the tracker's."""
    true = [{"a": square(2)} for _ in range(3)]
    results, grey = results_of(true, true), np.zeros((60, 80, 3), np.uint8)
    run, taken = demo_score.score(results, images=3, answers=3, prompted_ns=PERIOD_NS), []
    audience = SimpleNamespace(
        images=lambda: (taken.append(1) or grey for _ in range(images)), image=lambda stamp: grey
    )
    args = SimpleNamespace(out=tmp_path, rate=10.0, frames=3, width=80)
    monkeypatch.setattr("sam2_ros.demo_audience.signals", [15])
    with pytest.raises(demo.Interrupted):
        demo._draw(args, audience, results, run, ({}, PERIOD_NS))
    assert not list(tmp_path.glob("demo.*")) and len(taken) == min(images, 1)


@pytest.mark.parametrize(
    ("mean_iou", "visibility", "missing", "code"),
    [(0.75, 0.9, 0, 0), (0.749, 1.0, 0, 1), (1.0, 0.899, 0, 1), (0.75, 0.9, 1, 1), (float("nan"), 1.0, 0, 1)],
)
def test_both_goals_must_be_met_and_every_picture_written(mean_iou, visibility, missing, code, capsys):
    run = SimpleNamespace(mean_iou=mean_iou, visibility=visibility)
    assert demo._exit_code(run, list(demo.PICTURES[missing:])) == code
    assert ("expected a mean IoU" in capsys.readouterr().err) == (code == 1 and not missing)


def test_a_demo_is_in_a_domain_of_its_own_on_this_machine_unless_somebody_has_chosen(monkeypatch):
    asked = []
    for middleware in (demo.fast_dds, demo.cyclone_dds):
        monkeypatch.setattr(middleware, "make_room", lambda name=middleware.__name__: asked.append(name))
    names = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_DOMAIN_ID"
    monkeypatch.setenv("ROS_DISCOVERY_SERVER", "10.0.0.2:11811")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for process, domain in ((99, "100"), (100, "1")):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
        demo._surroundings()
        assert [os.environ[name] for name in names] == ["LOCALHOST", domain]
        assert "ROS_DISCOVERY_SERVER" not in os.environ  # its clients of all domains meet
    for name in names:
        monkeypatch.setenv(name, "7")
    demo._surroundings()
    assert [os.environ[name] for name in names] == ["7", "7"]
    assert asked == ["sam2_ros.fast_dds", "sam2_ros.cyclone_dds"] * 3


@pytest.mark.parametrize("words", ["--frames 19", "--objects 0"])
def test_a_demo_of_nothing_is_refused_and_the_smallest_is_not(words, capsys):
    with pytest.raises(SystemExit):
        demo.parse(words.split())
    assert "at least 20 and --objects of at least 1" in capsys.readouterr().err
    args = demo.parse(["--frames", "20", "--objects", "1"])
    assert (args.frames, args.objects, args.out, args.model) == (20, 1, Path("out/demo"), "nano")
