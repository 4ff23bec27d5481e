"""Outlines and sprites: what an object looks like before it moves.

An outline lives in the unit disc; a sprite is an outline drawn at a size, filled with a texture and shaded. Knows
nothing about motion, cameras or scenes.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from sam2.training import textures

_SHIFT = 6  # fractional bits of the coordinates given to fillPoly
_MARGIN = 2  # empty pixels around the outline, so that interpolation fades to nothing


@dataclass(frozen=True)
class Sprite:
    """A textured shape: the object is where alpha is above 127. The texture fills the whole rectangle."""

    rgba: np.ndarray  # (h, w, 4) uint8: OpenCV warps four channels much faster than three

    @property
    def alpha(self) -> np.ndarray:
        return self.rgba[..., 3]


@dataclass(frozen=True)
class Outline:
    """A union of groups; inside a group the even-odd rule holds, so a second contour is a hole."""

    groups: tuple[tuple[np.ndarray, ...], ...]  # contours (V, 2) float64, |xy| <= 1

    def alpha(self, side: int) -> np.ndarray:
        """(side, side) uint8 with anti-aliased edges."""
        radius = side / 2 - _MARGIN
        canvas = np.zeros((side, side), np.uint8)
        for group in self.groups:
            contours = [np.round((c * radius + (side - 1) / 2) * (1 << _SHIFT)).astype(np.int32) for c in group]
            cv2.fillPoly(canvas, contours, 255, cv2.LINE_AA, _SHIFT)
        # An anti-aliased edge can reach the border, and `painting` replicates border pixels outwards.
        canvas[[0, -1]] = 0
        canvas[:, [0, -1]] = 0
        return canvas

    def fill(self) -> float:
        """The share that it covers of the square around the unit disc."""
        return float((self.alpha(64) > 127).sum()) / (64 - 2 * _MARGIN) ** 2


def random_outline(rng: np.random.Generator) -> Outline:
    """A polygon, star, blob, ellipse, box, cross, ring, frame, or a union of two or three of them."""
    if rng.random() < 0.2:
        parts = [_primitive(rng) for _ in range(int(rng.integers(2, 4)))]
        groups = [
            [c * rng.uniform(0.5, 0.8) + shift for c in p] for p in parts for shift in [rng.uniform(-0.4, 0.4, 2)]
        ]
    else:
        groups = [_primitive(rng)]
    points = np.concatenate([c for group in groups for c in group])
    centre = (points.max(axis=0) + points.min(axis=0)) / 2
    radius = np.linalg.norm(points - centre, axis=1).max()
    return Outline(tuple(tuple((c - centre) / radius for c in group) for group in groups))


def _primitive(rng: np.random.Generator) -> list[np.ndarray]:
    """Contours of one even-odd group."""
    kind = rng.choice(["polygon", "star", "blob", "ellipse", "box", "cross"], p=[0.18, 0.1, 0.32, 0.16, 0.16, 0.08])
    outer = _CONTOURS[kind](rng)
    stretch = np.array([1.0, rng.uniform(0.4, 1.0)])
    contours = [outer * stretch]
    if rng.random() < 0.15:
        contours.append(contours[0] * rng.uniform(0.35, 0.65))
    return contours


def _circle(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)


def _polygon(rng: np.random.Generator) -> np.ndarray:
    corners = int(rng.integers(3, 9))
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    return _circle(angles, rng.uniform(0.65, 1.0, corners))


def _star(rng: np.random.Generator) -> np.ndarray:
    points = int(rng.integers(4, 8))
    radii = np.where(np.arange(2 * points) % 2, rng.uniform(0.4, 0.7), 1.0)
    return _circle(np.arange(2 * points) * np.pi / points, radii)


def _blob(rng: np.random.Generator) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    orders = np.arange(2, 8)
    amplitudes = rng.normal(0, rng.uniform(0.1, 0.35), orders.size) / orders**0.8
    waves = amplitudes[:, None] * np.cos(orders[:, None] * angles + rng.uniform(0, 2 * np.pi, (orders.size, 1)))
    return _circle(angles, np.clip(1 + waves.sum(axis=0), 0.25, 2.0))


def _ellipse(rng: np.random.Generator) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    power = rng.choice([1.0, 0.5, 0.7])  # below 1: a rounded box
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power], axis=-1)


def _box(rng: np.random.Generator) -> np.ndarray:
    skew = rng.uniform(0.0, 0.3)
    return np.array([[-1.0 + skew, -1.0], [1.0 - skew, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def _cross(rng: np.random.Generator) -> np.ndarray:
    a = rng.uniform(0.25, 0.5)
    quarter = np.array([[1.0, -a], [1.0, a], [a, a]])
    turns = [np.array([[np.cos(k), -np.sin(k)], [np.sin(k), np.cos(k)]]) for k in np.arange(4) * np.pi / 2]
    return np.concatenate([quarter @ turn.T for turn in turns])


_CONTOURS = {"polygon": _polygon, "star": _star, "blob": _blob, "ellipse": _ellipse, "box": _box, "cross": _cross}


def make_sprite(rng: np.random.Generator, outline: Outline, side: int, colours: np.ndarray | None) -> Sprite:
    """`outline` drawn `side` pixels wide, textured (in `colours`, (256, 3) uint8, if given), shaded, maybe labelled."""
    alpha = outline.alpha(side)
    rgb = textures.texture(rng, (side, side), colours)
    if rng.random() < 0.3:
        rgb = _with_label(rng, rgb)
    return Sprite(np.dstack((_shaded(rng, rgb, alpha), alpha)))


def _with_label(rng: np.random.Generator, rgb: np.ndarray) -> np.ndarray:
    """A second texture across a band or a patch, as on packaging."""
    side = rgb.shape[0]
    low, high = np.sort(rng.uniform(0.15, 0.85, 2) * side).astype(int)
    left, right = (0, side) if rng.random() < 0.5 else np.sort(rng.uniform(0.1, 0.9, 2) * side).astype(int)
    rgb[low : high + 2, left : right + 2] = textures.texture(rng, (side, side))[low : high + 2, left : right + 2]
    return rgb


def _shaded(rng: np.random.Generator, rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Light from one side on a rounded or flat body, with a darker or brighter rim at times."""
    distance = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
    depth = np.minimum(distance / max(2.0, float(distance.max()) * rng.uniform(0.3, 1.0)), 1.0)
    height = cv2.blur(np.sqrt(np.maximum(1 - (1 - depth) ** 2, 0)).astype(np.float32), (3, 3))
    angle, side = rng.uniform(0, 2 * np.pi), rgb.shape[0]
    relief = rng.choice([0.0, 0.04, 0.08]) * side
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0) * np.cos(angle) + cv2.Sobel(height, cv2.CV_32F, 0, 1) * np.sin(angle)
    light = 1 + np.clip(slope * np.float32(relief / 8), -0.55, 0.45)
    if rng.random() < 0.3:
        light *= np.where(distance < 0.03 * side + 1, np.float32(rng.uniform(0.4, 1.3)), np.float32(1))
    light = cv2.merge([light.astype(np.float32)] * 3)
    return cv2.multiply(rgb, light, dtype=cv2.CV_8U)
