"""Whoever runs the network sets how many threads it may use on a CPU: nano gains nothing from more than one, and its
threads would take the cores of the rest of the robot."""

from argparse import Namespace

import pytest
import torch
from small_stream import click

pytest.importorskip("rclpy")

from sam2 import device, evaluate
from sam2.training import cli
from sam2_ros import load_tracker, replay
from sam2_ros.params import Settings
from sam2_ros.prompt_file import Entry

pytestmark = pytest.mark.ros

MANY = 5  # neither what the tests run with nor what anything below asks for


@pytest.fixture(autouse=True)
def many_threads(monkeypatch):
    """As on a machine with many cores, where nobody has limited PyTorch."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(device, "_TORCHS_THREADS", MANY)
    torch.set_num_threads(MANY)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cpu_threads", "expected"), [(0, 1), (3, 3)])
def test_the_node_sets_its_threads(cpu_threads, expected):
    load_tracker.load_tracker(Settings(model="nano", device="cpu", cpu_threads=cpu_threads))
    assert torch.get_num_threads() == expected


def test_a_replay_sets_its_threads():
    entries = [Entry("entry 1", click("a"), frame=0, stamp_ns=0)]
    replay.make_tracker(Namespace(model="nano", checkpoint=None, device="cpu"), entries)
    assert torch.get_num_threads() == 1


class Begun(Exception):
    pass


@pytest.mark.parametrize(("environment", "expected"), [({}, 1), ({"OMP_NUM_THREADS": "5"}, MANY)])
@pytest.mark.parametrize("what", ["training", "evaluation"])
def test_a_command_sets_its_threads_unless_told_by_the_environment(what, environment, expected, tmp_path, monkeypatch):
    def begin(*_):
        raise Begun

    module, step, words = {
        "training": (cli, "_maker", ["--config", "smoke"]),
        "evaluation": (evaluate, "evaluate_all", ["--dataset", "synthetic", "--model", "nano", "--clips", "1"]),
    }[what]
    monkeypatch.setattr(module, step, begin)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Begun):
        module.main([*words, "--device", "cpu", "--out", str(tmp_path)])
    assert torch.get_num_threads() == expected
