"""The synthetic world: what it promises to training, evaluation and the camera simulator."""

import hashlib
import subprocess
import sys
import tracemalloc
from dataclasses import astuple, replace
from itertools import islice

import numpy as np
import pytest

from sam2.training.scene import BACKGROUND_M, FARTHEST_OBJECT_M, NEAREST_OBJECT_M, Difficulty
from sam2.training.synthetic import HELD_OUT_SEED, World

SIZE_HW = (64, 64)
CALM = Difficulty(look_alike=0.0, small=0.0, fast=0.0, hides=0.0, scenery=0.0, camouflage=0.0, faults=0.0)


def digest(frame) -> str:
    return hashlib.sha256(b"".join(part.tobytes() for part in astuple(frame))).hexdigest()


def visibility(seed: int, num_frames: int, difficulty: Difficulty | None = None) -> np.ndarray:
    """(T, K) bool"""
    world = World(seed, SIZE_HW, difficulty)
    return np.stack([world.frame(t).visible for t in range(num_frames)])


def vanish_and_return(visible: np.ndarray) -> int:
    """How many of K objects are seen, then not, then seen again; visible (T, K) bool."""
    changes = [np.diff(np.flatnonzero(column)) for column in visible.T]
    return sum(bool((gaps > 1).any()) for gaps in changes)


def test_a_frame_is_what_was_promised():
    world = World(4, (48, 80))
    frame, count = world.frame(0), len(world.tags)
    assert (frame.rgb.shape, frame.rgb.dtype) == ((48, 80, 3), np.uint8)
    assert (frame.masks.shape, frame.masks.dtype) == ((count, 48, 80), bool)
    assert (frame.visible.shape, frame.visible.dtype) == ((count,), bool)
    assert (frame.depth_m.shape, frame.depth_m.dtype) == ((48, 80), np.float32)
    np.testing.assert_array_equal(frame.intrinsics, [[80, 0, 39.5], [0, 80, 23.5], [0, 0, 1]])


def test_any_frame_in_any_order_is_bit_for_bit_the_same():
    seeds, order = (3, HELD_OUT_SEED), (17, 0, 60, 3, 17)
    digests = {seed: [digest(frame) for frame in islice(World(seed, SIZE_HW).frames(), 61)] for seed in seeds}
    for seed in seeds:
        world = World(seed, SIZE_HW)
        assert [digest(world.frame(t)) for t in order] == [digests[seed][t] for t in order]
        assert len(set(digests[seed])) == 61, "every frame is another one"
    assert not set(digests[3]) & set(digests[HELD_OUT_SEED])


