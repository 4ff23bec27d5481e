"""The synthetic world: endless video of textured objects with true masks, visibility and depth.

A world is a function of its seed, size and difficulty: frames can be computed in any order and are the same to the last
bit each time. `scene` says what is there and `painting` draws it; knows nothing about training.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from sam2.training import optics
from sam2.training.motion import affine
from sam2.training.painting import cast_shadow, paint
from sam2.training.scene import BACKGROUND_M, GENTLE, Body, Difficulty, random_scene

HELD_OUT_SEED = 1_000_000  # seeds from here on are for evaluation and are never trained on
_SLIVER = 1.5e-4  # share of the image below which an object counts as not visible, and its mask is left empty
_BACKGROUND_ROLL = 0.5  # share of the camera's roll that the background follows, since it is not endless
_LONGEST_SMEAR = 0.4  # motion blur, as a share of a body's reach


@dataclass(frozen=True)
class WorldFrame:
    """One frame; K objects, those in front cover those behind."""

    rgb: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (K, H, W) bool, the visible part of each object, disjoint
    visible: np.ndarray  # (K,) bool: its mask is not empty
    depth_m: np.ndarray  # (H, W) float32 metres along the optical axis
    intrinsics: np.ndarray  # (3, 3) float64 of the pinhole camera, pixels


class World:
    """`frame(t)` for any integer t >= 0; constant memory."""

    def __init__(self, seed: int, size_hw: tuple[int, int] = (480, 640), difficulty: Difficulty | None = None):
        difficulty = difficulty or Difficulty()
        rng = np.random.default_rng(seed)
        self.size_hw = size_hw
        self._seed = seed
        self._scene = random_scene(rng, size_hw, difficulty)
        self._optics = optics.random_optics(rng, size_hw, difficulty.faults)
        # The first of the moments with the most objects in plain view, so that a clip begins with things to see.
        self._start = max(range(0, 400, 8), key=self._scene.num_in_view)

    @classmethod
    def gentle(cls, seed: int, size_hw: tuple[int, int] = (480, 640)) -> "World":
        """An easier world: three or four objects of medium size and speed, none small, alike or camouflaged."""
        return cls(seed, size_hw, GENTLE)

    @property
    def tags(self) -> tuple[frozenset[str], ...]:
        """Per object, of "look_alike", "small", "fast"."""
        return tuple(body.tags for body in self._scene.objects)

    def frames(self) -> Iterator[WorldFrame]:
        """The frames from 0 on, for ever."""
        return map(self.frame, itertools.count())

    def frame(self, t: int) -> WorldFrame:
        """Frame `t` as the camera delivers it, and the truth about it."""
        height, width = self.size_hw
        moment = self._start + t
        rgb, layers, depths = self._paint(moment)
        rgb = self._optics.expose(rgb, moment, np.random.default_rng((self._seed, t)))
        masks = np.empty((len(self._scene.objects), height, width), dtype=bool)
        visible = np.empty(len(masks), dtype=bool)
        for index, mask in enumerate(masks):
            np.equal(layers, index + 1, out=mask)
            visible[index] = np.count_nonzero(mask) >= max(4, _SLIVER * height * width)
            mask &= visible[index]
        intrinsics = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1]], np.float64)
        return WorldFrame(rgb, masks, visible, depths[layers], intrinsics)

    def _paint(self, moment: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Clean picture (H, W, 3); layers (H, W) uint8: 0 background, objects from 1, then pillars; metres per layer.

        Paints from far to near, so that depth and occlusion agree.
        """
        scene, roll = self._scene, self._scene.camera.roll(moment)
        rgb = self._paint_background(moment, roll)
        layers = np.zeros(self.size_hw, np.uint8)
        bodies = [*scene.objects, *scene.pillars]
        depths = np.array([BACKGROUND_M, *(body.motion.z(moment) for body in bodies)], np.float32)
        for layer in (1 + np.argsort(-depths[1:])).tolist():
            body = bodies[layer - 1]
            ends = self._shutter_ends(body, moment)
            for part, opening, closing in zip(body.parts, *ends, strict=True):
                if body.shadow:
                    beside = (0.06 * body.reach, 0.14 * body.reach)
                    cast_shadow(rgb, part.sprite, (opening + closing) / 2, beside, body.shadow)
                paint(rgb, layers, layer, part.sprite, (opening, closing))
        return rgb, layers, depths

    def _shutter_ends(self, body: Body, moment: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Every part's (3, 3) map into the picture when the shutter opens and when it closes, around `moment`.

        Limits motion blur to a share of the body's size: a thing thinner than its blur would have no true mask.
        """
        half = self._optics.shutter / 2
        before, after = (np.array(self._centre_pixels(body, moment + sign * half)) for sign in (-1, 1))
        way = float(np.hypot(*(after - before)))
        half *= min(1.0, _LONGEST_SMEAR * body.reach / max(way, 1e-6))
        opening, closing = (
            body.matrices(self._centre_pixels(body, t), t, self._scene.camera.roll(t))
            for t in (moment - half, moment + half)
        )
        return opening, closing

    def _centre_pixels(self, body: Body, t: float) -> tuple[float, float]:
        height, width = self.size_hw
        x, y = self._scene.centre(body, t)
        x, y, roll = x * width, y * height, self._scene.camera.roll(t)
        cos, sin = math.cos(roll), math.sin(roll)
        return cos * x - sin * y + (width - 1) / 2, sin * x + cos * y + (height - 1) / 2

    def _paint_background(self, moment: float, roll: float) -> np.ndarray:
        height, width = self.size_hw
        picture = self._scene.background
        x, y = self._scene.camera.offset(moment, BACKGROUND_M)
        centre = ((0.5 + x) * width, (0.5 + y) * height)
        middle = ((picture.shape[1] - 1) / 2, (picture.shape[0] - 1) / 2)
        matrix = affine(centre, _BACKGROUND_ROLL * roll, (1, 1), middle)[:2]
        size = (width, height)
        moved = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB)
