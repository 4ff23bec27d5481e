"""Paints sprites over a picture: warped, with motion blur and a shadow.

Knows pixels and matrices; nothing of scenes or time. The mask of a sprite comes from the same alpha that blends it, so
truth and picture cannot differ.
"""

import cv2
import numpy as np

from sam2.training.motion import affine
from sam2.training.shapes import Sprite

_MAX_EXPOSURES = 4  # positions averaged for motion blur, one for every two pixels of movement
_CORNERS = np.array([[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]], np.float64)


def paint(rgb: np.ndarray, layers: np.ndarray, layer: int, sprite: Sprite, ends: tuple[np.ndarray, np.ndarray]) -> None:
    """Blends `sprite` over `rgb` (H, W, 3) and writes `layer` into `layers` (H, W) where it covers more than half.

    ends: (3, 3) maps from the sprite's pixels to the picture's when the shutter opens and closes.
    """
    window = _window(sprite.alpha.shape, ends, layers.shape, margin=0)
    if window is None:
        return
    covering = _expose(sprite.rgba, ends, window)
    colour, alpha = cv2.cvtColor(covering, cv2.COLOR_RGBA2RGB), cv2.extractChannel(covering, 3)
    weight = alpha * np.float32(1 / 255)
    below = rgb[window]
    below[...] = cv2.blendLinear(colour, np.ascontiguousarray(below), weight, 1 - weight)
    np.copyto(layers[window], layer, where=alpha > 127)


def cast_shadow(
    rgb: np.ndarray, sprite: Sprite, matrix: np.ndarray, offset_xy: tuple[float, float], darkness: float
) -> None:
    """Darkens the picture in the shape of a sprite placed by `matrix`, shifted by `offset_xy` pixels and blurred."""
    softness = max(1, round(0.5 * float(np.hypot(*offset_xy))))
    placed = affine(offset_xy, 0.0, (1, 1), (0, 0)) @ matrix
    window = _window(sprite.alpha.shape, (placed, placed), rgb.shape[:2], margin=2 * softness)
    if window is None:
        return
    alpha = _warp(np.ascontiguousarray(sprite.alpha), placed, window)
    alpha = cv2.blur(alpha, (2 * softness + 1, 2 * softness + 1))
    light = cv2.addWeighted(alpha, -darkness, alpha, 0, 255)
    below = rgb[window]
    below[...] = cv2.multiply(np.ascontiguousarray(below), cv2.merge([light] * 3), scale=1 / 255)


def _expose(rgba: np.ndarray, ends: tuple[np.ndarray, np.ndarray], window: tuple[slice, slice]) -> np.ndarray:
    """(h, w, 4) uint8: the sprite in the window, averaged over the time that the shutter is open."""
    height, width = rgba.shape[:2]
    way = np.abs((ends[1] - ends[0])[:2] @ (_CORNERS * [[width], [height], [1]])).max()
    count = int(np.clip(np.ceil(way / 2), 1, _MAX_EXPOSURES))
    shares = (np.arange(count) + 0.5) / count
    images = [_warp(rgba, (1 - share) * ends[0] + share * ends[1], window) for share in shares]
    if count == 1:
        return images[0]
    total = images[0].astype(np.float32)
    for image in images[1:]:
        cv2.accumulate(image, total)
    return cv2.convertScaleAbs(total, alpha=1 / count)


def _window(
    shape: tuple[int, int], ends: tuple[np.ndarray, np.ndarray], size_hw: tuple[int, int], margin: int
) -> tuple[slice, slice] | None:
    """The part of the picture that a sprite of `shape` can reach between its ends; None if it lies outside."""
    corners = np.concatenate([matrix[:2] @ (_CORNERS * [[shape[1]], [shape[0]], [1]]) for matrix in ends], axis=1)
    (left, top), (right, bottom) = corners.min(axis=1).tolist(), corners.max(axis=1).tolist()
    left, top = max(int(left) - 1 - margin, 0), max(int(top) - 1 - margin, 0)
    right, bottom = min(int(right) + 2 + margin, size_hw[1]), min(int(bottom) + 2 + margin, size_hw[0])
    return np.s_[top:bottom, left:right] if left < right and top < bottom else None


def _warp(image: np.ndarray, matrix: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """The warped `image` in the window. Its border pixels are replicated outwards: they have alpha 0, or continue a
    pillar beyond its end."""
    rows, columns = window
    shifted = matrix[:2].copy()
    shifted[:, 2] -= columns.start, rows.start
    size = (columns.stop - columns.start, rows.stop - rows.start)
    return cv2.warpAffine(image, shifted, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
