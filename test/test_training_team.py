"""Processes that train together: what they agree on, other clips in each, one model in all."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from sam2.errors import BadInput, Sam2Error
from sam2.training import report, team
from sam2.training.team import ALONE, NotMade, Team, join_team, learning_together

# What each process trains from and ends with goes to a file of its own; else it is the command.
NOTING = """
import hashlib, os, sys
from pathlib import Path
import torch
from sam2.training import cli
from sam2.training.data import DirectSource
from sam2.training.train import Trainer

sample, leave_team = DirectSource.sample, Trainer.leave_team

def note(what, tensor):
    with Path(sys.argv[1], what + os.environ["RANK"]).open("a") as file:
        print(hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest(), file=file)

def noted_sample(self, *args):
    clips = sample(self, *args)
    note("clips", clips)
    return clips

def noted_leave(self):
    note("weights", torch.cat([p.flatten() for p in self.lessons.parameters()]))
    leave_team(self)

DirectSource.sample, Trainer.leave_team = noted_sample, noted_leave
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Different clips in each process, one model: the leader's run is complete and both end without complaint."""
    script, noted, steps = tmp_path / "noting.py", tmp_path / "noted", 4
    script.write_text(NOTING)
    noted.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script)]
    command += [str(noted), "--config", "smoke", "--steps", str(steps), "--device", "cpu", "--batch-scale", "0.25"]
    command += ["--size", "32", "--out", str(tmp_path), "--export", str(tmp_path / "n.pt")]
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(report.read_rows(tmp_path / "log.csv")[-1]["step"]) == steps
    assert (tmp_path / "n.pt").exists()
    first, second = ((noted / f"clips{rank}").read_text().split() for rank in (0, 1))
    assert len(first) == len(second) == steps and not set(first) & set(second)
    assert len({(noted / f"weights{rank}").read_text() for rank in (0, 1)}) == 1


CPU = torch.device("cpu")


def test_a_team_learns_without_a_warning_of_torch(tmp_path):
    """Here any warning is an error; in the processes of a team nobody sees it but the user."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        module = torch.nn.BatchNorm1d(2)  # which has buffers
        together = learning_together(module)
        together(torch.randn(4, 2)).sum().backward()
        assert module.bias.grad.tolist() == [4.0, 4.0] and not together.broadcast_buffers
    finally:
        together = None  # it holds the group, which would be freed after it and wait for threads that need the GIL
        dist.destroy_process_group()


@pytest.mark.parametrize("name", ["broadcast_buffers", "forward_sync_buffers"])
def test_buffers_are_not_sent_around_whatever_torch_calls_that(name, monkeypatch):
    def of_a_version(module, find_unused_parameters, **rest):
        return module, find_unused_parameters, rest

    of_a_version.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)])
    monkeypatch.setattr("sam2.training.team.DistributedDataParallel", of_a_version)
    assert learning_together("module") == ("module", True, {name: False})


def test_one_alone_agrees_with_itself(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert join_team("cpu") == (ALONE, CPU) and ALONE.leads and not Team(1, 2).leads
    assert ALONE.largest(2.5, CPU) == ALONE.agree(2.5, CPU) == ALONE.together(lambda: 2.5) == 2.5
    with pytest.raises(NotMade) as told:
        ALONE.together(lambda: 1 / 0)
    assert isinstance(told.value.__cause__, ZeroDivisionError)


def test_alone_the_gpu_may_be_chosen_and_in_a_team_each_takes_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(device.index))
    monkeypatch.setattr(team, "check_kernels", lambda device: None)
    monkeypatch.setattr(dist, "init_process_group", lambda backend: current.append(backend))
    monkeypatch.setattr(dist, "get_rank", lambda: 6)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    current = []
    monkeypatch.delenv("RANK", raising=False)
    assert join_team("cuda:3") == (ALONE, torch.device("cuda:3")) and join_team("cuda")[1].index == 0
    assert current == [3, 0]
    for name, value in (("RANK", "6"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    assert join_team("cuda") == (Team(6, 8), torch.device("cuda:2"))
    with pytest.raises(BadInput, match="a GPU each, expected auto, cpu or cuda, got 'cuda:3'"):
        join_team("cuda:3")
    assert current == [3, 0, "cpu:gloo,cuda:nccl", 2]


def test_several_take_the_largest_or_the_first_ones_value(monkeypatch):
    """To the last bit: times are compared, and steps beyond what float32 counts."""

    def others(tensor, what):
        asked.append((what, tensor.dtype))
        tensor += 1

    asked = []
    monkeypatch.setattr(torch.distributed, "all_reduce", others)
    monkeypatch.setattr(torch.distributed, "broadcast", others)
    assert Team(1, 2).largest(2**25 + 1, CPU) == Team(1, 2).agree(2**25 + 1, CPU) == 2**25 + 2
    assert asked == [(torch.distributed.ReduceOp.MAX, torch.float64), (0, torch.float64)]


def test_where_one_fails_none_goes_on(monkeypatch):
    team, told = Team(0, 2), []
    monkeypatch.setattr(
        Team, "largest", lambda team, value, device: told.append((value, device.type)) or max(value, away)
    )
    away = False
    assert team.together(lambda: 5) == 5
    with pytest.raises(NotMade) as mine:
        team.together(lambda: [][0])
    away = True
    with pytest.raises(NotMade) as another:
        team.together(lambda: 5)
    assert told == [(False, "cpu"), (True, "cpu"), (False, "cpu")]
    assert isinstance(mine.value.__cause__, IndexError) and isinstance(another.value.__cause__, Sam2Error)
    full = torch.OutOfMemoryError("no room")
    with pytest.raises(torch.OutOfMemoryError):
        team.together(lambda: (_ for _ in ()).throw(full))
    assert len(told) == 3, "a smaller step may fit"
