"""Procedural colour textures: noise, stripes, checks, spots, gradients, patches, marble, 1/f clutter.

A texture is a scalar field looked up in a palette, so that its colours belong together as they do in photographs.
Knows nothing about shapes, motion or cameras. Everything is a function of the numpy Generator it is given.
"""

import cv2
import numpy as np

_CONTRAST = 52  # palette entries per standard deviation of the field
_DARKEST = np.float32(-128 / _CONTRAST)


def noise(rng: np.random.Generator, size_hw: tuple[int, int], persistence: float, coarsest: int = 3) -> np.ndarray:
    """(H, W) float32 of zero mean and unit variance, doubling in frequency per octave.

    `persistence` is the amplitude ratio of successive octaves: 1 gives the 1/f amplitude spectrum of natural images
    (equal contrast per octave), 0.4 soft clouds.
    """
    height, width = size_hw
    aspect = height / width
    field: np.ndarray = rng.standard_normal((max(2, round(coarsest * aspect)), coarsest), dtype=np.float32)
    cells, amplitude = coarsest, 1.0
    while 2 * cells <= width and amplitude > 0.02:
        cells, amplitude = 2 * cells, amplitude * persistence
        shape = (max(2, round(cells * aspect)), cells)
        coarser = cv2.resize(field, shape[::-1], interpolation=cv2.INTER_LINEAR)
        field = coarser + amplitude * rng.standard_normal(shape, dtype=np.float32)
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    mean, deviation = cv2.meanStdDev(field)
    return (field - np.float32(mean[0, 0])) * np.float32(1 / (deviation[0, 0] + 1e-6))


def palette(rng: np.random.Generator) -> np.ndarray:
    """(256, 3) uint8 RGB: a smooth ramp through two to five related colours."""
    stops = int(rng.integers(2, 6))
    hue = rng.uniform(0, 360) + rng.normal(0, rng.choice([8, 30, 120]), stops)
    saturation = np.clip(rng.beta(1.2, 2.0) + rng.normal(0, 0.12, stops), 0, 1)
    value = np.clip(rng.uniform(0.2, 0.9) + rng.normal(0, rng.uniform(0.05, 0.3), stops), 0.06, 0.97)
    hsv = np.stack([hue % 360, saturation, value], axis=-1).astype(np.float32)  # (stops, 3)
    rgb = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0] * 255
    ramp = np.linspace(0, stops - 1, 256)
    return np.stack([np.interp(ramp, np.arange(stops), rgb[:, c]) for c in range(3)], axis=-1).astype(np.uint8)


def texture(rng: np.random.Generator, size_hw: tuple[int, int], colours: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) uint8 of a random family, in `colours` ((256, 3) uint8) or a palette of its own."""
    colours = palette(rng) if colours is None else colours
    family = _FAMILIES[int(rng.integers(len(_FAMILIES)))]
    field = family(rng, size_hw)
    if rng.random() < 0.7:
        field = field + rng.uniform(0.1, 0.5) * noise(rng, size_hw, rng.uniform(0.6, 1.0), coarsest=6)
    levels = cv2.convertScaleAbs(np.maximum(field, _DARKEST), alpha=_CONTRAST, beta=128)
    return cv2.applyColorMap(levels, colours[:, None])


def background(rng: np.random.Generator, size_hw: tuple[int, int], colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: a wall, often a floor, and flat clutter that looks like objects but never moves."""
    height, width = size_hw
    canvas = texture(rng, size_hw, colours)
    if rng.random() < 0.6:
        left, right = np.clip(rng.normal(0.6, 0.12) + rng.normal(0, 0.08, 2), 0.3, 0.9) * height
        floor = np.array([[0, left], [width, right], [width, height], [0, height]], np.int32)
        mask = cv2.fillPoly(np.zeros(size_hw, np.uint8), [floor], 255)
        cv2.copyTo(texture(rng, size_hw), mask, canvas)
    mask = np.zeros(size_hw, np.uint8)
    for _ in range(int(rng.integers(0, 12))):
        corners = _rough_polygon(rng, size_hw)
        if rng.random() < 0.5:
            cv2.fillPoly(mask, [corners], 255, cv2.LINE_8, 4)
        else:
            colour = tuple(int(c) for c in colours[rng.integers(256)])
            cv2.fillPoly(canvas, [corners], colour, cv2.LINE_AA, 4)
    if mask.any():
        cv2.copyTo(texture(rng, size_hw), mask, canvas)
    return canvas


