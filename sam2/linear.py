"""Matrix products of fp32 tokens and weights, with the fastest kernels for the device.

On a CPU PyTorch multiplies fp32 matrices with MKL, which leaves half of a non-Intel processor unused. oneDNN, which
PyTorch ships too, uses all of it and applies GELU before the result leaves the cache: the same arithmetic in another
order. Its kernels have no gradients, so training uses PyTorch's own.
"""

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}
_HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and platform.machine() in ("x86_64", "AMD64")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class Linear(nn.Linear):
    """`nn.Linear` with an activation: "none", "relu" or "gelu" (the exact one)."""

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        """(..., in) -> (..., out)"""
        return linear(x, self.weight, self.bias, activation)

    def plain(self, x: Tensor) -> Tensor:
        """PyTorch's own product, for few rows whose number varies: oneDNN would compile and keep a kernel for each."""
        return F.linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """activation(x weightᵀ + bias): x (..., K), weight (M, K), bias (M,) -> (..., M)."""
    if not prefers_onednn(x):
        return _ACTIVATIONS[activation](F.linear(x, weight, bias))
    if activation == "gelu":
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "gelu", [], "none")  # the exact one
    # oneDNN's own ReLU turns NaN into 0, which would hide non-finite values.
    return _ACTIVATIONS[activation](torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], ""))


class Conv1x1(nn.Conv2d):
    """A convolution of single pixels: a linear layer of their channels."""

    def __init__(self, channels: int, channels_out: int):
        super().__init__(channels, channels_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)"""
        if not prefers_onednn(x):
            return super().forward(x)
        return linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def prefers_onednn(x: Tensor) -> bool:
    """Whether oneDNN can and should multiply x: float32 on an x86 CPU, without gradients, autocast or `torch.compile`,
    which has kernels of its own and fails at this operator."""
    return (
        _HAS_ONEDNN
        and x.device.type == "cpu"
        and x.dtype is torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
