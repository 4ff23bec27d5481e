"""An MLP, layer norm over channels, and a way to run a function in slices that fit the cache."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sam2.linear import Linear

_ROWS = 2048  # tokens per slice, for each CPU thread


def in_slices(function: Callable[[Tensor], Tensor], x: Tensor, items: int = 1) -> Tensor:
    """function(x), where the function treats every item (a token, or a window of tokens) independently. The last
    `items` dimensions of x are those of one item, the very last its channels.

    On a CPU the function runs on slices of x, so that wide intermediate values stay in the cache instead of passing
    through memory newly requested from the system.
    """
    flat = x.flatten(0, -items - 1)
    rows = max(1, _ROWS * torch.get_num_threads() // flat[0, ..., 0].numel())
    if x.device.type != "cpu" or torch.is_grad_enabled() or flat.shape[0] <= rows:
        return function(x)
    return torch.cat([function(part) for part in flat.split(rows)]).unflatten(0, x.shape[:-items])


class MLP(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(self, dim_in: int, dim_hidden: int, dim_out: int, num_layers: int, activation: str = "relu"):
        super().__init__()
        dims = [dim_in] + [dim_hidden] * (num_layers - 1) + [dim_out]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in zip(dims, dims[1:], strict=False))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim_in) -> (..., dim_out)"""
        return in_slices(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, self.activation)
        return self.layers[-1](x)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        x = x - x.mean(1, keepdim=True)
        x = x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]
