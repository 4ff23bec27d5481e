"""The command line of training, on a small folder in the layout of DAVIS, and what it says when it cannot begin."""

import signal
from dataclasses import replace

import pytest
import torch
from small_video_folder import write_davis, write_palette
from torch.backends import cuda, cudnn

from sam2 import device, files
from sam2.checkpoint import read_weights
from sam2.training import cli, report
from sam2.training.config import find_train_config
from sam2.weights_cache import PACKAGED

SMALL = ["--config", "smoke", "--steps", "2", "--size", "32", "--batch-scale", "0.25", "--device", "cpu"]


@pytest.fixture(autouse=True)
def settings_of_the_other_tests():
    before, benchmark, attention = torch.get_num_threads(), cudnn.benchmark, cuda.cudnn_sdp_enabled()
    yield
    torch.set_num_threads(before)
    cudnn.benchmark = benchmark
    cuda.enable_cudnn_sdp(attention)


def test_it_learns_from_a_dataset_goes_on_and_leaves_weights(tmp_path, capsys):
    write_davis(tmp_path / "davis")
    command = [*SMALL, "--dataset", "davis", "--root", str(tmp_path / "davis"), "--out", str(tmp_path / "run")]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("learning from 2 videos; checked on the same, for want of ten\n")
    assert f"weights: {tmp_path / 'run' / 'weights.pt'}" in said
    trained = read_weights(tmp_path / "run" / "weights.pt")
    assert cli.main([*command, "--steps", "3", "--export", str(tmp_path / "other" / "x.safetensors")]) == 0
    assert "going on from step 2" in capsys.readouterr().out
    assert [row["step"] for row in report.read_rows(tmp_path / "run" / "log.csv")] == ["2", "3"]
    assert read_weights(tmp_path / "other" / "x.safetensors").keys() == trained.keys()


