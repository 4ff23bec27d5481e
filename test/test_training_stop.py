"""Runs that are stopped: by signals, full disks, and folders that a team does not share; nothing is lost or mixed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from small_training import CPU, TINY_RUN, TwoSquares, run

from sam2.errors import BadInput
from sam2.training import report
from sam2.training.stop import noted_signals
from sam2.training.team import Team
from sam2.training.train import Trainer


def test_a_line_that_a_full_disk_cut_off_costs_that_line_only(tmp_path):
    log = tmp_path / "log.csv"
    for step in range(3):
        report.append_row(log, {"step": step, "loss": step / 2})
    log.write_bytes(log.read_bytes()[:-4])
    report.append_row(log, {"step": 3, "loss": 1.5})
    assert [row["step"] for row in report.read_rows(log)][-1] == "3" and len(report.read_rows(log)) >= 3
    assert all(float(row["loss"]) >= 0 for row in report.read_rows(log))


def test_a_header_that_a_full_disk_cut_off_is_written_again(tmp_path):
    log = tmp_path / "log.csv"
    report.append_row(log, {"step": 0, "loss": 0.5})
    for kept in (b"", b"step,lo"):
        log.write_bytes(kept)
        report.append_row(log, {"step": 1, "loss": 1.5})
        assert report.read_rows(log) == [{"step": "1", "loss": "1.5"}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_in_hand_and_nothing_is_lost(tmp_path, monkeypatch, number):
    trainer = Trainer(replace(TINY_RUN, steps=60), TwoSquares(), tmp_path, CPU)
    step = trainer._step

    def stopped_at_three(source):
        if trainer.progress.step == 2:
            os.kill(os.getpid(), number)
        return step(source)

    monkeypatch.setattr(trainer, "_step", stopped_at_three)
    before = signal.getsignal(number)
    assert trainer.run() == number and trainer.progress.step == 3 and signal.getsignal(number) is before
    again = Trainer(replace(TINY_RUN, steps=60), TwoSquares(), tmp_path, CPU)
    assert again.resume() and again.progress.step == 3
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), trainer.model.parameters(), strict=True))


def test_a_team_whose_folders_differ_is_refused(tmp_path, monkeypatch):
    trainer = run(tmp_path, replace(TINY_RUN, steps=4))
    monkeypatch.setattr(Team, "agree", lambda team, value, device: 0.0)  # the first process found nothing
    with pytest.raises(BadInput, match="goes on from step 4, the first of the team from 0"):
        trainer.resume()


def test_a_second_signal_ends_it_at_once():
    with pytest.raises(KeyboardInterrupt), noted_signals() as came:
        os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second came to nothing")


@pytest.mark.slow
def test_a_signal_to_a_whole_team_loses_nothing_either(tmp_path):
    """As torchrun, timeout and systemd send it: to the processes that make clips, too, which the team needs until its
    next look at the clock."""
    words = f"--config smoke --workers 1 --size 32 --device cpu --steps 100000 --out {tmp_path}"
    command = "-m torch.distributed.run --standalone --nproc-per-node 2 -m sam2.training.train".split()
    process = subprocess.Popen(
        [sys.executable, *command, *words.split()], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "log.csv"
    while len(report.read_rows(log)) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert said.count("the same command goes on") == 2 and "clip workers" not in said, said
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["progress"]["step"] >= int(report.read_rows(log)[-1]["step"]) > 0
