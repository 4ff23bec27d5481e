"""Clips of annotated videos, as training takes them: which frames, which objects, which pixels."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from small_video_folder import write_davis, write_palette

from sam2.errors import BadInput
from sam2.training.clips import MAX_OBJECTS
from sam2.training.dataset_clips import DatasetClips
from sam2.training.dataset_masks import Masks
from sam2.training.datasets import open_dataset
from sam2.training.synthetic import HELD_OUT_SEED


@pytest.fixture
def davis(tmp_path):
    write_davis(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class MadeUp:
    """A video of black frames, 32 x 32, with these masks."""

    masks: dict[int, Masks]
    name: str = "made up"

    def frames_at(self, indices: list[int]) -> list[np.ndarray]:
        return [np.zeros((32, 32, 3), np.uint8) for _ in indices]


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((32, 32), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def label_maps(video: MadeUp, seed: int, **options) -> np.ndarray:
    """(T, 32, 32) uint8"""
    return DatasetClips(((video,),), (1.0,), **{"num_frames": 2, "size": 32} | options)(seed)[..., 3]


def test_clips_from_videos_are_squashed_squares_with_labels(davis):
    videos = tuple(open_dataset("davis", davis, "train"))
    clip = DatasetClips((videos,), (1.0,), num_frames=6, size=16)(3)
    assert clip.shape == (6, 16, 16, 4) and clip.dtype == np.uint8
    assert set(np.unique(clip[..., 3])) == {0, 1, 2}, "objects 1 and 7"
    shown = 200 - clip[..., 0].mean((1, 2)).round().astype(int)
    assert set(shown) == {0, 1, 2} and (np.abs(np.diff(shown)) == 1).all(), "there and back"
    column = np.argwhere(clip[0, ..., 3] == 2)[:, 1]
    assert column.min() == 10 and column.max() == 14, "20..29 of 32 pixels become 10..14 of 16"


@pytest.mark.parametrize("size_hw", [(480, 854), (1080, 1920)])
@pytest.mark.parametrize("side", [256, 1024])
def test_masks_stay_where_their_images_are(size_hw, side):
    """To a tenth of a pixel of the network's input; `INTER_NEAREST` is half a pixel off."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    disc = (x - 0.4 * size_hw[1]) ** 2 + (y - 0.6 * size_hw[0]) ** 2 < (0.2 * size_hw[0]) ** 2
    rgb = np.repeat(disc[..., None], 3, axis=2).astype(np.uint8) * 200
    clips = DatasetClips(((),), (1.0,), num_frames=1, size=side)
    tile = clips._tile("v", rgb, {1: disc}).astype(np.float64)
    rows, columns = np.mgrid[:side, :side]
    for place in (rows, columns):
        image, labels = ((place * tile[..., k]).sum() / tile[..., k].sum() for k in (0, 3))
        assert abs(image - labels) < 0.1


def test_an_object_that_only_the_last_frames_show_begins_clips_played_backwards():
    video = MadeUp({i: {1: box(4, 4, 12, 12)} if i > 7 else {} for i in range(10)})
    maps = [label_maps(video, seed, num_frames=8) for seed in range(9)]
    assert all(clip[0].any() and not clip[-1].any() for clip in maps)


def test_objects_keep_apart_whatever_their_ids(davis):
    """SA-V counts from 0, and there can be more than 16; of a clip the first 16 have labels of their own."""
    (video, _) = open_dataset("davis", davis, "train")
    for index in range(3):
        boxes = {16 * number + 1: (2 * number, 0, 2 * number + 2, 24) for number in range(15)}
        write_palette(davis / f"Annotations/480p/bear/{index:05d}.png", boxes)
    clip = DatasetClips(((video,),), (1.0,), num_frames=3, size=32)(0)
    assert set(np.unique(clip[0, ..., 3])) == set(range(16)), "the background and 15 objects"


