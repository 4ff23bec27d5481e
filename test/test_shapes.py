"""Every stage of all nine variants, on torch's `meta` device: shapes and sizes without weights or arithmetic."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from sam2.config import CONFIGS, find_config
from sam2.model import PROMPTED_CODE, SAM2

LAYOUTS = json.loads(gzip.decompress((Path(__file__).parent / "golden" / "state_dict_layout.json.gz").read_bytes()))
MILLIONS = {"tiny": 38.9, "small": 46.0, "base_plus": 80.8, "large": 224.4}  # as published for SAM 2.1 and 2


def on_meta(name: str) -> SAM2:
    with torch.device("meta"):
        return SAM2(find_config(name)).eval()


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_every_stage(name):
    num_objects, num_points, num_pointers = 3, 2, 5
    model = on_meta(name)
    config = model.config
    side, grid, dim, memory_dim = config.image_size, config.grid_size, config.d_model, config.memory_dim
    low = 4 * grid  # side of the decoder's masks

    features = model.encode_image(torch.empty(1, 3, side, side, device="meta"))
    assert features.stride4.shape == (1, dim // 8, low, low)
    assert features.stride8.shape == (1, dim // 4, 2 * grid, 2 * grid)
    assert features.stride16.shape == (1, dim, grid, grid)

    maskmem = torch.empty(num_objects, memory_dim, grid, grid, device="meta")
    spatial, spatial_pos = model.spatial_memory(maskmem, PROMPTED_CODE)
    assert spatial.shape == spatial_pos.shape == (num_objects, grid * grid, memory_dim)
    pointers = torch.empty(num_objects, num_pointers, dim, device="meta")
    tokens, tokens_pos = model.pointer_memory(pointers, torch.empty(num_pointers, device="meta"))
    assert tokens.shape == tokens_pos.shape == (num_objects, num_pointers * dim // memory_dim, memory_dim)

    memory, position = torch.cat((spatial, tokens), dim=1), torch.cat((spatial_pos, tokens_pos), dim=1)
    pixels = model.attend(model.self_attend(features.stride16), memory, position, tokens.shape[1])
    assert pixels.shape == (num_objects, dim, grid, grid)
    assert model.no_memory(features.stride16).shape == (1, dim, grid, grid)

    points = torch.empty(num_objects, num_points, 2, device="meta")
    labels = torch.ones(num_objects, num_points, device="meta", dtype=torch.int32)
    mask_input = torch.empty(num_objects, 1, low, low, device="meta")
    decoded = model.decode(features, pixels, points, labels, mask_input)
    assert decoded.masks.shape == (num_objects, 4, low, low)
    assert decoded.iou.shape == (num_objects, 4)
    assert decoded.mask_tokens.shape == (num_objects, 4, dim)
    assert decoded.object_score.shape == (num_objects, 1)

    prompt_mask = torch.empty(num_objects, 1, side, side, device="meta")
    for answer in (
        model.select(decoded, True),
        model.select(decoded, False),
        model.segment_mask(features, prompt_mask),
    ):
        assert answer.low_res_logits.shape == (num_objects, 1, low, low)
        assert answer.iou.shape == answer.token.shape == (num_objects,)
        assert answer.pointer.shape == (num_objects, dim)
        assert answer.object_score.shape == (num_objects, 1)
        encoded = model.encode_memory(features.stride16, answer.low_res_logits, answer.object_score, from_prompt=True)
        assert encoded.shape == (num_objects, memory_dim, grid, grid)


@pytest.mark.parametrize("config_file", LAYOUTS)
def test_state_dict_has_the_official_keys_and_shapes(config_file):
    official = {key: tuple(shape) for key, shape in LAYOUTS[config_file]["tensors"]}
    ours = {key: tuple(value.shape) for key, value in on_meta(config_file).state_dict().items()}
    assert ours == official


@pytest.mark.parametrize("config_file", LAYOUTS)
def test_number_of_parameters(config_file):
    model = on_meta(config_file)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == LAYOUTS[config_file]["n_parameters"]
    assert abs(count / 1e6 - MILLIONS[model.config.name.split("_", 2)[2]]) <= 0.1


def test_nano_is_small():
    count = sum(parameter.numel() for parameter in on_meta("nano").parameters())
    assert 1e6 < count <= 4e6


def test_what_layer_norms_add_to_the_variance_is_the_official_number():
    """Pseudo-random weights hardly show it: their activations vary far more."""
    norms = [(name, part) for name, part in on_meta("nano").named_modules() if isinstance(part, torch.nn.LayerNorm)]
    trunk, default = 1e-6, 1e-5
    assert {(name.partition(".")[0], part.eps) for name, part in norms} == {
        ("image_encoder", trunk), ("memory_attention", default), ("sam_mask_decoder", default),
    }  # fmt: skip
