"""The contents of a random world and their motion: objects, pillars, camera, background.

Lengths on screen are shares of the image's width and height from its centre; depths are metres along the optical axis;
times are frames. Knows nothing about painting.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from sam2.training import shapes, textures
from sam2.training.motion import Hide, Wave, affine, random_wave

NEAREST_OBJECT_M, FARTHEST_OBJECT_M = 0.9, 4.5
BACKGROUND_M = 7.0
_FAST = 0.04  # of the image side per frame; the top speed from which an object is tagged "fast"
_STILL = Wave()


@dataclass(frozen=True)
class Difficulty:
    """How hard the worlds are; the defaults are those of training and of the held-out set."""

    objects: tuple[int, int] = (2, 6)  # fewest, most
    look_alike: float = 0.4  # share of worlds with a twin of the first object
    small: float = 0.2  # share of objects below 1 % of the image
    fast: float = 0.2  # share of objects that move quickly
    hides: float = 0.6  # share of objects that vanish and return
    scenery: float = 0.5  # share of worlds with pillars in front of the objects
    camouflage: float = 0.12  # share of objects in the colours of the background
    faults: float = 1.0  # scale of noise, blur, uneven light, drift; 0 = a perfect camera


GENTLE = Difficulty(objects=(3, 4), look_alike=0.0, small=0.0, fast=0.0, camouflage=0.0, faults=0.4)


@dataclass(frozen=True)
class Camera:
    """Pan and translation of a pinhole camera that keeps looking ahead, and its roll."""

    pan_x: Wave  # shares of the width; moves everything alike
    pan_y: Wave
    shift_x: Wave  # metres times the focal length in widths; moves near things more
    shift_y: Wave
    roll: Wave  # radians

    def offset(self, t: float, z: float) -> tuple[float, float]:
        """Displacement, in shares of width and height, of what is `z` metres away."""
        return self.pan_x(t) + self.shift_x(t) / z, self.pan_y(t) + self.shift_y(t) / z


@dataclass(frozen=True)
class Motion:
    x: Wave
    y: Wave
    z: Wave
    angle: Wave
    squash: Wave = Wave(1.0)  # scale across one axis of the body, as when it tilts away
    hide: Hide | None = None


@dataclass(frozen=True)
class Part:
    """One rigid piece; a second one swings about a joint on the first."""

    sprite: shapes.Sprite
    joint_xy: tuple[float, float] = (0.0, 0.0)  # pixels of the first part's sprite, from its centre
    pivot_xy: tuple[float, float] = (0.0, 0.0)  # pixels of its own sprite, from its centre
    swing: Wave = _STILL  # radians


@dataclass(frozen=True)
class Body:
    """An object or a pillar."""

    parts: tuple[Part, ...]
    motion: Motion
    reach: float  # pixels from its centre to its farthest point, at its mean depth; half the width of a pillar
    shadow: float = 0.0  # how dark its shadow is; 0 = none
    tags: frozenset[str] = frozenset()  # of "look_alike", "small", "fast"

    def matrices(self, centre_xy: tuple[float, float], t: float, roll: float) -> list[np.ndarray]:
        """Per part the (3, 3) map from its sprite's pixels to the image's, the body's centre being at `centre_xy`."""
        scale = self.motion.z.mean / self.motion.z(t)
        body = affine(centre_xy, self.motion.angle(t) + roll, (scale, scale * self.motion.squash(t)), (0.0, 0.0))
        out = []
        for part in self.parts:
            height, width = part.sprite.alpha.shape
            pivot = ((width - 1) / 2 + part.pivot_xy[0], (height - 1) / 2 + part.pivot_xy[1])
            out.append(body @ affine(part.joint_xy, part.swing(t), (1.0, 1.0), pivot))
        return out


