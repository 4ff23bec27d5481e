"""Training runs: schedule, optimiser, stopping and going on, sources of clips."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import CPU, SIDE, TINY_RUN, TwoSquares, run, small_model

from sam2.config import find_config
from sam2.errors import BadCheckpoint, BadInput, OutOfMemory
from sam2.model import SAM2
from sam2.training import augment, report, state
from sam2.training.config import CONFIGS, Phase, find_train_config
from sam2.training.data import DirectSource
from sam2.training.optim import Average, layer_scale, make_optimizer, parameter_groups, prepare_from_scratch, set_rates
from sam2.training.team import Team
from sam2.training.train import FAILURES_WITHIN, MAX_FAILURES, Trainer


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


# schedule and optimiser


def test_a_fresh_memory_finds_its_like():
    model = SAM2(replace(find_config("nano"), image_size=128)).eval()
    features = 1.3 * torch.randn(1, 128, 8, 8)

    def found() -> float:
        """The share of places that attend most to themselves, without the help of rotation."""
        attention = model.memory_attention.layers[0].cross_attn_image
        memory = model.memory_encoder(features, torch.full((1, 1, 128, 128), -10.0)).flatten(2).transpose(1, 2)
        query = torch.nn.functional.layer_norm(features.flatten(2).transpose(1, 2), (128,))
        match = attention.q_proj(query) @ attention.k_proj(memory).transpose(1, 2)  # (1, 64, 64)
        return (match[0].argmax(1) == torch.arange(64)).float().mean().item()

    with torch.no_grad():
        before = found()
        prepare_from_scratch(model)
        assert before < 0.2 and found() > 0.8


def test_layer_decay_lowers_early_blocks():
    """The numbers are those of the official training code."""
    assert layer_scale("model.image_encoder.trunk.blocks.3.mlp.layers.0.weight", 4, 0.5) == 0.5
    assert layer_scale("model.image_encoder.trunk.blocks.0.norm1.bias", 4, 0.5) == 0.0625
    assert layer_scale("model.image_encoder.trunk.patch_embed.proj.weight", 4, 0.5) == 0.03125
    assert layer_scale("model.image_encoder.trunk.pos_embed_window", 4, 0.5) == 1.0
    assert layer_scale("model.sam_mask_decoder.conv_s0.weight", 4, 0.5) == 1.0


def test_rates_follow_cosine_warm_up_encoder_share_and_layer_decay():
    optimizer = make_optimizer(small_model(), weight_decay=0.1, layer_decay=0.5)
    phase = Phase("clips", 1.0, batch=1, objects=1, rate=(1e-3, 1e-4), encoder=0.2)
    assert set_rates(optimizer, phase, 0.5, 1.0) == pytest.approx(5.5e-4)
    assert set_rates(optimizer, phase, 0.25, 1.0) == pytest.approx(1e-4 + 9e-4 * (2 + 2**0.5) / 4), "no straight line"
    assert set_rates(optimizer, phase, 0.0, 0.25) == pytest.approx(2.5e-4)
    rates = {group["lr"] for group in optimizer.param_groups if group["is_encoder"]}
    assert max(rates) == pytest.approx(0.2 * 2.5e-4) and min(rates) == pytest.approx(0.2 * 2.5e-4 * 0.5**9)


def test_every_parameter_is_in_one_group_and_vectors_do_not_decay():
    model = small_model()
    groups = parameter_groups(model, 0.1, 1.0)
    grouped = [p for group in groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    spared = {name for name, p in model.named_parameters() if p.ndim >= 2 and id(p) not in decaying}
    assert {name.replace("model.", "").removesuffix(".weight") for name in spared} == {
        *("image_encoder.trunk.pos_embed", "image_encoder.trunk.pos_embed_window", "maskmem_tpos_enc", "no_obj_ptr"),
        *("no_mem_embed", "no_mem_pos_enc", "no_obj_embed_spatial"),
        *("sam_prompt_encoder.not_a_point_embed", "sam_prompt_encoder.no_mask_embed"),
        *(f"sam_prompt_encoder.point_embeddings.{label}" for label in range(4)),
        *(f"sam_mask_decoder.{kind}" for kind in ("obj_score_token", "iou_token", "mask_tokens")),
    }, "tables of vectors; the patch embedding is a convolution"
    assert all(p.ndim >= 2 for p in model.parameters() if id(p) in decaying)


def test_muon_takes_the_matrices_at_its_own_rate_and_adamw_the_rest():
    model = small_model()
    optimizer = make_optimizer(model, weight_decay=0.1, layer_decay=1.0, muon=2.0)
    set_rates(optimizer, Phase("clips", 1.0, batch=1, objects=1, rate=(1e-3, 1e-3), encoder=0.5), 0.0, 1.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    attention = model.memory_attention.layers[0].cross_attn_image
    assert rates[id(attention.q_proj.weight)] == pytest.approx(2e-3)
    assert rates[id(attention.q_proj.bias)] == pytest.approx(1e-3)
    assert rates[id(model.sam_mask_decoder.mask_tokens.weight)] == pytest.approx(1e-3), "a table, not a map"
    crossing = model.sam_mask_decoder.transformer.layers[0].cross_attn_token_to_image
    assert rates[id(crossing.q_proj.weight)] == pytest.approx(2e-3)
    assert rates[id(model.image_encoder.trunk.blocks[0].attn.qkv.weight)] == pytest.approx(1e-3)


def test_muon_goes_on_as_if_never_stopped():
    def steps(model, optimizer, seeds):
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            set_rates(optimizer, TINY_RUN.phases[0], 0.0, 1.0)
            optimizer.step()
        return model, optimizer

    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.LayerNorm(4))
        return model, make_optimizer(model, 0.1, 1.0, muon=2.0)

    whole, _ = steps(*fresh(), seeds=(1, 2))
    first, optimizer = steps(*fresh(), seeds=(1,))
    second, again = fresh()
    second.load_state_dict(first.state_dict())
    again.load_state_dict(optimizer.state_dict())
    steps(second, again, seeds=(2,))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
    assert not torch.equal(whole[0].weight, first[0].weight)


def test_the_average_starts_quickly_and_then_is_slow():
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(0.0)
    average = Average(layer, decay=0.9)
    layer.weight.data.fill_(1.0)
    average.update(layer, step=0)
    assert average.averaged["weight"].item() == pytest.approx(0.9)
    layer.weight.data.fill_(0.0)
    average.update(layer, step=1000)
    assert average.averaged["weight"].item() == pytest.approx(0.81)
    average.swap(layer)
    assert layer.weight.item() == pytest.approx(0.81) and average.averaged["weight"].item() == 0.0


def test_recipes_cover_the_whole_run_in_order():
    assert len(CONFIGS) <= 8
    for config in CONFIGS.values():
        ends = [phase.until for phase in config.phases]
        assert ends == sorted(ends) and ends[-1] == 1.0
        assert all((p.frames - 1) < config.clip_frames for p in config.phases)
    with pytest.raises(BadInput, match="smoke"):
        find_train_config("huge")


# runs


def test_a_run_stopped_in_the_middle_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("sam2.training.train.LOG_EVERY", 2)
    whole = run(tmp_path, TINY_RUN, "whole")
    first = Trainer(TINY_RUN, TwoSquares(), tmp_path / "parts", CPU)
    monkeypatch.setattr(
        Trainer, "share", property(lambda self: 1.0 if self.progress.step == 4 else self.progress.step / 6)
    )
    first.run()
    monkeypatch.undo()
    monkeypatch.setattr("sam2.training.train.LOG_EVERY", 2)
    assert first.progress.step == 4
    second = run(tmp_path, TINY_RUN, "parts")
    assert second.progress.step == 6
    for a, b in zip(whole.lessons.parameters(), second.lessons.parameters(), strict=True):
        assert torch.equal(a, b)
    rows = [report.read_rows(tmp_path / name / "log.csv")[-1] for name in ("whole", "parts")]
    assert rows[0]["loss"] == rows[1]["loss"]
    assert {"log.csv", "validation.csv", "curves.png", "contact_sheet.png", "state.pt"} <= {
        p.name for p in (tmp_path / "whole").iterdir()
    }


def test_phases_follow_the_share_of_the_run(tmp_path):
    trainer = Trainer(TINY_RUN, TwoSquares(), tmp_path, CPU)
    kinds = []
    for step in range(6):
        trainer.progress.step = step
        phase, done = trainer._enter_phase()
        kinds.append(phase.kind)
        assert 0 <= done < 1
    assert kinds == ["pretext"] * 3 + ["stills"] * 2 + ["clips"]
    clocked = Trainer(replace(TINY_RUN, steps=0, budget_minutes=2.0), TwoSquares(), tmp_path, CPU)
    clocked.progress.elapsed_s = 90.0
    assert clocked.share == 0.75 and clocked._enter_phase()[0].kind == "clips"


def test_a_run_learns_from_windows_and_is_judged_on_whole_images(tmp_path, monkeypatch):
    class LargeSquares:
        shape = (4, 2 * SIDE, 2 * SIDE, 4)
        is_varied = False  # so none of its clips may interrupt another

        def __call__(self, seed):
            return TwoSquares()(seed).repeat(2, axis=1).repeat(2, axis=2)

    monkeypatch.setattr(augment, "interrupt", lambda clips, probability: pytest.fail("interrupted"))
    shown = dict(frames=3, window=SIDE, vanish=0.5, prompt_chances=(0.0, 0.5, 0.5))
    phases = (Phase("clips", 1.0, batch=2, objects=2, **shown),)
    trainer = Trainer(replace(TINY_RUN, size=2 * SIDE, phases=phases), LargeSquares(), tmp_path, CPU)
    seen = []
    trainer.model.image_encoder.register_forward_hook(lambda module, given, made: seen.append(given[0].shape[-1]))
    assert trainer._step(DirectSource(LargeSquares(), CPU, 6))["loss"] > 0
    trainer.check()
    assert seen[0] == SIDE and set(seen[1:]) == {2 * SIDE}


def bad_loss() -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(math.nan), "grad_norm": torch.tensor(1.0)}


def test_a_loss_that_is_no_number_throws_the_run_back(tmp_path):
    trainer = Trainer(TINY_RUN, TwoSquares(), tmp_path, CPU)
    trainer.save()
    before = trainer.model.no_mem_embed.clone()
    trainer.model.no_mem_embed.data.fill_(math.nan)
    trainer.progress.step = 3
    assert not trainer._log(bad_loss(), bar=None)
    assert trainer.progress.step == 0 and trainer.progress.retries == 1
    assert torch.equal(trainer.model.no_mem_embed, before)
    (tmp_path / state.STATE).unlink()
    with pytest.raises(FloatingPointError, match="lower the phase's `rate`"):
        trainer._log(bad_loss(), bar=None)


def test_a_run_gives_up_only_when_its_losses_fail_in_close_succession(tmp_path):
    trainer = Trainer(TINY_RUN, TwoSquares(), tmp_path, CPU)
    trainer.save()
    far_apart = [FAILURES_WITHIN * number for number in range(MAX_FAILURES + 2)]
    for step in far_apart + [far_apart[-1] + 1] * (MAX_FAILURES - 1):
        trainer.progress.step = step
        assert not trainer._log(bad_loss(), bar=None)
    trainer.progress.step = far_apart[-1] + 2
    with pytest.raises(FloatingPointError, match=f"{MAX_FAILURES + 1} times"):
        trainer._log(bad_loss(), bar=None)


def test_a_batch_too_large_for_the_device_is_halved_until_it_fits(tmp_path, monkeypatch):
    trainer = Trainer(
        replace(TINY_RUN, phases=(Phase("pretext", 1.0, batch=8, objects=2),)), TwoSquares(), tmp_path, CPU
    )
    forward, seen = trainer.wrapped.forward, []

    def small_memory(clips, phase, rng):
        seen.append(len(clips))
        if len(clips) > 2:
            raise torch.OutOfMemoryError("no room")
        return forward(clips, phase, rng)

    monkeypatch.setattr(trainer.wrapped, "forward", small_memory)
    trainer._step_that_fits(DirectSource(TwoSquares(), CPU, 6))
    trainer._step_that_fits(DirectSource(TwoSquares(), CPU, 6))
    assert seen == [8, 4, 2, 2] and trainer.progress.step == 2


def test_a_clip_that_does_not_fit_is_said_in_a_sentence(tmp_path, monkeypatch):
    trainer = Trainer(
        replace(TINY_RUN, phases=(Phase("pretext", 1.0, batch=2, objects=2),)), TwoSquares(), tmp_path, CPU
    )
    seen = []

    def no_memory(clips, phase, rng):
        seen.append(len(clips))
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(trainer.wrapped, "forward", no_memory)
    with pytest.raises(
        OutOfMemory, match=r"cpu: no memory for a step, even of one clip; give a smaller --size.*no room"
    ):
        trainer._step_that_fits(DirectSource(TwoSquares(), CPU, 6))
    assert seen == [2, 1]


def test_wrong_weights_are_found_before_the_clips_are_read_and_wrong_clips_before_a_step(tmp_path):
    """A wrong path should not cost the time that reading takes, nor wrong clips leave a run to go on with."""

    class Empty(TwoSquares):
        def __call__(self, seed):
            return np.zeros(self.shape, np.uint8)

    trainer = Trainer(TINY_RUN, Empty(), tmp_path, CPU)
    with pytest.raises(BadCheckpoint, match=r"missing\.pt"):
        trainer.start_from(tmp_path / "missing.pt")
    with pytest.raises(BadInput, match="expected objects of .* found none"):
        trainer.run()
    assert not (tmp_path / state.STATE).exists()


def test_what_holds_the_group_goes_before_the_group(tmp_path, monkeypatch):
    """Else a process that ends may wait (three runs of ten) for threads that wait for it."""
    trainer, done = Trainer(TINY_RUN, TwoSquares(), tmp_path, CPU), []
    trainer.team, trainer.wrapped = Team(0, 2), torch.nn.Identity()
    monkeypatch.setattr(torch.distributed, "barrier", lambda: done.append("all are here"))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: done.append(trainer.wrapped))
    trainer.leave_team()
    assert done == ["all are here", trainer.lessons]
