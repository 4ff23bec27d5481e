"""The two small blocks everyone uses."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS = 2048  # tokens that go through an MLP at a time on a CPU


def in_slices(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x) for a function of each token alone, x (..., C); on a CPU in slices whose wide intermediate values
    stay in the cache, instead of passing through memory freshly got from the system."""
    tokens = x.flatten(0, -2)
    if x.device.type != "cpu" or torch.is_grad_enabled() or tokens.shape[0] <= _ROWS:
        return function(x)
    return torch.cat([function(part) for part in tokens.split(_ROWS)]).unflatten(0, x.shape[:-1])


class MLP(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(
        self,
        dim_in: int,
        dim_hidden: int,
        dim_out: int,
        num_layers: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ):
        super().__init__()
        dims = [dim_in] + [dim_hidden] * (num_layers - 1) + [dim_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(dims, dims[1:], strict=False))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return in_slices(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        x = x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]
