"""Our Muon against PyTorch's."""

import pytest
import torch
from torch.nn import Parameter

from sam2.training import optim
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