def test_a_dataset_without_objects_is_refused(tmp_path, capsys):
    write_davis(tmp_path / "davis")
    for path in (tmp_path / "davis").rglob("*.png"):
        write_palette(path, {})
    out = tmp_path / "run"
    assert cli.main([*SMALL, "--dataset", "davis", "--root", str(tmp_path / "davis"), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "2 videos; checked on the same, for want of ten: expected objects of 16 pixels or more, of 32 x 32" in said
    assert "found none; give a larger --size" in said and not (out / "state.pt").exists()


def test_a_dataset_of_objects_too_small_to_be_prompted_is_refused(tmp_path, capsys):
    """Nothing would be learnt, and weights be written all the same."""
    write_davis(tmp_path / "davis")
    for path in (tmp_path / "davis").rglob("*.png"):
        write_palette(path, {1: (4, 4, 8, 7)})  # 12 of 24 x 32 pixels, which are 16 of 32 x 32
    command = [*SMALL, "--dataset", "davis", "--root", str(tmp_path / "davis"), "--out", str(tmp_path / "run")]
    assert cli.main(command) == 0
    for path in (tmp_path / "davis").rglob("*.png"):
        write_palette(path, {1: (4, 4, 8, 6)})
    assert cli.main([*command[:-1], str(tmp_path / "other")]) == 1
    assert "first masks of 12 clips, found one of 12; give a larger --size" in capsys.readouterr().err


def test_a_run_goes_on_with_the_weights_it_began_with_or_not_at_all(tmp_path, capsys):
    """Somebody who corrects a wrong --checkpoint would get weights that began with the wrong one."""
    nano = PACKAGED / "sam2.1_hiera_nano.safetensors"
    run = [*SMALL, "--out", str(tmp_path / "run")]
    assert cli.main([*run, "--checkpoint", str(nano)]) == 0
    assert cli.main([*run, "--checkpoint", str(nano), "--steps", "3"]) == 0
    for other in (tmp_path / "run" / "weights.pt", tmp_path / "missing.pt"):
        assert cli.main([*run, "--checkpoint", str(other)]) == 1
        said = capsys.readouterr().err
        assert f"run goes on from its own weights, and did not begin with {other}; choose another --out" in said
    assert cli.main([*run, "--checkpoint", str(nano), "--export", str(nano)]) == 1
    assert "nano.safetensors, with which the run began; choose one" in capsys.readouterr().err
    assert cli.main(run) == 0


def test_its_state_is_no_weights_file_and_the_refusal_names_what_is(tmp_path, capsys):
    assert cli.main([*SMALL, "--out", str(tmp_path / "run")]) == 0
    state = str(tmp_path / "run" / "state.pt")
    assert cli.main([*SMALL, "--out", str(tmp_path / "other"), "--checkpoint", state]) == 1
    assert f"{state}: expected weights, got the state of a training; name the weights" in capsys.readouterr().err


def test_a_model_and_a_size_may_be_told_in_any_way(tmp_path, capsys):
    run = [*SMALL, "--out", str(tmp_path / "run")]
    assert cli.main(run) == 0
    assert cli.main([*run, "--model", "sam2.1_hiera_nano"]) == 0
    assert "going on from step 2" in capsys.readouterr().out
    recipe = replace(find_train_config("finetune"), model="nano")
    assert recipe.recipe == replace(recipe, model="sam2.1_hiera_nano", size=256).recipe
    assert recipe.recipe != replace(recipe, size=288).recipe


def test_ctrl_c_is_no_error_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Trainer, "run", stop)
    assert cli.main([*SMALL, "--out", str(tmp_path)]) == 130
    assert "nothing was saved" in capsys.readouterr().err
    monkeypatch.setattr(cli.Trainer, "run", lambda trainer, _: trainer.save() or signal.SIGTERM)
    assert cli.main([*SMALL, "--out", str(tmp_path)]) == 143
    monkeypatch.setattr(cli.Trainer, "run", lambda trainer, _: (trainer.save(), stop()))
    assert cli.main([*SMALL, "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(("told", "threads"), [(None, 1), ("2", 2)])
def test_nano_learns_in_one_thread_unless_told_otherwise(told, threads, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(device, "_TORCHS_THREADS", 2)
    monkeypatch.setattr(cli.Trainer, "run", lambda *_: None)
    assert cli.main([*SMALL, "--out", str(tmp_path)]) == 0
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "100"], "multiple of 32"),
        (["--model", ""], "model '': expected one of nano, tiny"),
        (["--size", "0"], "--size: expected 32 or more, got 0"),
        (["--budget-minutes", "5"], "--steps, --budget-minutes: both say how long the run is"),
        (["--config", "nano_cpu", "--size", "64"], "from 128 on for nano_cpu"),
        (["--root", "somewhere"], "expected a --dataset"),
        (["--steps", "-5"], "--steps: expected 1 or more"),
        (["--minutes", "nan"], "--minutes: expected 0 or more"),
        (["--seed", "-1"], "--seed: expected 0 to"),
        (["--seed", str(2**63)], "--seed: expected 0 to"),
        (["--batch-scale", "nan"], "--batch-scale: expected more than 0"),
        (["--batch-scale", "inf"], "--batch-scale: expected more than 0, at most 1000, got inf"),
        (["--batch-scale", "0"], "--batch-scale: expected more than 0"),
        (["--budget-minutes", "0"], "--budget-minutes: expected more than 0"),
        (["--budget-minutes", "nan"], "--budget-minutes: expected more than 0"),
        (["--workers", "-1"], "--workers: expected 0"),
        (["--workers", "513"], "--workers: expected 0 to 512, got 513"),
        (["--pool", "-3"], "--pool: expected 1 or more"),
        (["--pool", "1000000000"], "are free; choose a smaller --pool"),
        (["--config", "finetune"], "finetune goes on from weights, expected a file of tiny"),
        (["--config", "finetune", "--model", "nano"], f"its own is {PACKAGED / 'sam2.1_hiera_nano.safetensors'}"),
        (["--dataset", "davis"], "one folder for each"),
        (
            ["--dataset", "davis"],
            "of davis the folder that holds JPEGImages/480p and Annotations/480p, from https://davis",
        ),
        (
            ["--dataset", "sav"],
            "of sav the folder that holds <name>.mp4 beside <name>_manual.json, from https://ai.meta",
        ),
        *(
            (
                ["--dataset", "davis", "--root", ".", "--weight", weight],
                f"--weight: expected 0 or more for each --dataset, and more than 0 for one, got {float(weight)}",
            )
            for weight in ("0", "nan", "inf", "-1")
        ),
        (["--dataset", "davis", "--root", "nowhere"], "davischallenge.org"),
        (["--dataset", "davis", "--root", "nowhere", "--weight", "1", "--weight", "2"], "none or one for each"),
        (["--export", "weights.bin"], ".safetensors"),
        (["--export", "run/../run/state.pt"], "--export: expected another name than"),
        (["--checkpoint", "OTHER", "--export", "OTHER"], "other.pt, with which the run begins; choose one"),
        (["--export", "/proc/foo/weights.pt"], "--export: the folder /proc cannot be written"),
        (["--checkpoint", "missing.pt"], "missing.pt"),
        (["--device", "cuda:77"], "device 'cuda:77': PyTorch finds"),
        (["--checkpoint", "OTHER"], "other.pt: expected sam2.1_hiera_nano"),
    ],
)
def test_it_says_what_is_wrong(words, message, tmp_path, monkeypatch, capsys, other_weights):
    monkeypatch.chdir(tmp_path)
    words = [str(other_weights) if word == "OTHER" else word for word in words]
    assert cli.main([*SMALL, *words, "--out", "run"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "state.pt").exists()


@pytest.mark.parametrize("option", ["--out", "--checkpoint", "--root", "--export"])
def test_a_path_from_a_variable_that_is_not_set_is_refused(option, tmp_path, monkeypatch, capsys):
    """`Path` would take it for the current folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main([*SMALL, "--out", "run", option, ""])
    assert f"argument {option}: expected a path, got an empty text; is a variable not set?" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_folder_in_which_a_run_is_at_work_is_not_taken_by_another(tmp_path, capsys):
    """Two would write over each other's state."""
    with files.alone_in(tmp_path / "run"):
        assert cli.main([*SMALL, "--out", str(tmp_path / "run")]) == 1
    assert f"{tmp_path / 'run'}: expected no other run in this folder" in capsys.readouterr().err
    assert not list((tmp_path / "run").iterdir())


def test_a_file_is_no_folder_of_a_run(tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert cli.main([*SMALL, "--out", str(tmp_path / "run")]) == 1
    assert f"--out: expected a folder, got the file {tmp_path / 'run'}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory):
    """Of a network of another size."""
    path = tmp_path_factory.mktemp("weights") / "other.pt"
    torch.save({"model": {"no_mem_embed": torch.zeros(1, 1, 256)}}, path)
    return path
