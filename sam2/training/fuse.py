"""Compiled stages for training on a GPU, where a small network spends most of its time on memory traffic.

Compiling takes up to half a minute for each combination of shapes, so only combinations that make up half of the recent
eager calls are compiled; the others, and calls without gradients, run eagerly. The numbers differ by rounding.
"""

import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException  # it has no public name

from sam2.training.lessons import Lessons

_AMONG = 40  # recent eager calls; a combination that is half of them is compiled

Compile = Callable[[Callable], Callable]


class Fused:
    """A function of tensors and constants, compiled for combinations of shapes that come often.

    If tracing or compiling fails, it warns once and runs eagerly from then on. Failures in the backward pass are
    raised.
    """

    def __init__(self, function: Callable, compiled: Compile):
        self._plain, self._compiled = function, compiled(function)
        self._recent: deque[tuple] = deque(maxlen=_AMONG)
        self._usual: set[tuple] = set()
        self._can_compile = True

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        key = tuple(map(_kind, (*inputs, *(value for _, value in sorted(named.items())))))
        if torch.is_grad_enabled() and self._can_compile and self._comes_often(key):
            try:
                return self._compiled(*inputs, **named)
            except TorchDynamoException as error:
                self._can_compile = False
                warnings.warn(f"training goes on without compiling: {str(error).splitlines()[0]}", stacklevel=2)
        return self._plain(*inputs, **named)

    def _comes_often(self, key: tuple) -> bool:
        """Whether calls like this one are frequent; records the call."""
        if key in self._usual:
            return True
        self._recent.append(key)
        if 2 * self._recent.count(key) < _AMONG:
            return False
        self._recent.clear()
        self._usual.add(key)
        return True


def _kind(x: object) -> object:
    """What a compiled program depends on: a tensor's shape, dtype and requires_grad; any other value itself."""
    return (x.shape, x.dtype, x.requires_grad) if isinstance(x, Tensor) else x


def _compile(function: Callable) -> Callable:
    return torch.compile(function, dynamic=False)


def fuse(lessons: Lessons, compiled: Compile = _compile) -> None:
    """Replaces the parts that `Lessons` runs on every frame by `Fused` ones: image encoder, decoder, memory encoder
    and losses."""
    model = lessons.model
    for owner, name in (
        (model.image_encoder, "forward"),
        (model.sam_mask_decoder, "forward"),
        (model, "encode_memory"),
        (lessons, "segmentation_loss"),
    ):
        setattr(owner, name, Fused(getattr(owner, name), compiled))
