"""What the synthetic world is made of: sprites painted with their truth, movement, outlines, textures, faults."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from sam2 import metrics
from sam2.training import textures
from sam2.training.motion import Hide, Wave, affine
from sam2.training.painting import cast_shadow, paint
from sam2.training.scene import Difficulty
from sam2.training.shapes import Sprite, random_outline
from sam2.training.synthetic import World

BLANK = (96, 128)
EASY = Difficulty(objects=(3, 3), look_alike=0, small=0, fast=0, hides=0, scenery=0, camouflage=0, faults=0)


def disc(side: int, colour=(200, 40, 90)) -> Sprite:
    """Covers half at a radius of side / 2 - 2.5."""
    v, u = np.mgrid[:side, :side] - (side - 1) / 2
    rgba = np.empty((side, side, 4), np.uint8)
    rgba[..., :3] = colour
    rgba[..., 3] = np.clip(255 * (side / 2 - 2 - np.hypot(v, u)), 0, 255)
    return Sprite(rgba)


def canvas() -> tuple[np.ndarray, np.ndarray]:
    return np.full((*BLANK, 3), 100, np.uint8), np.zeros(BLANK, np.uint8)


def shift(x: float, y: float) -> np.ndarray:
    return affine((x, y), 0.0, (1, 1), (0, 0))


def test_a_mask_is_where_the_sprite_covers_more_than_half():
    """A white disc on black: the picture is the coverage, so the truth can be read off it."""
    rgb, layers = np.zeros((*BLANK, 3), np.uint8), np.zeros(BLANK, np.uint8)
    turn = affine((60.3, 40.7), 0.4, (1.3, 0.8), (19.5, 19.5))
    paint(rgb, layers, 3, disc(40, (255, 255, 255)), (turn, turn))
    certain = np.abs(rgb[..., 0].astype(int) - 127) > 1  # blending rounds
    np.testing.assert_array_equal((layers == 3)[certain], (rgb[..., 0] > 127)[certain])
    assert (layers == 3).sum() == pytest.approx(np.pi * 17.5**2 * 1.3 * 0.8, rel=0.03)
    y, x = (np.mean(axis) for axis in np.nonzero(layers))
    assert (x, y) == (pytest.approx(60.3, abs=0.1), pytest.approx(40.7, abs=0.1))


def test_a_moving_sprite_smears_and_its_mask_stays_in_the_middle():
    (still, layers), (moving, smeared) = canvas(), canvas()
    paint(still, layers, 1, disc(30), (shift(40, 30), shift(40, 30)))
    paint(moving, smeared, 1, disc(30), (shift(36, 30), shift(44, 30)))
    assert metrics.region_similarity(smeared == 1, layers == 1) > 0.85

    def width(rgb):
        return np.ptp(np.nonzero((rgb != 100).any(axis=-1))[1])

    assert width(moving) >= width(still) + 4


@pytest.mark.parametrize(("x", "y"), [(-200, 0), (500, 0), (0, -200), (0, 500)])
def test_what_is_outside_paints_nothing(x, y):
    rgb, layers = canvas()
    paint(rgb, layers, 1, disc(30), (shift(x, y), shift(x, y)))
    cast_shadow(rgb, disc(30), shift(x, y), (3, 5), 0.4)
    assert not layers.any()
    assert np.all(rgb == 100)


def test_partly_outside_is_cut_off():
    rgb, layers = canvas()
    paint(rgb, layers, 1, disc(30), (shift(-12, -7), shift(-12, -7)))
    np.testing.assert_array_equal(layers[:23, :18] == 1, disc(30).alpha[7:, 12:] > 127)


def test_a_shadow_darkens_beside_and_below():
    rgb, _ = canvas()
    cast_shadow(rgb, disc(30), shift(40, 30), (2.0, 4.0), 0.5)
    assert rgb[30 + 15 + 4, 40 + 15 + 2, 0] == pytest.approx(50, abs=1)
    assert np.all(rgb[:20] == 100)


def test_noise_is_of_the_level_asked_for_and_changes_from_frame_to_frame():
    optics = replace(World(3, (64, 64), EASY)._optics, noise_level=6.0)
    grey = np.full((64, 64, 3), 128, np.uint8)
    frames = [optics.expose(grey, t, np.random.default_rng(t)).astype(float) for t in range(4)]
    assert np.std(frames) == pytest.approx(6.0, rel=0.1)
    assert np.mean(frames) == pytest.approx(128, abs=0.5)
    assert not np.array_equal(frames[0], frames[1])


def test_a_thing_never_smears_further_than_a_part_of_its_size():
    """Even with the shutter open all the time, or a thin thing that is fast would have no mask."""
    world = World(1, (96, 96), replace(EASY, fast=1.0))
    world._optics = replace(world._optics, shutter=1.0)
    smeared = 0
    for t in range(0, 80, 4):
        for body in world._scene.objects:
            (opening, *_), (closing, *_) = world._shutter_ends(body, t)
            way = np.hypot(*(closing - opening)[:2, 2])
            smeared += way > 1
            sideways = np.hypot(*(closing - opening)[:2, :2].sum(axis=1)) * body.parts[0].sprite.alpha.shape[0]
            assert way <= 0.4 * body.reach + sideways + 0.5
    assert smeared > 10


def test_bodies_keep_their_size_in_metres():
    """Size on screen times depth is constant: nearer is larger, as the pinhole has it."""
    body = World(11, (128, 128), EASY)._scene.objects[0]
    sizes = [np.linalg.norm(body.matrices((0, 0), t, 0)[0][:2, 0]) * body.motion.z(t) for t in range(0, 90, 9)]
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-9)
    assert np.ptp([body.motion.z(t) for t in range(0, 90, 9)]) > 0.05


def test_hiding_begins_and_ends_softly_and_recurs():
    hide = Hide(start=10, rise=4, hold=6, period=40, border="left")
    assert [hide.weight(t) for t in (9, 14, 17, 20, 24, 30)] == [0, 1, 1, 1, 0, 0]
    assert hide.weight(12) == pytest.approx(0.5)
    assert [hide.weight(t + 40) for t in range(40)] == [hide.weight(t) for t in range(40)]


def test_hiding_objects_are_out_of_sight():
    world = World(2, (96, 96), replace(EASY, objects=(4, 4), hides=1.0))
    for index, body in enumerate(world._scene.objects):
        hide = body.motion.hide
        middle = hide.start + hide.rise + hide.hold / 2
        away = [round(middle + cycle * hide.period) - world._start for cycle in (11, 12)]
        assert not any(world.frame(t).visible[index] for t in away)


def test_a_wave_bounds_its_own_speed():
    wave = Wave(1.0, ((0.3, 50.0, 0.2), (0.1, 9.0, 1.0)), rate=0.01)
    steps = [abs(wave(t + 1) - wave(t)) for t in range(200)]
    assert 0.8 * wave.top_rate < max(steps) <= wave.top_rate


def test_affine_by_hand():
    np.testing.assert_allclose(affine((10, 20), np.pi / 2, (2, 3), (1, 1)) @ [2, 1, 1], [10, 22, 1], atol=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_outlines_fill_their_disc_and_leave_the_rim(seed):
    outline = random_outline(np.random.default_rng(seed))
    radius = max(np.linalg.norm(contour, axis=1).max() for group in outline.groups for contour in group)
    assert radius == pytest.approx(1)
    alpha = outline.alpha(50)
    assert 0.02 < (alpha > 127).mean() < 0.9
    assert not alpha[[0, -1]].any()
    assert not alpha[:, [0, -1]].any()


def test_noise_is_standard_and_rougher_with_persistence():
    fields = [textures.noise(np.random.default_rng(1), (64, 96), persistence) for persistence in (0.3, 1.0)]
    for field in fields:
        assert field.shape == (64, 96)
        assert (field.mean(), field.std()) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-2))
    smooth, rough = (np.abs(np.diff(field)).mean() for field in fields)
    assert rough > 2 * smooth


def test_textures_are_varied():
    """No two have the same mean colour, and most are no single colour."""
    pictures = [textures.texture(np.random.default_rng(seed), (32, 32)) for seed in range(40)]
    assert len({tuple(cv2.mean(picture)[:3]) for picture in pictures}) == 40
    assert np.mean([picture.std(axis=(0, 1)).max() > 5 for picture in pictures]) > 0.6
