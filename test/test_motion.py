"""Waves, detours and places of the synthetic world, against what is worked out by hand."""

import math

import numpy as np
import pytest

from sam2.training.motion import Hide, Wave, affine, random_wave
from sam2.training.scene import Body, Camera, Motion, Part, Scene
from sam2.training.shapes import Sprite

STILL = Wave()
CAMERA = Camera(STILL, STILL, STILL, STILL, STILL)


def body(reach: float = 10.0, hide: Hide | None = None, **motion) -> Body:
    """A square of 21 pixels, without a shadow."""
    waves = {"x": STILL, "y": STILL, "z": Wave(2.0), "angle": STILL} | motion
    return Body((Part(Sprite(np.full((21, 21, 4), 255, np.uint8))),), Motion(**waves, hide=hide), reach)


def scene(*objects: Body, pillars: tuple[Body, ...] = (), camera: Camera = CAMERA) -> Scene:
    return Scene(objects, pillars, camera, np.zeros((1, 1, 4), np.uint8), (100, 200))


def test_a_wave_is_a_mean_a_drift_and_sines():
    wave = Wave(mean=3.0, terms=((2.0, 8.0, 0.0), (1.0, 4.0, math.pi / 2)), rate=0.5)
    assert [wave(t) for t in (0, 1, 2, 4)] == pytest.approx([4.0, 3.5 + math.sqrt(2), 5.0, 6.0])
    assert wave.top_rate == pytest.approx(0.5 + 2 * math.pi * (2 / 8 + 1 / 4))
    assert Wave(terms=((-2.0, 8.0, 0.0),), rate=-1.0).top_rate == pytest.approx(1 + math.pi / 2)


def test_random_waves_are_about_what_was_asked_for_and_faster_at_a_higher_pace():
    waves = [
        random_wave(np.random.default_rng(seed), 0.2, (0.1, 0.0, 0.3), (80, 40, 20), pace=4.0) for seed in range(50)
    ]
    terms = np.array([wave.terms for wave in waves])  # (50, 2, 3)
    assert terms.shape == (50, 2, 3) and {wave.mean for wave in waves} == {0.2}, "no wave without amplitude"
    assert (np.abs(np.log(terms[:, :, 0] / (0.1, 0.3))) <= 0.47).all() and terms[:, 0, 0].std() > 0.01
    assert (np.abs(np.log(terms[:, :, 1] / (20, 5))) <= 0.47).all() and terms[:, 0, 1].std() > 1
    assert terms[..., 2].min() < 1 and terms[..., 2].max() > 5


def test_a_detour_is_smooth_holds_and_comes_again():
    hide = Hide(start=10, rise=4, hold=6, period=30)
    assert [hide.weight(t) for t in (9, 10, 11, 12, 13)] == pytest.approx([0, 0, 5 / 32, 0.5, 27 / 32])
    assert [hide.weight(t) for t in (14, 17, 20, 21, 22, 23, 24, 30)] == pytest.approx(
        [1, 1, 1, 27 / 32, 0.5, 5 / 32, 0, 0]
    )
    assert [hide.weight(t + 30) for t in (10, 12, 14)] == [hide.weight(t - 30) for t in (10, 12, 14)] == [0, 0.5, 1]


def test_a_map_scales_turns_and_moves_about_its_pivot():
    matrix = affine((100.0, 50.0), math.pi / 2, (2.0, 3.0), (10.0, 20.0))
    corners = {(10, 20): (100, 50), (11, 20): (100, 52), (10, 21): (97, 50)}
    for (x, y), expected in corners.items():
        assert matrix @ (x, y, 1) == pytest.approx((*expected, 1))


def test_what_is_nearer_looks_larger_and_moves_more_with_the_camera():
    camera = Camera(Wave(0.1), Wave(0.2), Wave(0.3), Wave(0.4), STILL)
    assert camera.offset(0, 1.0) == pytest.approx((0.4, 0.6))
    assert camera.offset(0, 4.0) == pytest.approx((0.1 + 0.3 / 4, 0.2 + 0.4 / 4))
    square = body(z=Wave(2.0, rate=-0.5), squash=Wave(0.5), angle=Wave(math.pi / 4))
    (matrix,) = square.matrices((60.0, 40.0), t=2, roll=-math.pi / 4)  # at a metre, half as far as on average
    assert matrix @ (10, 10, 1) == pytest.approx((60, 40, 1)), "its middle"
    assert matrix[:2, :2] == pytest.approx(np.diag((2.0, 1.0)))


def test_a_second_part_swings_about_its_joint():
    sprite = Sprite(np.full((21, 11, 4), 255, np.uint8))
    limb = Part(sprite, joint_xy=(6.0, 0.0), pivot_xy=(2.0, 0.0), swing=Wave(math.pi / 2))
    whole = Body((Part(sprite), limb), body().motion, reach=10)
    _, matrix = whole.matrices((60.0, 40.0), t=0, roll=0.0)
    assert matrix @ (5 + 2, 10, 1) == pytest.approx((66, 40, 1)), "where it is fixed"
    assert matrix @ (5 + 3, 10, 1) == pytest.approx((66, 41, 1)), "turned by a quarter"


@pytest.mark.parametrize(
    ("border", "sign", "axis"), [("left", -1, 0), ("right", 1, 0), ("top", -1, 1), ("bottom", 1, 1)]
)
def test_a_detour_over_a_border_ends_out_of_sight(border, sign, axis):
    """Wholly, also where it comes nearer and so is larger than on average."""
    hide = Hide(start=0, rise=4, hold=6, period=100, border=border)
    world = scene(body(hide=hide, x=Wave(0.1), y=Wave(-0.2), z=Wave(2.0, rate=-0.2)))
    (thing,) = world.objects
    assert world.centre(thing, 0) == pytest.approx((0.1, -0.2))
    there, side = world.centre(thing, 5), (200, 100)[axis]  # at a metre: 20 pixels across
    assert 0.5 + 20 / side < sign * there[axis] < 0.55 + 24 / side
    assert there[1 - axis] == pytest.approx((0.1, -0.2)[1 - axis])
    half = world.centre(thing, 2)[axis]
    assert (0.1, -0.2)[axis] * sign < half * sign < there[axis] * sign


def test_a_detour_behind_a_pillar_ends_there_at_its_own_height():
    hide = Hide(start=0, rise=4, hold=6, period=100, pillar=1)
    pillars = (body(20.0, x=Wave(-0.3)), body(20.0, x=Wave(0.3)))
    world = scene(body(hide=hide, y=Wave(0.2)), pillars=pillars, camera=Camera(Wave(0.05), *[STILL] * 4))
    assert world.centre(world.objects[0], 5) == pytest.approx((0.35, 0.2))
    assert world.centre(world.objects[0], 2) == pytest.approx((0.2, 0.2)), "half way"


def test_in_view_is_what_is_inside_and_neither_hides_nor_stands_behind_a_pillar():
    hide = Hide(start=0, rise=4, hold=6, period=100, border="left")
    pillar = body(20.0, x=Wave(-0.2))  # of 200 pixels: 0.1 to either side
    inside, hidden = body(y=Wave(0.41)), body(hide=hide)
    outside, below = body(x=Wave(0.43)), body(y=Wave(0.43))
    behind, beside = body(x=Wave(-0.08)), body(x=Wave(-0.07))  # 24 and 26 pixels from its middle: 20 and half of 10
    assert scene(inside, outside, below, behind, beside, pillars=(pillar,)).num_in_view(0) == 2
    assert [scene(hidden).num_in_view(t) for t in (0, 2, 5, 50)] == [1, 0, 0, 1]
