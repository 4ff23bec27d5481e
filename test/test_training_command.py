"""The command line of training, on a small folder in the layout of DAVIS, and what it says when it cannot begin."""

import pytest
from small_video_folder import write_davis

from sam2.checkpoint import read_weights
from sam2.training import cli, report

SMALL = ["--config", "smoke", "--steps", "2", "--size", "32", "--batch-scale", "0.25", "--device", "cpu"]


def test_it_learns_from_a_dataset_goes_on_and_leaves_weights(tmp_path, capsys):
    write_davis(tmp_path / "davis")
    command = [*SMALL, "--dataset", "davis", "--root", str(tmp_path / "davis"), "--out", str(tmp_path / "run")]
    assert cli.main(command) == 0
    assert f"weights: {tmp_path / 'run' / 'weights.pt'}" in capsys.readouterr().out
    trained = read_weights(tmp_path / "run" / "weights.pt")
    assert cli.main([*command, "--steps", "3", "--export", str(tmp_path / "other" / "x.safetensors")]) == 0
    assert "going on from step 2" in capsys.readouterr().out
    assert [row["step"] for row in report.read_rows(tmp_path / "run" / "log.csv")] == ["2", "3"]
    assert read_weights(tmp_path / "other" / "x.safetensors").keys() == trained.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "100"], "multiple of 32"),
        (["--config", "nano_cpu", "--size", "64"], "from 128 on for nano_cpu"),
        (["--root", "somewhere"], "expected a --dataset"),
        (["--dataset", "davis"], "one folder for each"),
        (["--dataset", "davis", "--root", "nowhere"], "davischallenge.org"),
        (["--dataset", "davis", "--root", "nowhere", "--weight", "1", "--weight", "2"], "none or one for each"),
        (["--export", "weights.bin"], ".safetensors"),
        (["--checkpoint", "missing.pt"], "missing.pt"),
        (["--checkpoint", "OTHER"], "choose the matching model"),
    ],
)
def test_it_says_what_is_wrong(words, message, tmp_path, monkeypatch, capsys, other_weights):
    monkeypatch.chdir(tmp_path)
    words = [str(other_weights) if word == "OTHER" else word for word in words]
    assert cli.main([*SMALL, *words, "--out", "run"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "state.pt").exists()


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory):
    """Of a network of another size."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "other.pt"
    torch.save({"model": {"no_mem_embed": torch.zeros(1, 1, 256)}}, path)
    return path
