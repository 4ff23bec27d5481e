"""What light, lens and sensor do to a clean rendering: lighting, brightness drift, blur, noise, compression.

Knows nothing about what is in the picture and moves no edge, so the ground truth stays true. Motion blur is not here:
`Optics.shutter` only says how long the shutter is open, and `painting` draws the blur.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np

from sam2.training import textures
from sam2.training.motion import Wave, random_wave

_UNIT_LIGHT = 128  # this value in the light map leaves a pixel as it is
_TILE_MARGIN = 32  # pixels by which the noise tile may be shifted, per axis
_TILE_DEVIATION = 32  # grey levels
_NORMAL_LEVELS = np.array(  # the quantiles of that noise: random bytes, looked up here, become normal noise
    [round(128 + _TILE_DEVIATION * NormalDist().inv_cdf((i + 0.5) / 256)) for i in range(256)], np.uint8
)


@dataclass(frozen=True)
class Optics:
    """Per-clip settings; `expose` applies them to one frame."""

    light: np.ndarray  # (H, W, 3) uint8, 128 = unchanged
    gain: Wave
    noise_tile: np.ndarray  # (H + 32, W + 32, 3) uint8 around 128
    noise_level: float  # standard deviation in grey levels
    blur: float  # standard deviation in pixels; 0 = sharp
    jpeg_quality: int  # 0 = no compression
    shutter: float  # how long it is open, in frames

    def expose(self, rgb: np.ndarray, t: int, rng: np.random.Generator) -> np.ndarray:
        """Returns frame `t` (H, W, 3) uint8 as the camera delivers it; `rgb` is not changed."""
        out = cv2.multiply(rgb, self.light, scale=max(0.2, self.gain(t)) / _UNIT_LIGHT)
        if self.blur > 0:
            out = cv2.GaussianBlur(out, (0, 0), self.blur)
        if self.noise_level > 0:
            y, x = rng.integers(0, _TILE_MARGIN, 2)
            tile = self.noise_tile[y : y + rgb.shape[0], x : x + rgb.shape[1]]
            strength = self.noise_level / _TILE_DEVIATION
            out = cv2.addWeighted(out, 1.0, tile, strength, -128 * strength)
        if self.jpeg_quality:
            bgr = cv2.cvtColor(out, cv2.COLOR_RGB2BGR)
            _, packed = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
            decoded = cv2.imdecode(packed, cv2.IMREAD_COLOR)
            assert decoded is not None  # only what is no JPEG gives None
            out = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return out


def random_optics(rng: np.random.Generator, size_hw: tuple[int, int], strength: float) -> Optics:
    """Settings of one clip; `strength` scales every fault (0 = even light, sharp, no noise)."""
    height, width = size_hw
    small = (max(4, height // 8), max(4, width // 8))
    shade = 1 + 0.22 * strength * rng.uniform(0, 1) * textures.noise(rng, small, 0.3, coarsest=2)
    colour = 1 + 0.08 * strength * rng.normal(0, 1, 3)
    light = np.clip(_UNIT_LIGHT * shade[..., None] * colour, 30, 250).astype(np.uint8)
    tile_shape = (height + _TILE_MARGIN, width + _TILE_MARGIN, 3)
    tile = cv2.LUT(np.frombuffer(rng.bytes(math.prod(tile_shape)), np.uint8).reshape(tile_shape), _NORMAL_LEVELS)
    return Optics(
        light=cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR),
        gain=random_wave(rng, 1.0, (0.12 * strength, 0.03 * strength), (120, 25)),
        noise_tile=tile,
        noise_level=float(strength * rng.choice([0, 2, 5, 10], p=[0.3, 0.35, 0.25, 0.1])),
        blur=float(strength * min(size_hw) / 256 * rng.choice([0, 0.5, 0.8, 1.3], p=[0.5, 0.25, 0.15, 0.1])),
        jpeg_quality=int(rng.integers(35, 90)) if rng.random() < 0.3 * strength else 0,
        shutter=float(strength * rng.choice([0.0, rng.uniform(0.1, 0.6)], p=[0.3, 0.7])),
    )
