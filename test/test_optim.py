"""Our Muon against PyTorch's; rates, the average of the weights, and what a random model begins with."""

import pytest
import torch
from small_training import small_model
from torch.nn import Parameter

from sam2.training import optim
from sam2.training.config import Phase
from sam2.training.optim import Muon

SHAPES = ((64, 32), (64, 32), (32, 128), (48, 48))  # two of a shape, tall, wide, square


def trained(make) -> torch.Tensor:
    """Five steps from the same start with the same gradients -> the weights; a parameter without gradient stays."""
    torch.manual_seed(0)
    parameters = [Parameter(0.1 * torch.randn(shape)) for shape in SHAPES]
    idle = Parameter(torch.ones(64, 32))
    optimizer = make([{"params": [*parameters, idle], "weight_decay": 0.1}])
    optimizer.param_groups[0]["lr"] = 1e-2
    for _ in range(5):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
    assert torch.equal(idle, torch.ones(64, 32))
    return torch.cat([p.detach().flatten() for p in parameters])


def difference(momentum: float = 0.95) -> float:
    """Of the weights after five steps, relative to the way they went."""
    mine = trained(Muon)
    theirs = trained(
        lambda groups: torch.optim.Muon(groups, 0.0, momentum=momentum, ns_steps=3, adjust_lr_fn="match_rms_adamw")
    )
    torch.manual_seed(0)
    start = torch.cat([0.1 * torch.randn(shape).flatten() for shape in SHAPES])
    return ((mine - theirs).norm() / (theirs - start).norm()).item()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_matrices_together_take_the_steps_they_take_one_by_one():
    """Measured 2e-7; the smallest mutation, momentum 0.94: 1e-2."""
    assert difference() <= 1e-5
    assert difference(momentum=0.94) > 1e-3


def test_a_run_goes_on_with_its_momenta():
    torch.manual_seed(0)
    weights = {"m": Parameter(torch.randn(8, 4)), "v": Parameter(torch.randn(8))}
    module = torch.nn.ParameterDict(weights)
    optimizer = optim.make_optimizer(module, weight_decay=0.0, layer_decay=1.0, muon=2.0)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    again = optim.make_optimizer(module, weight_decay=0.0, layer_decay=1.0, muon=2.0)
    again.load_state_dict(optimizer.state_dict())
    assert torch.equal(again.parts["muon"].state[module["m"]]["momentum_buffer"], torch.full((8, 4), 0.05))


def test_a_matrix_is_moved_towards_an_orthogonal_one():
    """Measured: singular values of 0.07 to 0.38, of 0.68 to 1.13 afterwards."""
    torch.manual_seed(0)
    matrices = torch.randn(3, 20, 40)
    matrices /= torch.linalg.matrix_norm(matrices, keepdim=True)
    assert torch.linalg.svdvals(matrices).max() < 0.5
    values = torch.linalg.svdvals(optim.orthogonalised(matrices))
    assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize(("progress", "warm", "rate"), [(1.5, 1.0, 1e-4), (0.0, 3.0, 1e-3), (1.5, 0.5, 5e-5)])
def test_rates_stay_where_a_phase_and_its_warm_up_end(progress, warm, rate):
    optimizer = optim.make_optimizer(torch.nn.Linear(2, 2), weight_decay=0.0, layer_decay=1.0)
    phase = Phase("clips", 1.0, batch=1, objects=1, rate=(1e-3, 1e-4))
    assert optim.set_rates(optimizer, phase, progress, warm) == pytest.approx(rate)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(rate)] * len(optimizer.param_groups)


def test_a_decoder_begins_by_looking_where_its_prompt_points():
    model = small_model()
    transformer = model.sam_mask_decoder.transformer
    crossings = [transformer.final_attn_token_to_image]
    for block in transformer.layers:
        crossings += [block.cross_attn_token_to_image, block.cross_attn_image_to_token]
    before = [attention.q_proj.weight.clone() for attention in crossings]
    optim.tie_prompts(model)
    assert len(crossings) == 2 * len(transformer.layers) + 1 > 1
    for attention, weight in zip(crossings, before, strict=True):
        assert torch.equal(attention.q_proj.weight, 4 * weight)
        assert torch.equal(attention.k_proj.weight, attention.q_proj.weight)
        assert torch.equal(attention.k_proj.bias, attention.q_proj.bias)


def test_a_random_model_begins_with_small_embeddings_and_memories_that_say_where_the_mask_was():
    model = small_model()
    trunk, last = model.image_encoder.trunk, model.memory_encoder.mask_downsampler.encoder[-1]
    tables = (trunk.pos_embed, trunk.pos_embed_window, model.maskmem_tpos_enc, model.no_obj_ptr)
    with torch.no_grad():
        for table in tables:
            table.fill_(1.0)
    query = [layer.cross_attn_image.q_proj for layer in model.memory_attention.layers]
    for each in query:
        torch.nn.init.ones_(each.bias)
    weight = last.weight.clone()
    optim.prepare_from_scratch(model)
    for table in tables:
        assert 0 < table.abs().mean() < 0.02 and table.abs().max() < 0.2
    assert torch.equal(last.weight, 4 * weight) and not any(each.bias.any() for each in query)
    crossing = model.sam_mask_decoder.transformer.final_attn_token_to_image
    assert torch.equal(crossing.k_proj.weight, crossing.q_proj.weight), "prompts are tied, too"


def test_an_average_is_taken_up_again():
    torch.manual_seed(0)
    layer, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    saved = {name: value.clone() for name, value in optim.Average(layer, decay=0.5).state_dict().items()}
    average = optim.Average(other, decay=0.5)
    average.load_state_dict(saved)
    assert all(torch.equal(value, saved[name]) for name, value in average.state_dict().items())
    average.update(other, step=10**6)
    assert torch.allclose(average.state_dict()["weight"], (layer.weight + other.weight) / 2)