def test_no_two_objects_share_a_label_however_many_there_are(davis):
    """Of 20 objects the last is only in the first frame: its label must not go on on somebody else."""
    (video, _) = open_dataset("davis", davis, "train")
    boxes = {n: (3 * (n % 10), 12 * (n // 10), 3 * (n % 10) + 3, 12 * (n // 10) + 12) for n in range(20)}
    boxes[20] = boxes.pop(0)
    for index in range(3):
        kept = {number: box for number, box in boxes.items() if number != 20 or index == 0}
        write_palette(davis / f"Annotations/480p/bear/{index:05d}.png", kept)
    for seed in range(20):
        clip = DatasetClips(((video,),), (1.0,), num_frames=3, size=32)(seed)
        labels = clip[..., 3]
        assert labels.max() <= MAX_OBJECTS
        for label in range(1, MAX_OBJECTS + 1):
            places = [np.argwhere(frame == label) for frame in labels if (frame == label).any()]
            assert all(np.array_equal(place, places[0]) for place in places), "nothing moves in these clips"


def test_masks_of_another_size_name_the_video_and_the_frame(davis):
    (video, _) = open_dataset("davis", davis, "train")
    for index in range(3):
        cv2.imwrite(str(davis / f"Annotations/480p/bear/{index:05d}.png"), np.ones((5, 5), np.uint8))
    with pytest.raises(
        BadInput,
        match=r"video bear, frame \d: expected masks of the frame's size .*\(5, 5\); resize them without interpolation",
    ):
        DatasetClips(((video,),), (1.0,), num_frames=3, size=16)(0)


def test_a_mixture_draws_by_weight(davis):
    bear, dog = open_dataset("davis", davis, "train")
    write_palette(davis / "Annotations/480p/dog/00000.png", {3: (0, 0, 9, 9)})
    clips = DatasetClips(((bear,), (dog,)), (0.0, 1.0), num_frames=3, size=16)
    assert all(3 in clips(seed)[..., 3] for seed in range(8)), "weight 0 is never drawn"


def test_held_out_seeds_draw_from_other_videos(davis):
    bear, dog = open_dataset("davis", davis, "train")
    write_palette(davis / "Annotations/480p/dog/00000.png", {3: (0, 0, 9, 9)})
    ant = replace(dog, name="ant")  # of the smallest checksum
    clips = DatasetClips((tuple([bear] * 5 + [ant] + [bear] * 4),), (1.0,), num_frames=3, size=16)
    assert all(3 in clips(HELD_OUT_SEED + seed)[..., 3] for seed in range(4))
    assert not any(3 in clips(seed)[..., 3] for seed in range(30))


def test_a_video_that_is_added_or_removed_holds_out_hardly_another():
    """A run that is resumed without a damaged video would validate on what it has learnt from."""

    def held_out(names):
        videos = tuple(MadeUp({0: {}}, name) for name in names)
        clips = DatasetClips((videos,), (1.0,), num_frames=1, size=16)
        return {names[i] for i in clips._held_out[0]}

    names = [f"{number:02}\udcff" for number in range(61)]  # not UTF-8
    before = held_out(names)
    assert len(before) == 6
    for gone in names:
        now = held_out([name for name in names if name != gone])
        assert len(now) == 6 and len(now - before) == (gone in before)


def test_a_part_and_its_whole_are_learnt_one_at_a_time():
    """As SA-V annotates them. In one label map the whole would cover the part."""
    whole, part, far = box(2, 2, 22, 22), box(5, 5, 12, 12), box(25, 25, 30, 30)
    video = MadeUp({i: {0: part, 1: whole, 2: far} for i in range(2)})
    clips = [label_maps(video, seed) for seed in range(20)]
    shown = [{(clip[0] == label).tobytes() for label in np.unique(clip[0])[1:]} for clip in clips]
    assert all(far.tobytes() in masks and len(masks) == 2 for masks in shown)
    assert set().union(*shown) == {mask.tobytes() for mask in (part, whole, far)}


def test_neighbours_that_share_a_border_are_learnt_together():
    large, small = box(2, 2, 22, 22), box(21, 2, 31, 12)  # of whose 100 pixels 10 are shared, or 4 of 94
    for shared, both in ((10, False), (4, True)):
        mask = small.copy()
        mask[2 : 12 - shared, 21] = False
        for seed in range(5):
            labels = label_maps(MadeUp({i: {1: large, 2: mask} for i in range(2)}), seed)
            assert labels.max() == (2 if both else 1)
            assert not both or np.array_equal(labels[0] == 2, mask), "the smaller one keeps what is shared"


@pytest.mark.parametrize("apart_in", [0, 1])
def test_objects_keep_apart_in_every_frame(apart_in):
    left, right = box(2, 2, 12, 12), box(20, 2, 30, 12)
    video = MadeUp({i: {1: left, 2: right if i == apart_in else left} for i in range(2)})
    assert all(label_maps(video, seed).max() == 1 for seed in range(5))


@pytest.mark.parametrize("count", [5, 40])  # shorter than the clip, and longer
def test_a_clip_begins_with_an_object_that_is_large_enough(count):
    """Without one there is nothing to prompt, and nothing is learnt from the clip."""
    seen = {2, 3} if count == 5 else {9, 20, 21, 30}
    large, small = box(4, 4, 9, 9), box(0, 0, 4, 4)
    video = MadeUp({i: {1: large if i in seen else small} for i in range(count)})
    areas = [(label_maps(video, seed, num_frames=8, min_area=20)[0] == 1).sum() for seed in range(40)]
    assert areas.count(25) >= (40 if count == 5 else 25)


def test_a_video_without_such_an_object_is_shown_all_the_same():
    video = MadeUp({i: {1: box(0, 0, 4, 4)} for i in range(5)})
    assert label_maps(video, 0, min_area=20).shape == (2, 32, 32)
