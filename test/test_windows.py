"""Learning from windows of images: what is cut, where it lies, how often whole images come instead."""

from dataclasses import replace

import numpy as np
import torch
from small_training import SIDE, squares

from sam2.config import find_config
from sam2.model import PROMPTED_CODE, SAM2
from sam2.training import augment
from sam2.training.config import Phase
from sam2.training.windows import WindowedSAM2


def test_a_window_stays_on_its_place_and_shows_an_object():
    clips = squares(40)
    torch.manual_seed(0)
    windows = augment.window(clips, 16)
    assert windows.shape == (40, 4, 16, 16, 4)
    assert (windows[:, 0, ..., 3] > 0).flatten(1).any(1).float().mean() > 0.9
    places = clips.unfold(2, 16, 1).unfold(3, 16, 1).permute(0, 2, 3, 1, 5, 6, 4)  # (B, rows, columns, T, 16, 16, 4)
    for window, candidates in zip(windows[:3], places[:3], strict=True):
        assert (candidates.flatten(0, 1) == window).flatten(1).all(1).sum() == 1


def test_a_window_has_the_position_codes_of_its_place_in_the_whole_image():
    model = WindowedSAM2(replace(find_config("nano"), image_size=4 * SIDE)).eval()
    plain = SAM2(replace(find_config("nano"), image_size=4 * SIDE)).eval()
    plain.load_state_dict(model.state_dict(), strict=True)
    point, label = torch.tensor([[[70.0, 40.0]]]), torch.ones(1, 1, dtype=torch.long)
    image = torch.randn(1, 3, 4 * SIDE, 4 * SIDE)
    memory = torch.randn(1, model.config.memory_dim, 8, 8)
    with torch.no_grad():
        for mine, official in zip(model.encode_image(image), plain.encode_image(image), strict=True):
            assert torch.equal(mine, official), "a whole image is what it was"
        sparse = plain.sam_prompt_encoder.sparse(point, label)
        grid, trunk = plain.sam_prompt_encoder.grid_position(), plain.image_encoder.trunk.position(32, 32)
        codes = plain.spatial_memory(memory, PROMPTED_CODE)[1]
        model.view.move(2 * SIDE, row=SIDE, column=2 * SIDE)
        moved = point - torch.tensor([2.0 * SIDE, SIDE])
        assert torch.equal(model.sam_prompt_encoder.sparse(moved, label)[:, 0], sparse[:, 0])
        assert torch.equal(model.sam_prompt_encoder.grid_position(), grid[:, :, 2:6, 4:8])
        assert torch.equal(model.image_encoder.trunk.position(16, 16), trunk[:, 8:24, 16:32])
        mine = model.spatial_memory(memory[:, :, 2:6, 4:8], PROMPTED_CODE)[1].unflatten(1, (4, 4))
        assert torch.equal(mine, codes.unflatten(1, (8, 8))[:, 2:6, 4:8])
        for memory_attention in (model.memory_attention, plain.memory_attention):
            memory_attention.layers[0].self_attend = lambda tokens: tokens
        stride16 = torch.randn(1, model.config.d_model, 8, 8)
        mine = model.self_attend(stride16[:, :, 2:6, 4:8]).unflatten(1, (4, 4))
        assert torch.equal(mine, plain.self_attend(stride16).unflatten(1, (8, 8))[:, 2:6, 4:8])
    assert model.image_size == 2 * SIDE


def test_shares_of_a_phase_are_decided_for_each_step():
    phase = Phase("clips", 1.0, batch=8, objects=2, frames=4, stills=0.5, window=128, whole=0.25)
    rng = np.random.default_rng(0)
    drawn = [phase.draw(rng, 256) for _ in range(400)]
    assert {(p.kind, p.window, p.batch, p.frames) for p in drawn} == {
        *(("clips", 128, 8, 4), ("clips", 0, 2, 4)), *(("stills", 128, 32, 1), ("stills", 0, 8, 1)),
    }  # fmt: skip
    assert 0.4 < np.mean([p.kind == "stills" for p in drawn]) < 0.6
    assert 0.15 < np.mean([p.window == 0 for p in drawn]) < 0.35
