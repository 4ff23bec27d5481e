"""Runs that are stopped: by signals, full disks, and folders that a team does not share; nothing is lost or mixed."""

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_training import CPU, TINY_RUN, Broken, TwoSquares, run
from small_video_folder import write_video

from sam2.errors import BadInput
from sam2.training import data, report, train
from sam2.training.pool import PooledSource
from sam2.training.stop import noted_signals
from sam2.training.team import NotMade, Team
from sam2.training.train import Trainer

PATIENCE_S = 300.0  # whoever waits this long has failed


def test_a_line_that_a_full_disk_cut_off_costs_that_line_only(tmp_path):
    log = tmp_path / "log.csv"
    for step in range(3):
        report.append_row(log, {"step": step, "loss": step / 2})
    log.write_bytes(log.read_bytes()[:-4])
    report.append_row(log, {"step": 3, "loss": 1.5})
    assert [row["step"] for row in report.read_rows(log)][-1] == "3" and len(report.read_rows(log)) >= 3
    assert all(float(row["loss"]) >= 0 for row in report.read_rows(log))


def test_a_line_that_a_power_failure_left_unreadable_costs_that_line_only(tmp_path):
    path = tmp_path / "log.csv"
    report.append_row(path, {"step": 10, "loss": 1})
    with open(path, "ab") as file:
        file.write(b"\xff2" + bytes(200_000))
    report.append_row(path, {"step": 30, "loss": 3})
    assert [row["step"] for row in report.read_rows(path)] == ["10", "30"]


def test_a_header_that_a_full_disk_cut_off_is_written_again(tmp_path):
    log = tmp_path / "log.csv"
    report.append_row(log, {"step": 0, "loss": 0.5})
    for kept in (b"", b"step,lo"):
        log.write_bytes(kept)
        report.append_row(log, {"step": 1, "loss": 1.5})
        assert report.read_rows(log) == [{"step": "1", "loss": "1.5"}]


def test_a_full_disk_says_which_file_found_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "open", lambda *_, **__: open("/dev/full", "w"), raising=False)
    with pytest.raises(OSError, match=r"log.csv: cannot be written \(No space left on device\); make room"):
        report.append_row(tmp_path / "log.csv", {"step": 0})


