"""Compiled stages for training on a GPU, where most of a small network's time goes into passing values through memory.

Compiling takes up to half a minute for each combination of shapes, so of every function only the one that comes in
nearly every step is compiled; others, and whatever needs no gradient, run plainly. The numbers differ by rounding.
"""

from collections import Counter
from collections.abc import Callable

import torch

_OFTEN = 20  # calls until a combination of shapes is known to be the usual one

Compile = Callable[[Callable], Callable]


class Fused:
    """A function of tensors and constants, compiled for the combination of shapes that first has come often."""

    def __init__(self, function: Callable, compiled: Compile):
        self._plain, self._compiled = function, compiled(function)
        self._calls: Counter[tuple] = Counter()
        self._usual: tuple | None = None

    def __call__(self, *inputs, **named):
        key = tuple(x.shape if isinstance(x, torch.Tensor) else x for x in (*inputs, *named.values()))
        return (self._compiled if self._is_usual(key) else self._plain)(*inputs, **named)

    def _is_usual(self, key: tuple) -> bool:
        if not torch.is_grad_enabled():
            return False
        if self._usual is None:
            self._calls[key] += 1
            self._usual = key if self._calls[key] == _OFTEN else None
        return key == self._usual


def _compile(function: Callable) -> Callable:
    return torch.compile(function, dynamic=False)


def fuse(lessons, compiled: Compile = _compile) -> None:
    """Compiles, in place, what `Lessons` runs in every frame: image encoder, decoder, memory encoder and losses."""
    model = lessons.model
    for module in (model.image_encoder, model.sam_mask_decoder):
        module.forward = Fused(module.forward, compiled)
    model.encode_memory = Fused(model.encode_memory, compiled)
    lessons.segmentation_loss = Fused(lessons.segmentation_loss, compiled)