@dataclass(frozen=True)
class Scene:
    """The contents of a world; `centre` and `num_in_view` are pure functions of time."""

    objects: tuple[Body, ...]
    pillars: tuple[Body, ...]
    camera: Camera
    background: np.ndarray  # (1.3 H, 1.3 W, 4) uint8, its last channel unused: see `Sprite`
    size_hw: tuple[int, int]

    def centre(self, body: Body, t: float) -> tuple[float, float]:
        """A body's centre in shares of width and height from the image's centre, before the camera's roll."""
        motion = body.motion
        dx, dy = self.camera.offset(t, motion.z(t))
        x, y = motion.x(t) + dx, motion.y(t) + dy
        hide = motion.hide
        if not hide or not (weight := hide.weight(t)):
            return x, y
        if not hide.border:
            return x + weight * (self.centre(self.pillars[hide.pillar], t)[0] - x), y
        beyond = 1.15 * body.reach * motion.z.mean / motion.z(t)
        far_x, far_y = 0.52 + beyond / self.size_hw[1], 0.52 + beyond / self.size_hw[0]
        target = {"left": (-far_x, y), "right": (far_x, y), "top": (x, -far_y), "bottom": (x, far_y)}
        to_x, to_y = target[hide.border]
        return x + weight * (to_x - x), y + weight * (to_y - y)

    def num_in_view(self, t: float) -> int:
        """Counts objects well inside the image that are neither hiding nor behind a pillar; other objects may cover
        them."""
        pillars = [(self.centre(pillar, t)[0], pillar.reach) for pillar in self.pillars]
        count = 0
        for body in self.objects:
            if body.motion.hide and body.motion.hide.weight(t) > 0:
                continue
            x, y = self.centre(body, t)
            behind = any(abs(x - place) * self.size_hw[1] < reach + body.reach / 2 for place, reach in pillars)
            count += abs(x) < 0.42 and abs(y) < 0.42 and not behind
        return int(count)  # not NumPy's


def random_scene(rng: np.random.Generator, size_hw: tuple[int, int], difficulty: Difficulty) -> Scene:
    """Draws a world for images of `size_hw` pixels."""
    height, width = size_hw
    colours = textures.palette(rng)
    ground = textures.background(rng, (round(1.3 * height), round(1.3 * width)), colours)
    pillars: tuple[Body, ...] = ()
    if rng.random() < difficulty.scenery:
        pillars = tuple(_pillar(rng, size_hw, slot) for slot in range(int(rng.integers(1, 3))))
    count = int(rng.integers(difficulty.objects[0], difficulty.objects[1] + 1))
    depths = np.geomspace(NEAREST_OBJECT_M, FARTHEST_OBJECT_M, count + 1)
    slots = rng.permutation(count)
    objects: list[Body] = []
    for index in range(count):
        twin = objects[0] if index == 1 and rng.random() < difficulty.look_alike else None
        near, far = depths[slots[index]], depths[slots[index] + 1]
        palette = colours if rng.random() < difficulty.camouflage else None
        objects.append(_object(rng, size_hw, difficulty, (near, far), palette, pillars, twin))
        if twin is not None:
            objects[0] = replace(twin, tags=twin.tags | {"look_alike"})
    return Scene(tuple(objects), pillars, _camera(rng), cv2.cvtColor(ground, cv2.COLOR_RGB2RGBA), size_hw)


def _camera(rng: np.random.Generator) -> Camera:
    pan, shift, roll = (0.0, 0.0, 0.0) if rng.random() < 0.25 else rng.uniform(0.2, 1, 3) * (0.07, 0.06, 0.06)
    jitter = rng.choice([0.0, 0.003])
    return Camera(
        pan_x=random_wave(rng, 0.0, (pan, jitter), (90, 7)),
        pan_y=random_wave(rng, 0.0, (pan / 2, jitter), (70, 6)),
        shift_x=random_wave(rng, 0.0, (shift,), (80,)),
        shift_y=random_wave(rng, 0.0, (shift / 2,), (60,)),
        roll=random_wave(rng, 0.0, (roll,), (110,)),
    )


def _object(
    rng: np.random.Generator,
    size_hw: tuple[int, int],
    difficulty: Difficulty,
    depth_m: tuple[float, float],
    colours: np.ndarray | None,
    pillars: tuple[Body, ...],
    twin: Body | None,
) -> Body:
    """Draws an object that stays within `depth_m`. twin: an object that it looks exactly or nearly like; None: of its
    own look."""
    tags = set() if twin is None else {"look_alike"}
    is_small, is_fast = rng.random() < difficulty.small, rng.random() < difficulty.fast
    if twin is not None:
        parts, reach = _repainted(rng, twin.parts), twin.reach
        is_small = "small" in twin.tags
    else:
        share = np.exp(
            rng.uniform(np.log(0.003), np.log(0.01)) if is_small else rng.uniform(np.log(0.012), np.log(0.15))
        )
        parts, reach = _parts(rng, size_hw, share, colours)
    motion = _motion(rng, depth_m, pace=rng.uniform(2.5, 5.0) if is_fast else rng.uniform(0.5, 1.5))
    if rng.random() < difficulty.hides:
        motion = replace(motion, hide=_hide(rng, reach, pillars))
    tags |= {"small"} if is_small else set()
    tags |= {"fast"} if max(motion.x.top_rate, motion.y.top_rate) > _FAST else set()
    shadow = float(rng.choice([0.0, rng.uniform(0.1, 0.5)]))
    return Body(parts, motion, reach, shadow, frozenset(tags))