def test_curves_are_drawn_whole_or_stay_as_they_were(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    report.append_row(tmp_path / "log.csv", {"step": 1, "kind": "clips", "loss": 1.5, "iou": 0.5})
    (tmp_path / "curves.png").write_bytes(b"older")

    def is_full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full, pytest.raises(OSError, match=r"curves.png: cannot be written \(No space"):
        full.setattr(os, "fsync", is_full)
        report.draw_curves(tmp_path)
    assert (tmp_path / "curves.png").read_bytes() == b"older"
    report.draw_curves(tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "log.csv"]


def test_curves_go_on_from_the_step_that_was_saved(tmp_path, monkeypatch):
    """Killed after step 6 of a run whose state is of step 4."""
    monkeypatch.setattr("sam2.training.train.LOG_EVERY", 2)
    trainer = run(tmp_path, replace(TINY_RUN, steps=4))
    state = (trainer.out / "state.pt").read_bytes()
    first = (trainer.out / "log.csv").read_text()
    run(tmp_path, replace(TINY_RUN, steps=6))
    (trainer.out / "state.pt").write_bytes(state)
    for team, steps in ((Team(1, 2), ["2", "4", "6"]), (Team(0, 2), ["2", "4"])):
        monkeypatch.setattr(Team, "agree", lambda team, value, device: value)
        trainer.team = team
        assert trainer.resume()
        assert [row["step"] for row in report.read_rows(trainer.out / "log.csv")] == steps, "the first process alone"
    assert (trainer.out / "log.csv").read_text() == first
    assert [row["step"] for row in report.read_rows(trainer.out / "validation.csv")] == ["4"]
    run(tmp_path, replace(TINY_RUN, steps=4))
    checks = report.read_rows(trainer.out / "validation.csv")
    assert [row["step"] for row in checks] == ["4"], "a run that is done is checked again, in the same row"


def test_a_run_that_begins_anew_in_an_old_folder_has_logs_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sam2.training.train.LOG_EVERY", 2)
    old = run(tmp_path, replace(TINY_RUN, steps=4)).out
    first = (old / "log.csv").read_text()
    for kept in ("log.1.csv", "log.2.csv"):
        (old / "state.pt").unlink()
        second = run(tmp_path, replace(TINY_RUN, steps=2)).out
        assert second == old and "log.csv is of an earlier run, whose state is not there" in capsys.readouterr().out
        assert [row["step"] for row in report.read_rows(old / "log.csv")] == ["2"]
        assert [row["step"] for row in report.read_rows(old / "validation.csv")] == ["2"]
        assert (old / kept).is_file() and (old / f"validation{kept[3:]}").is_file()
    assert (old / "log.1.csv").read_text() == first
    (old / "state.pt").unlink()
    follower = Trainer(replace(TINY_RUN, steps=2), TwoSquares(), old, CPU)
    monkeypatch.setattr(Team, "agree", lambda team, value, device: value)
    follower.team = Team(1, 2)
    assert not follower.resume() and (old / "log.csv").is_file(), "the first process alone"


def test_saving_takes_no_more_than_a_twentieth_of_the_time(tmp_path, monkeypatch):
    """A large network's state of 3.6 GB, which takes ten seconds, was written every 45; here a step takes one."""
    now, saved = 0, []

    def step(source):
        nonlocal now
        now += 1
        trainer.progress.step += 1
        return {}

    def save():
        nonlocal now
        saved.append(now)
        now += 10

    trainer = Trainer(replace(TINY_RUN, steps=1000), TwoSquares(), tmp_path, CPU)
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: now))
    for name, instead in (("_step", step), ("save", save), ("_log", lambda *_: True), ("check", lambda: "")):
        monkeypatch.setattr(trainer, name, instead)
    trainer.run()
    assert saved[:2] == [0, 60] and saved[2:-1] == [270, 480, 690, 900], "the first one's duration is not known before"


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


def test_clips_that_cannot_be_made_end_the_run_with_what_was_learnt_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sam2.training.train.LOG_EVERY", 3)
    config = replace(TINY_RUN, steps=12, pool=2)
    broken = Trainer(config, Broken(OSError("x.jpg: damaged"), first=2), tmp_path / "parts", CPU)
    with pytest.raises(OSError, match="^x.jpg: damaged$"):
        broken.run()
    at = broken.progress.step
    assert at % 3, "between two looks"
    assert f"step {at} is saved; when this is put right, the same command goes on" in capsys.readouterr().err
    assert [int(row["step"]) for row in report.read_rows(tmp_path / "parts" / "log.csv")][-1] == at
    again, whole = run(tmp_path, config, "parts"), run(tmp_path, config, "whole")
    assert again.progress.step == 12
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True))


@pytest.mark.parametrize("error", [None, OSError("gone")])
def test_a_team_stops_together_for_want_of_clips(monkeypatch, error):
    """Whichever process has none; the others would wait for it for ever."""

    def make():
        if error:
            raise error
        return "clips"

    monkeypatch.setattr(Team, "largest", lambda team, value, device: value)
    if not error:
        assert Team(0, 2).together(make) == "clips"
    monkeypatch.setattr(Team, "largest", lambda team, value, device: 1.0)
    with pytest.raises(NotMade) as caught:
        Team(0, 2).together(make)
    assert caught.value.__cause__ is error or "another process of the team" in str(caught.value.__cause__)


def test_a_lack_of_memory_is_no_want_of_clips():
    """A smaller batch may fit."""

    def make():
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        Team().together(make)


