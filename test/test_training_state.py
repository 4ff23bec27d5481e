"""What a run keeps: its state, whole or not at all and of one recipe, and the weights it leaves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import CPU, TINY_RUN, TwoSquares, run, small_model

from sam2.checkpoint import read_weights
from sam2.errors import BadCheckpoint, OutOfMemory
from sam2.training import state
from sam2.training.train import Trainer


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


def test_another_runs_state_is_refused(tmp_path):
    trainer = Trainer(TINY_RUN, TwoSquares(), tmp_path, CPU)
    trainer.save()
    other = Trainer(replace(TINY_RUN, model="tiny"), TwoSquares(), tmp_path, CPU)
    with pytest.raises(BadCheckpoint, match="another run"):
        other.resume()
    polish = Trainer(replace(TINY_RUN, phases=TINY_RUN.phases[-1:]), TwoSquares(), tmp_path, CPU)
    with pytest.raises(BadCheckpoint, match="until 0.34.* not .*clips until 1"):
        polish.resume()
    longer = Trainer(replace(TINY_RUN, steps=60, pool=3), TwoSquares(), tmp_path, CPU)
    assert longer.resume(), "length and pool may change"
    for content in (b"", b"PK\x03\x04 half a file"):
        (tmp_path / state.STATE).write_bytes(content)
        with pytest.raises(BadCheckpoint, match="damaged"):
            trainer.resume()


def test_exported_weights_are_the_average_in_the_official_layout(tmp_path):
    trainer = run(tmp_path, replace(TINY_RUN, steps=2))
    trainer.export(tmp_path / "nano.pt")
    weights = torch.load(tmp_path / "nano.pt", weights_only=True)["model"]
    fresh = small_model()
    fresh.load_state_dict(weights, strict=True)
    named = trainer.average.state_dict()
    assert torch.equal(fresh.mask_downsample.weight, named["model.mask_downsample.weight"])
    trainer.export(tmp_path / "nano.safetensors")
    from safetensors.torch import load_file

    assert read_weights(tmp_path / "nano.safetensors").keys() == weights.keys()
    half = load_file(tmp_path / "nano.safetensors")
    assert half.keys() == weights.keys() and half["no_mem_embed"].dtype == torch.float16
    with pytest.raises(BadCheckpoint, match="safetensors"):
        trainer.export(tmp_path / "nano.bin")


def test_all_of_a_runs_place_is_kept(tmp_path):
    module, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    progress = state.Progress(step=1, phase=2, phase_step=3, elapsed_s=4.5, clips_made=6, retries=7)
    assert state.load_state(tmp_path, {"model": other}, "this one") is None
    state.save_state(tmp_path, {"model": module}, progress, "this one")
    assert state.load_state(tmp_path, {"model": other}, "this one") == progress
    assert torch.equal(module.weight, other.weight)
    with pytest.raises(BadCheckpoint, match="this one, not that one"):
        state.load_state(tmp_path, {"model": other}, "that one")
    with pytest.raises(BadCheckpoint, match="another run"):
        state.load_state(tmp_path, {"average": other}, "this one")


@pytest.mark.parametrize(
    ("error", "raised"), [(PermissionError(13, "Permission denied"), OSError), (None, OutOfMemory)]
)
def test_a_state_that_cannot_be_read_or_does_not_fit_is_not_called_damaged(tmp_path, monkeypatch, error, raised):
    """Whoever then deleted it, as was advised, lost the run."""

    class Full(torch.nn.Linear):
        def load_state_dict(self, given):
            raise torch.OutOfMemoryError("CUDA out of memory")

    def refuse(path, mode):
        raise error

    state.save_state(tmp_path, {"model": torch.nn.Linear(2, 2)}, state.Progress(), "this one")
    if error:
        monkeypatch.setattr(state, "open", refuse, raising=False)
    with pytest.raises(raised, match="state.pt.*(Permission denied|expected memory)|Permission denied.*state.pt"):
        state.load_state(tmp_path, {"model": Full(2, 2)}, "this one")


def test_a_state_that_would_run_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "run",)

    torch.save({"recipe": Attack()}, tmp_path / state.STATE)
    with pytest.raises(BadCheckpoint, match="damaged"):
        state.load_state(tmp_path, {}, "this one")
    assert not (tmp_path / "run").exists()


def test_averages_take_the_place_of_weights_by_name_and_those_of_others_are_left_out():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2).half())
    average = {
        "model.0.weight": torch.full((2, 2), 3.0),
        "model.0.bias": torch.full((2,), 4.0),
        "pretext.scale": torch.ones(1),
    }
    weights = state.averaged_weights(module, average)
    assert {name: value.unique().tolist() for name, value in weights.items()} == {"0.weight": [3.0], "0.bias": [4.0]}
    last = state.averaged_weights(module, {})
    assert {value.dtype for value in last.values()} == {torch.float32}
    assert torch.equal(last["0.weight"], module[0].weight.float())