def _parts(
    rng: np.random.Generator, size_hw: tuple[int, int], share: float, colours: np.ndarray | None
) -> tuple[tuple[Part, ...], float]:
    """Draws parts that cover about `share` of the image; returns them and their reach in pixels."""
    outline = shapes.random_outline(rng)
    side = np.sqrt(share * size_hw[0] * size_hw[1] / max(outline.fill(), 0.1))
    side = int(np.clip(side, 10, 0.8 * min(size_hw)))
    first = Part(shapes.make_sprite(rng, outline, side, colours))
    if rng.random() > 0.15 or side < 24:
        return (first,), side / 2
    limb_side = max(10, int(side * rng.uniform(0.5, 0.8)))
    limb = shapes.make_sprite(rng, shapes.random_outline(rng), limb_side, colours)
    angle = rng.uniform(0, 2 * np.pi)
    joint = (0.3 * side * np.cos(angle), 0.3 * side * np.sin(angle))
    swing = random_wave(rng, 0.0, (rng.uniform(0.2, 0.9),), (30,))
    return (first, Part(limb, joint, (0.3 * limb_side, 0.0), swing)), side / 2 + 0.6 * limb_side


def _repainted(rng: np.random.Generator, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The same parts or, in half the cases, with each colour channel up to a quarter brighter or darker."""
    if rng.random() < 0.5:
        return parts
    gain = rng.uniform(0.75, 1.25, 3)
    paint = [np.clip(part.sprite.rgba * [*gain, 1], 0, 255).astype(np.uint8) for part in parts]
    return tuple(replace(part, sprite=shapes.Sprite(rgba)) for part, rgba in zip(parts, paint, strict=True))


def _motion(rng: np.random.Generator, depth_m: tuple[float, float], pace: float) -> Motion:
    near, far = depth_m
    middle = (near + far) / 2
    turn = rng.choice([0.0, 1.0, 1.0]) * rng.normal(0, 0.03)
    sway = random_wave(rng, rng.uniform(0, 2 * np.pi), (rng.uniform(0, 0.4),), (50,), pace)
    squash = rng.uniform(0, 0.25) if rng.random() < 0.5 else 0.0
    return Motion(
        x=random_wave(rng, rng.uniform(-0.28, 0.28), (rng.uniform(0.02, 0.25), 0.03), (80, 23), pace),
        y=random_wave(rng, rng.uniform(-0.28, 0.28), (rng.uniform(0.02, 0.2), 0.03), (70, 19), pace),
        z=random_wave(rng, middle, (0.28 * (far - near),), (90,), min(pace, 2.0)),
        angle=replace(sway, rate=turn),
        squash=random_wave(rng, 1.0 - squash, (0.6 * squash,), (45,)),
    )


def _hide(rng: np.random.Generator, reach: float, pillars: tuple[Body, ...]) -> Hide:
    covering = [index for index, pillar in enumerate(pillars) if pillar.reach > 1.1 * reach]
    border = str(rng.choice(["left", "right", "top", "bottom"]))
    use_pillar = bool(covering) and rng.random() < 0.6
    rise, hold = rng.uniform(3, 9), rng.uniform(2, 12)
    return Hide(
        start=rng.uniform(4, 30),
        rise=rise,
        hold=hold,
        period=2 * rise + hold + rng.uniform(12, 60),
        border="" if use_pillar else border,
        pillar=int(rng.choice(covering)) if use_pillar else 0,
    )


def _pillar(rng: np.random.Generator, size_hw: tuple[int, int], slot: int) -> Body:
    """An upright bar, nearer than any object and taller than the image."""
    height, width = size_hw
    across, tall = int(rng.uniform(0.1, 0.34) * width), int(1.6 * height)
    rgb = textures.texture(rng, (tall, across))
    alpha = np.full((tall, across), 255, np.uint8)
    alpha[:, :2] = alpha[:, -2:] = 0
    place = rng.uniform(-0.4, 0.05) + 0.4 * slot
    z = rng.uniform(0.6, 0.85) - 0.03 * slot
    motion = Motion(Wave(place), _STILL, Wave(z), Wave(rng.normal(0, 0.06)))
    return Body((Part(shapes.Sprite(np.dstack((rgb, alpha)))),), motion, across / 2, float(rng.choice([0.0, 0.3])))
