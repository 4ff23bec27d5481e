"""The inputs of the golden numbers: pseudo-random weights and a synthetic clip, both reproducible anywhere.

The recipes are written out in `test/golden/README.md`; the SHA-256 of both results is in its manifest.
"""

import re
import zlib
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256

import numpy as np
import torch

GAINS = {"obj_ptr_proj.layers.2.weight": 8, "obj_ptr_tpos_proj.weight": 4, "memory_encoder.out_proj.weight": 0.5}


@lru_cache(maxsize=1)
def synthetic_clip() -> np.ndarray:
    """The clip of the README's recipe, (24, 480, 640, 3) uint8: a texture that slides and two discs that cross."""
    y, x = np.mgrid[:480, :640]
    texture = np.random.RandomState(7).randint(40, 200, (30, 40, 3)).repeat(16, axis=0).repeat(16, axis=1)
    frames = []
    for t in range(24):
        frame = np.roll(texture, (t, 2 * t), axis=(0, 1)) - 2 * t
        frame[(x // 32 + y // 32) % 2 == 1] += 20
        discs = ((120 + 14 * t, 200 + 6 * t, 60, (230, 60, 40)), (500 - 16 * t, 300 - 5 * t, 45, (40, 90, 235)))
        for cx, cy, radius, colour in discs:
            inside = (x - cx) ** 2 + (y - cy) ** 2 <= radius**2
            frame[inside] = colour
            frame[inside & ((x - cx) // 8 % 2 == 0)] -= 30
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def pseudo_random(key: str, shape: tuple[int, ...], salt: str = "") -> torch.Tensor:
    """The weights rule: a float32 tensor that depends on nothing but its name and shape."""
    x = np.random.RandomState(zlib.crc32((salt + key).encode())).standard_normal(shape)
    leaf = key.split(".")[-1]
    if leaf == "bias":
        x *= 0.05
    elif leaf != "positional_encoding_gaussian_matrix":
        if len(shape) == 1:
            x = 1 + 0.1 * x
        elif leaf == "weight" and not re.search(r"(_embed|_tokens?|point_embeddings\.\d)\.weight$", key):
            x = GAINS.get(key, 1) * x / np.sqrt(np.prod(shape[1:]))
        else:
            x *= 0.5
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


@lru_cache(maxsize=2)
def _weights(layout: tuple[tuple[str, tuple[int, ...]], ...], salt: str) -> dict[str, torch.Tensor]:
    return {key: pseudo_random(key, shape, salt) for key, shape in layout}


def golden_weights(shapes: Mapping[str, torch.Tensor], case: dict) -> dict[str, torch.Tensor]:
    """Tensors for the keys and shapes of a state dict, with the case's overrides; shared between cases, not to be
    written to."""
    layout = tuple((key, tuple(value.shape)) for key, value in shapes.items())
    weights = dict(_weights(layout, case.get("salt", "")))
    for key, value in case.get("overrides", {}).items():
        weights[key] = torch.full_like(weights[key], value)
    return weights


def weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """The manifest's hash: of each key's bytes and then its little-endian float32 values, keys sorted."""
    digest = sha256()
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(weights[key].numpy(), dtype="<f4").data)
    return digest.hexdigest()
