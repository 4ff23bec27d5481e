"""Compiled stages for training on a GPU, where most of a small network's time goes into passing values through memory.

Compiling takes up to half a minute for each combination of shapes, so of every function only the one that comes in nearly
every step is compiled; others, and whatever needs no gradient, run plainly. The numbers differ by rounding.
"""

from collections import Counter
from collections.abc import Callable

import torch

_OFTEN = 20  # calls until a combination of shapes is known to be the usual one


class Fused:
    """A function of tensors and constants, compiled for the combination of shapes that first has come often."""

    def __init__(self, function: Callable, compile_: Callable[..., Callable] = torch.compile):
        self._plain, self._fused = function, compile_(function, dynamic=False)
        self._calls: Counter[tuple] = Counter()
        self._usual: tuple | None = None

    def __call__(self, *inputs, **named):
        key = tuple(x.shape if isinstance(x, torch.Tensor) else x for x in (*inputs, *named.values()))
        return (self._fused if self._is_usual(key) else self._plain)(*inputs, **named)

    def _is_usual(self, key: tuple) -> bool:
        if not torch.is_grad_enabled():
            return False
        if self._usual is None:
            self._calls[key] += 1
            self._usual = key if self._calls[key] == _OFTEN else None
        return key == self._usual


def fuse(lessons) -> None:
    """Compiles, in place, what `Lessons` runs in every frame: image encoder, decoder, memory encoder and losses."""
    model = lessons.model
    model.image_encoder.forward = Fused(model.image_encoder.forward)
    model.sam_mask_decoder.forward = Fused(model.sam_mask_decoder.forward)
    model.encode_memory = Fused(model.encode_memory)
    lessons.segmentation_loss = Fused(lessons.segmentation_loss)