def test_another_process_draws_the_same_world():
    """Another seed of Python's hashes, another history of random numbers."""
    code = "\n".join(
        (
            "import random, sys; random.random()",
            "sys.path.insert(0, 'test')",
            "from test_synthetic import World, digest",
            "print(digest(World(11, (64, 64)).frame(5)))",
        )
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(World(11, SIZE_HW).frame(5))


@pytest.mark.parametrize("seed", range(6))
def test_masks_are_disjoint_and_agree_with_visibility(seed):
    world = World(seed, SIZE_HW)
    for t in range(0, 60, 4):
        frame = world.frame(t)
        assert frame.masks.sum(axis=0).max() <= 1
        sizes = frame.masks.sum(axis=(1, 2))
        np.testing.assert_array_equal(frame.visible, sizes > 0)
        assert sizes[frame.visible].min(initial=4) >= 4, "what is called visible can be seen"


@pytest.mark.parametrize("seed", range(6))
def test_depth_and_masks_agree(seed):
    """An object is a card upright before the camera: one depth, in its range, nearer than the background."""
    world = World(seed, SIZE_HW)
    for t in range(0, 40, 8):
        frame = world.frame(t)
        assert frame.depth_m.max() == BACKGROUND_M or frame.masks.any(axis=0).all()
        for mask in frame.masks[frame.visible]:
            depth = np.unique(frame.depth_m[mask])
            assert len(depth) == 1
            assert NEAREST_OBJECT_M <= depth[0] <= FARTHEST_OBJECT_M


def alone(seed: int, index: int, difficulty: Difficulty) -> World:
    """A world in which there is nothing but one of its objects."""
    world = World(seed, SIZE_HW, difficulty)
    world._scene = replace(world._scene, objects=(world._scene.objects[index],))
    return world


def test_where_objects_overlap_the_nearer_one_is_in_front():
    crowded, contested = replace(CALM, objects=(6, 6)), 0
    for seed in range(4):
        world, singles = World(seed, SIZE_HW, crowded), [alone(seed, k, crowded) for k in range(6)]
        for t in (0, 12, 24):
            together, apart = world.frame(t), [single.frame(t) for single in singles]
            outlines = np.stack([frame.masks[0] for frame in apart])  # (K, H, W) each as if nothing hid it
            depth = np.array([frame.depth_m[frame.masks[0]].min(initial=np.inf) for frame in apart])
            nearest = np.where(outlines, depth[:, None, None], np.inf).argmin(axis=0)  # (H, W)
            overlap = outlines.sum(axis=0) > 1
            winner = together.masks.argmax(axis=0)
            judged = overlap & together.masks.any(axis=0)
            np.testing.assert_array_equal(winner[judged], nearest[judged])
            contested += judged.sum()
    assert contested > 1000, "objects do hide each other"


def test_pillars_hide_objects():
    """Scenery has no mask but is nearer than every object."""
    hidden = 0
    for seed in range(8):
        world = World(seed, SIZE_HW, replace(CALM, scenery=1.0))
        frame = world.frame(0)
        scenery = frame.depth_m < NEAREST_OBJECT_M
        assert not frame.masks[:, scenery].any()
        world._scene = replace(world._scene, pillars=())
        hidden += (world.frame(0).masks.any(axis=0) & scenery).sum()
        assert not (world.frame(0).depth_m < NEAREST_OBJECT_M).any()
    assert hidden > 200


def test_objects_vanish_and_return_in_every_second_clip():
    """40 frames, as the held-out clips have."""
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + 12)
    clips = sum(vanish_and_return(visibility(seed, 40)) >= 1 for seed in seeds)
    assert clips >= 6


def test_objects_that_hide_vanish_and_return():
    def share(hides):
        """Of objects that meet nothing, of those that come back within 40 frames."""
        difficulty = replace(CALM, objects=(1, 1), hides=hides)
        return np.mean([vanish_and_return(visibility(seed, 40, difficulty)) for seed in range(20)])

    assert share(0.0) < 0.2 < 0.4 < share(1.0)


def test_number_of_objects():
    for count in (1, 3, 6):
        assert all(len(World(s, SIZE_HW, Difficulty(objects=(count, count))).tags) == count for s in range(4))
    counts = {len(World(s, SIZE_HW).tags) for s in range(30)}
    assert counts == set(range(2, 7))


@pytest.mark.parametrize("tag", ["look_alike", "small", "fast"])
def test_tags_follow_the_difficulty(tag):
    tagged = {
        value: [tag in tags for s in range(10) for tags in World(s, SIZE_HW, replace(CALM, **{tag: value})).tags]
        for value in (0.0, 1.0)
    }
    if tag == "fast":  # goes by the way an object makes; one in many is fast though it was not meant to be
        assert np.mean(tagged[0.0]) < 0.1 < 0.9 < np.mean(tagged[1.0])
    else:
        assert not any(tagged[0.0])
        assert sum(tagged[1.0]) == (20 if tag == "look_alike" else len(tagged[1.0]))


def mean_area(difficulty: Difficulty) -> float:
    """Share of the image of an object in sight at the start."""
    frames = [World(s, SIZE_HW, difficulty).frame(0) for s in range(10)]
    return float(np.concatenate([frame.masks.mean(axis=(1, 2))[frame.visible] for frame in frames]).mean())


def test_small_objects_are_small():
    assert mean_area(replace(CALM, small=1.0)) < 0.01 < 3 * 0.01 < mean_area(CALM)


def steps(difficulty: Difficulty) -> float:
    """Mean way of an object's centre per frame, as a share of the side."""
    ways = []
    for seed in range(8):
        scene = World(seed, SIZE_HW, difficulty)._scene
        for body in scene.objects:
            places = np.array([scene.centre(body, t) for t in range(40)])
            ways.append(np.hypot(*np.diff(places, axis=0).T).mean())
    return float(np.mean(ways))