def _rough_polygon(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """(V, 2) int32 corners with four fractional bits."""
    corners = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(0.03, 0.2) * min(size_hw) * rng.uniform(0.6, 1.4, corners)
    centre = rng.uniform(0, 1, 2) * np.array(size_hw[::-1])
    points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return np.round(points * 16).astype(np.int32)


def _along(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) float32: position along a random direction, the larger side being 1."""
    angle = rng.uniform(0, 2 * np.pi)
    y = np.arange(size_hw[0], dtype=np.float32)[:, None] * np.float32(np.sin(angle) / max(size_hw))
    x = np.arange(size_hw[1], dtype=np.float32)[None, :] * np.float32(np.cos(angle) / max(size_hw))
    return y + x


def _clouds(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    return noise(rng, size_hw, rng.uniform(0.35, 0.7), coarsest=int(rng.integers(2, 8)))


def _natural(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    return noise(rng, size_hw, rng.uniform(0.8, 1.05))


def _plain(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    return np.float32(rng.normal()) + 0.15 * noise(rng, size_hw, 0.8)


def _gradient(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    ramp = _along(rng, size_hw)
    return (ramp - ramp.mean()) * np.float32(rng.uniform(2, 5))


def _stripes(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    phase = _along(rng, size_hw) * np.float32(2 * np.pi * np.exp(rng.uniform(np.log(3), np.log(20))))
    if rng.random() < 0.4:
        phase += np.float32(rng.uniform(0.3, 2.5)) * noise(rng, size_hw, 0.4)
    return np.float32(1.2) * np.clip(np.sin(phase) * np.float32(rng.choice([1.0, 6.0])), -1, 1)


def _checks(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    frequency = np.float32(2 * np.pi * np.exp(rng.uniform(np.log(2), np.log(10))))
    angle = rng.uniform(0, np.pi)
    y = np.arange(size_hw[0], dtype=np.float32)[:, None] * (frequency / np.float32(max(size_hw)))
    x = np.arange(size_hw[1], dtype=np.float32)[None, :] * (frequency / np.float32(max(size_hw)))
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.clip(8 * np.sin(cos * x + sin * y) * np.sin(cos * y - sin * x), -1.1, 1.1)


def _spots(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    field = np.full(size_hw, -0.8, np.float32)
    radius = np.exp(rng.uniform(np.log(0.02), np.log(0.1))) * max(size_hw)
    count = min(150, int(0.3 * size_hw[0] * size_hw[1] / (np.pi * radius**2)) + 3)
    centres = (rng.uniform(0, 16, (count, 2)) * np.array(size_hw[::-1])).astype(int)
    for (x, y), size in zip(centres.tolist(), rng.uniform(0.5, 1.4, count).tolist(), strict=True):
        cv2.circle(field, (x, y), max(16, int(16 * radius * size)), 1.2, -1, cv2.LINE_8, 4)
    return field


def _patches(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    cells = rng.integers(2, 9, 2)
    grid = rng.standard_normal(tuple(cells), dtype=np.float32)
    return cv2.resize(grid, size_hw[::-1], interpolation=cv2.INTER_NEAREST)


def _marble(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    return np.float32(1.2) * np.sin(np.float32(rng.uniform(2, 7)) * noise(rng, size_hw, rng.uniform(0.35, 0.6)))


_FAMILIES = (_clouds, _natural, _natural, _plain, _plain, _gradient, _stripes, _checks, _spots, _patches, _marble)
