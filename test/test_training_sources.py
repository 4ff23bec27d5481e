"""What runs leave and where clips come from: exports, fine-tuning, pools, pictures."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import CPU, SIDE, TINY_RUN, Broken, TwoSquares, squares

from sam2.checkpoint import read_weights
from sam2.config import find_config
from sam2.errors import BadInput, OutOfMemory
from sam2.model import SAM2
from sam2.training import report, state
from sam2.training.config import Phase, TrainConfig, find_train_config
from sam2.training.data import DirectSource, PooledSource, SyntheticClips, open_source
from sam2.training.synthetic import HELD_OUT_SEED
from sam2.training.team import ALONE
from sam2.training.train import Trainer


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


def run(tmp_path, config: TrainConfig, name: str = "run") -> Trainer:
    trainer = Trainer(config, TwoSquares(), tmp_path / name, CPU)
    trainer.resume()
    trainer.run()
    return trainer


def test_fine_tuning_goes_on_from_its_own_checkpoint_with_the_same_loss(tmp_path):
    config = replace(find_train_config("finetune"), size=SIDE, steps=3, workers=0, pool=4, clip_frames=4)
    config = replace(config, phases=(replace(config.phases[0], frames=2, objects=1, rate=(1e-4, 1e-4)),))
    torch.manual_seed(5)
    official = SAM2(find_config("tiny")).state_dict()
    trainer = Trainer(config, TwoSquares(), tmp_path / "a", CPU)
    trainer.start_from(official)
    source = DirectSource(TwoSquares(), CPU, 4)
    for _ in range(3):
        trainer._step(source)
    moved = (trainer.model.no_mem_embed - official["no_mem_embed"]).abs().max()
    assert 0 < moved < 1e-2
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    state.export(weights, tmp_path / "tiny.pt")
    again = Trainer(config, TwoSquares(), tmp_path / "b", CPU)
    again.start_from(read_weights(tmp_path / "tiny.pt"))
    clips = squares(1)[:, :2]
    losses = []
    for each in (trainer, again):
        torch.manual_seed(1)
        with torch.no_grad():
            losses.append(each.lessons(clips, config.phases[0], np.random.default_rng(1))["loss"].item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_pretext_learns_on_every_seed(tmp_path, seed):
    phases = (Phase("pretext", 1.0, batch=6, objects=2, rate=(3e-3, 1e-3), encoder=1.0, strength=0.0),)
    trainer = Trainer(replace(TINY_RUN, phases=phases, steps=30, seed=seed), TwoSquares(), tmp_path, CPU)
    source = DirectSource(TwoSquares(), CPU, 6)
    losses = [trainer._step(source)["loss"].item() for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_smoke_recipe_learns_on_every_seed(tmp_path, seed):
    """Its first phase alone, which is most of it. Measured: the loss falls to 0.42 of itself; at rate 0 to 0.97."""
    config = replace(find_train_config("smoke"), seed=seed)
    trainer = Trainer(config, SyntheticClips(config.clip_frames, config.size), tmp_path, CPU)
    source = DirectSource(trainer.maker, CPU, config.pool)
    losses = [trainer._step(source)["loss"].item() for _ in range(int(config.phases[0].until * config.steps))]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


# sources


def test_gentle_clips_are_a_share_of_those_for_training_and_none_of_the_held_out():
    plain, mixed = SyntheticClips(1, 32), SyntheticClips(1, 32, gentle=0.5)
    held_out = (HELD_OUT_SEED, HELD_OUT_SEED + 60)
    same = {seed: np.array_equal(plain(seed), mixed(seed)) for seed in (0, 40, 50, 99, *held_out)}
    assert same == {0: False, 40: False, 50: True, 99: True, held_out[0]: True, held_out[1]: True}


def test_a_pool_too_large_for_the_device_says_how_large():
    clips = SyntheticClips(32, 256)
    with pytest.raises(OutOfMemory, match=r"8192.0 GiB for a pool of 1048576 clips.*lower --pool"):
        PooledSource(clips, CPU, capacity=2**20, workers=0)


def test_what_a_step_sees_depends_on_the_step_alone():
    draws = []
    for _ in range(2):
        source = DirectSource(TwoSquares(), CPU, capacity=4)
        draws.append(source.sample(np.random.default_rng(7), 40, 3, 2, 1))
    assert torch.equal(*draws) and draws[0].shape == (3, 2, SIDE, SIDE, 4)
    assert not torch.equal(draws[0], source.sample(np.random.default_rng(8), 41, 3, 2, 1))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_seed_chooses_the_first_world(workers):
    config = replace(TINY_RUN, workers=workers, seed=5 * HELD_OUT_SEED + 100)
    with closing(open_source(TwoSquares(), CPU, config, clips_made=0, team=ALONE)) as source:
        batch = source.sample(np.random.default_rng(0), 8, 4, 4, 1).numpy()
    expected = {TwoSquares()(seed).tobytes() for seed in range(100, 140)}
    assert all(clip.tobytes() in expected or clip[::-1].tobytes() in expected for clip in batch)


def test_workers_fill_the_pool_with_the_makers_clips():
    source = PooledSource(TwoSquares(), CPU, capacity=4, workers=1, first_seed=10)
    try:
        batch = source.sample(np.random.default_rng(0), 0, 4, 4, 1)
    finally:
        source.close()
    expected = {TwoSquares()(seed).tobytes() for seed in range(10, 40)}
    forward = [clip if clip[0].any() else clip for clip in batch.numpy()]
    assert all(clip.tobytes() in expected or clip[::-1].tobytes() in expected for clip in forward)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError("the disk is gone"), OSError, "^the disk is gone$"),
        (BadInput("x.png: expected a palette PNG"), BadInput, "^x.png: expected a palette PNG$"),
        (IndexError("5"), RuntimeError, r"^making clip 0 failed:\nTraceback(.|\n)*IndexError: 5"),
    ],
)
def test_a_failing_maker_stops_the_run_with_its_own_words(error, kind, words):
    source = PooledSource(Broken(error), CPU, capacity=4, workers=1)
    try:
        with pytest.raises(kind, match=words):
            source.sample(np.random.default_rng(0), 0, 4, 4, 1)
    finally:
        source.close()


def test_clips_that_cannot_be_moved_to_the_device_stop_the_run(monkeypatch):
    def fail(self):
        raise torch.OutOfMemoryError("no room for a clip")

    monkeypatch.setattr(PooledSource, "_move_clips", fail)
    source = PooledSource(TwoSquares(), CPU, capacity=4, workers=1)
    try:
        with pytest.raises(RuntimeError, match="moving clips to cpu failed:(.|\n)*no room for a clip"):
            source.sample(np.random.default_rng(0), 0, 4, 4, 1)
    finally:
        source.close()


def test_the_contact_sheet_colours_predictions_and_outlines_truth():
    frames = np.zeros((1, 3, 16, 16, 3), np.uint8)
    masks, targets = np.zeros((2, 1, 1, 3, 16, 16), bool)
    masks[..., 2:6, 2:6] = True
    targets[..., 8:14, 8:14] = True
    sheet = report.contact_sheet(frames, masks, targets)
    assert sheet.shape == (16, 48, 3)
    assert tuple(sheet[3, 3]) == tuple(c // 2 for c in report.PALETTE[0])
    assert tuple(sheet[8, 10]) == (255, 255, 255) and not sheet[10, 10].any()
