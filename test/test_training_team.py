"""Two processes that train together: other clips in each, one model in both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam2.training import report

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