def test_fast_objects_are_fast():
    assert steps(replace(CALM, fast=1.0)) > 2 * steps(CALM)


def mean_colours(seed: int, difficulty: Difficulty) -> np.ndarray:
    """(K, 3) of the objects themselves, before light and camera."""
    world = World(seed, SIZE_HW, difficulty)
    sprites = [body.parts[0].sprite for body in world._scene.objects]
    return np.stack([sprite.rgba[sprite.alpha > 127, :3].mean(axis=0) for sprite in sprites])


def test_look_alikes_look_alike():
    """Twins have one shape and nearly one colour; strangers do not."""

    def difference(value):
        colours = [mean_colours(s, replace(CALM, look_alike=value)) for s in range(20)]
        return np.mean([np.abs(c[0] - c[1]).mean() for c in colours])

    assert difference(1.0) < 15 < 2 * 15 < difference(0.0)
    for seed in range(5):
        one, two, *_ = World(seed, SIZE_HW, replace(CALM, look_alike=1.0))._scene.objects
        for left, right in zip(one.parts, two.parts, strict=True):
            np.testing.assert_array_equal(left.sprite.alpha, right.sprite.alpha)


def test_camouflage_takes_the_background_s_colours():
    def contrast(value):
        out = []
        for seed in range(20):
            difficulty = replace(CALM, camouflage=value)
            ground = World(seed, SIZE_HW, difficulty)._scene.background[..., :3].mean(axis=(0, 1))
            out.append(np.abs(mean_colours(seed, difficulty) - ground).mean())
        return np.mean(out)

    assert contrast(1.0) < 0.8 * contrast(0.0)


def test_scenery():
    with_pillars = [len(World(s, SIZE_HW, replace(CALM, scenery=1.0))._scene.pillars) for s in range(12)]
    assert set(with_pillars) == {1, 2}
    assert not any(World(s, SIZE_HW, CALM)._scene.pillars for s in range(12))


def test_faults_are_the_camera_s_and_never_the_truth_s():
    """A perfect camera delivers the picture as it was painted; a faulty one does not, but the light stays sensible."""
    picture = np.random.default_rng(0).integers(40, 200, (*SIZE_HW, 3), dtype=np.uint8)
    changes = []
    for seed in range(12):
        perfect, faulty = (World(seed, SIZE_HW, replace(CALM, faults=f))._optics for f in (0.0, 1.0))
        np.testing.assert_array_equal(perfect.expose(picture, 7, np.random.default_rng(0)), picture)
        changes.append(np.abs(faulty.expose(picture, 7, np.random.default_rng(0)).astype(int) - picture).mean())
    assert min(changes) > 0.5
    assert 3 < np.mean(changes) < 45


def test_no_frame_is_absurd():
    """Not black, white or flat; something to point at when a clip begins, nothing that fills the picture."""
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + 24):
        world = World(seed, SIZE_HW)
        for t in (0, 20, 10_000):
            frame = world.frame(t)
            assert 15 < frame.rgb.mean() < 240
            assert frame.rgb.std() > 5
            assert frame.masks.mean(axis=(1, 2)).max() < 0.6
            assert np.isfinite(frame.depth_m).all() and frame.depth_m.min() > 0
        assert world.frame(0).visible.any()


def test_a_stream_goes_on_for_ever():
    """After a day at 30 frames a second objects still are in the picture, and still move."""
    late, count = 30 * 86_400, 0
    for seed in range(8):
        world = World(seed, SIZE_HW)
        frames = [world.frame(late + 10 * i) for i in range(6)]
        count += sum(frame.visible.sum() for frame in frames)
        assert len({frame.masks.tobytes() for frame in frames}) > 1
    assert count > 6 * 8


def test_memory_is_constant():
    world = World(5, SIZE_HW)
    stream = world.frames()
    for _ in range(20):
        next(stream)
    tracemalloc.start()
    for _ in range(20):
        next(stream)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(150):
        next(stream)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < world.frame(0).rgb.nbytes / 2, "not even half a frame of 190 was kept"