def damaged_davis(root: Path) -> Path:
    """Ten videos, of which one is kept for checks and another has a damaged mask; its path."""
    names = [f"v{number}" for number in range(10)]
    for name in names:
        write_video(root / "JPEGImages/480p", root / "Annotations/480p", name)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/train.txt").write_text("\n".join(names))
    damaged = root / "Annotations/480p/v4/00001.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    return damaged


def test_a_bad_file_ends_the_command_with_a_sentence_and_what_was_learnt_is_saved(tmp_path):
    damaged, out = damaged_davis(tmp_path / "davis"), tmp_path / "run"
    words = f"--config smoke --workers 1 --size 32 --device cpu --steps 100000 --out {out} --dataset davis --root"
    command = [sys.executable, "-m", "sam2.training.train", *words.split(), str(tmp_path / "davis")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"{damaged}: expected a palette PNG"), done.stderr
    step = torch.load(out / "state.pt", weights_only=True)["progress"]["step"]
    assert f"step {step} is saved; when this is put right" in done.stderr


@pytest.mark.slow
def test_a_bad_file_ends_a_whole_team_with_a_sentence(tmp_path):
    damaged, out = damaged_davis(tmp_path / "davis"), tmp_path / "run"
    words = f"--config smoke --workers 0 --pool 40 --size 32 --device cpu --steps 100000 --out {out} --dataset davis"
    command = "-m torch.distributed.run --standalone --nproc-per-node 2 -m sam2.training.train".split()
    command = [sys.executable, *command, *words.split(), "--root", str(tmp_path / "davis")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and f"{damaged}: expected a palette PNG" in done.stderr, done.stderr
    step = torch.load(out / "state.pt", weights_only=True)["progress"]["step"]
    assert f"step {step} is saved; when this is put right" in done.stderr


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


def test_a_signal_while_the_workers_start_ends_the_run_as_any_other(tmp_path, monkeypatch):
    """Ctrl-C goes to all of them, and they need seconds to import what they use."""

    def opened(*given):
        source = data.open_source(*given)
        for worker, number in zip(source._workers, (signal.SIGINT, signal.SIGTERM), strict=True):
            os.kill(worker.pid, number)
        signal.raise_signal(signal.SIGINT)
        return source

    monkeypatch.setattr(train, "open_source", opened)
    trainer = Trainer(replace(TINY_RUN, workers=2), TwoSquares(), tmp_path, CPU)
    assert trainer.run() == signal.SIGINT and (tmp_path / "state.pt").exists()


def test_a_signal_while_workers_start_kills_none_of_them():
    with closing(PooledSource(TwoSquares(), CPU, capacity=4, workers=2)) as source:
        for worker, number in zip(source._workers, (signal.SIGINT, signal.SIGTERM), strict=True):
            os.kill(worker.pid, number)
        source.sample(np.random.default_rng(0), 0, 1, 4, 1)
        assert all(worker.is_alive() for worker in source._workers)


@pytest.mark.slow
def test_a_signal_to_a_whole_team_loses_nothing_either(tmp_path):
    """As torchrun, timeout and systemd send it: to the processes that make clips, too, which the team needs until its
    next look at the clock."""
    words = f"--config smoke --workers 1 --size 32 --device cpu --steps 100000 --out {tmp_path}"
    command = "-m torch.distributed.run --standalone --nproc-per-node 2 -m sam2.training.train".split()
    process = subprocess.Popen(
        [sys.executable, *command, *words.split()], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log, end = tmp_path / "log.csv", time.monotonic() + PATIENCE_S
    try:
        while len(report.read_rows(log)) < 3:
            assert process.poll() is None and time.monotonic() < end, "waited in vain"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:  # whatever went wrong, nothing trains on for a hundred thousand steps
            os.killpg(process.pid, signal.SIGKILL)
    assert said.count("the same command goes on") == 2 and "clip workers" not in said, said
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["progress"]["step"] >= int(report.read_rows(log)[-1]["step"]) > 0
