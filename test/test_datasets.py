"""Dataset loaders on tiny folders of each layout, written here."""

import gc
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from small_video_folder import SIZE_HW, write_davis, write_frame, write_palette, write_video

from sam2.errors import BadInput
from sam2.evaluation_video import RecordedVideo
from sam2.run_lengths import coco_encode
from sam2.training.dataset_clips import DatasetClips
from sam2.training.dataset_files import read_rgb
from sam2.training.datasets import LAYOUTS, open_dataset


@pytest.fixture
def davis(tmp_path):
    write_davis(tmp_path)
    return tmp_path


def test_davis_reads_the_listed_videos(davis):
    videos = open_dataset("davis", davis, "train")
    assert [video.name for video in videos] == ["bear", "dog"]
    frames = list(videos[0].frames())
    assert len(frames) == 3 and frames[0].shape == (*SIZE_HW, 3)
    assert frames[0][0, 0, 0] > 190 and frames[0][0, 0, 2] < 20, "RGB, not BGR"
    masks = videos[0].masks[1]
    assert set(masks) == {1, 7}, "palette indices, without background and void"
    assert np.argwhere(masks[7]).min(0).tolist() == [10, 20] and masks[7].sum() == 100


@pytest.mark.parametrize("name", ["youtube_vos", "mose", "lvos"])
def test_folders_by_split(tmp_path, name):
    write_video(tmp_path / "valid/JPEGImages", tmp_path / "valid/Annotations", "a1", start=5, every=5)
    (video,) = open_dataset(name, tmp_path, "valid")
    assert list(video.masks) == [0, 1, 2], "by place in the video, not by the number in the name"
    assert video.masks[2][1].sum() == 36


def test_frames_without_masks_are_frames_all_the_same(tmp_path):
    write_video(tmp_path / "valid/JPEGImages", tmp_path / "valid/Annotations", "a1", num_frames=4)
    (tmp_path / "valid/Annotations/a1/00001.png").unlink()
    (video,) = open_dataset("mose", tmp_path, "valid")
    assert list(video.masks) == [0, 2, 3] and len(list(video.frames())) == 4


def test_numbered_frames_are_in_the_order_of_their_numbers(tmp_path):
    frames, masks = tmp_path / "valid/JPEGImages/a1", tmp_path / "valid/Annotations/a1"
    for number in (0, 5, 10, 100):
        write_frame(frames / f"{number}.jpg", 20 + number)
        write_palette(masks / f"{number}.png", {1: (0, 0, 4, 4)})
    (frames / "._0.jpg").write_bytes(b"what a Mac leaves behind")
    (masks / "._0.png").write_bytes(b"what a Mac leaves behind")
    (video,) = open_dataset("mose", tmp_path, "valid")
    assert [round(frame[..., 0].mean() / 5) * 5 for frame in video.frames()] == [20, 25, 30, 120]
    assert video.masks[0][1].sum() == 16


def test_numbers_within_names_are_in_order_too(tmp_path):
    frames, masks = tmp_path / "valid/JPEGImages/a1", tmp_path / "valid/Annotations/a1"
    for number in (1, 2, 10, 11):
        write_frame(frames / f"img_{number}.jpg", 20 + 10 * number)
        write_palette(masks / f"img_{number}.png", {1: (0, 0, number, 1)})
    (video,) = open_dataset("mose", tmp_path, "valid")
    assert [round(frame[..., 0].mean() / 10) * 10 for frame in video.frames()] == [30, 40, 120, 130]
    assert [int(video.masks[i][1].sum()) for i in range(4)] == [1, 2, 10, 11]


def test_times_as_names_are_in_order(tmp_path):
    """As whoever takes images out of a bag names them: the fraction has as many digits as it needs."""
    for name in ("7.25", "7.5", "8.125", "8.2"):
        write_frame(tmp_path / f"valid/JPEGImages/a1/{name}.jpg", 20)
        write_palette(tmp_path / f"valid/Annotations/a1/{name}.png", {1: (0, 0, 4, 4)})
    (video,) = open_dataset("mose", tmp_path, "valid")
    assert [path.stem for path in video.source] == ["7.25", "7.5", "8.125", "8.2"]


def test_grey_masks_are_of_one_object_if_the_first_shows_nothing_else(tmp_path):
    write_video(tmp_path / "valid/JPEGImages", tmp_path / "valid/Annotations", "a1")
    numbers = np.zeros(SIZE_HW, np.uint8)
    numbers[2:6, 3:9] = 1
    void = np.zeros(SIZE_HW, np.uint8)
    void[0, :8] = 255
    for kind, expected in (([255 * numbers, void, 0 * void], [{1: 24}, {1: 8}, {}]),
                           ([0 * void, 255 * numbers, void], [{}, {1: 24}, {1: 8}]),
                           ([numbers | void, void, 0 * void], [{1: 24}, {}, {}]),
                           ([0 * void, numbers | void, void], [{}, {1: 24}, {}])):  # fmt: skip
        for index, mask in enumerate(kind):
            cv2.imwrite(str(tmp_path / f"valid/Annotations/a1/{index:05d}.png"), mask)
        (video,) = open_dataset("mose", tmp_path, "valid")
        assert [{key: int(mask.sum()) for key, mask in video.masks[i].items()} for i in range(3)] == expected


def test_grey_masks_with_soft_edges_are_refused_for_their_shades_would_be_objects(tmp_path):
    """As of a tool that blurs, resizes or writes them as JPEG. Few objects with a void around them are none."""
    write_video(tmp_path / "valid/JPEGImages", tmp_path / "valid/Annotations", "a1")
    path, numbers = tmp_path / "valid/Annotations/a1/00000.png", np.zeros(SIZE_HW, np.uint8)
    numbers[2:12, 3:20] = 255
    cv2.imwrite(str(path), cv2.blur(numbers, (3, 3)))
    (video,) = open_dataset("mose", tmp_path, "valid")
    with pytest.raises(BadInput, match="00000.png: .* a mask of 255 with 5 other shades"):
        video.masks[0]
    numbers[5:8, 5:8], numbers[5:8, 10:13] = 1, 127
    cv2.imwrite(str(path), numbers)
    (video,) = open_dataset("mose", tmp_path, "valid")
    assert {key: int(mask.sum()) for key, mask in video.masks[0].items()} == {1: 9, 127: 9}


def test_a_jpeg_that_ends_in_its_middle_is_refused(davis):
    path = davis / "JPEGImages/480p/bear/00001.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    whole = path.read_bytes()
    (video, _) = open_dataset("davis", davis, "train")
    path.write_bytes(whole + bytes(100))
    assert np.array_equal(video.frames_at([1])[0], read_rgb(path)), "what some cameras write behind the end"
    for content in (whole[: len(whole) // 2], whole[:-2], b""):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"bear/00001.jpg: expected"):
            list(video.frames())


def test_a_mask_without_its_frame_is_refused(davis):
    (davis / "JPEGImages/480p/bear/00001.jpg").unlink()
    with pytest.raises(BadInput, match=r"Annotations/480p/bear/00001.png: expected its frame 00001.jpg in .*bear"):
        open_dataset("davis", davis, "train")


def test_masks_with_colours_or_wide_numbers_are_refused(tmp_path):
    write_video(tmp_path / "valid/JPEGImages", tmp_path / "valid/Annotations", "a1")
    (video,) = open_dataset("mose", tmp_path, "valid")
    for wrong, mode in ((np.zeros((*SIZE_HW, 3), np.uint8), "RGB"), (np.zeros(SIZE_HW, np.uint16), "I")):
        cv2.imwrite(str(tmp_path / "valid/Annotations/a1/00001.png"), wrong)
        with pytest.raises(BadInput, match=f"00001.png: expected a PNG whose pixels are object numbers.*{mode}"):
            video.masks[1]


def test_sav_validation_has_one_folder_per_object(tmp_path):
    frames, masks = tmp_path / "sav_val/JPEGImages_24fps/v", tmp_path / "sav_val/Annotations_6fps/v"
    for index in range(6):
        write_frame(frames / f"{index:05d}.jpg", 100)
    for index in (0, 4):
        write_palette(masks / f"000/{index:05d}.png", {1: (0, 0, 4, 4)})
        write_palette(masks / f"003/{index:05d}.png", {1: (4, 4, 9, 9)})
    (video,) = open_dataset("sav", tmp_path, "val")
    assert list(video.masks) == [0, 4]
    assert {key: int(mask.sum()) for key, mask in video.masks[4].items()} == {0: 16, 3: 25}
    write_palette(masks / "notes/00000.png", {1: (0, 0, 4, 4)})
    with pytest.raises(BadInput, match="one folder of masks per object"):
        open_dataset("sav", tmp_path, "val")


@pytest.fixture
def sav(tmp_path):
    film = cv2.VideoWriter(str(tmp_path / "sav_000009.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 24, SIZE_HW[::-1])
    for index in range(12):
        film.write(np.full((*SIZE_HW, 3), 20 * index, np.uint8))
    film.release()
    rows = []
    for row in range(3):
        mask = np.zeros(SIZE_HW, bool)
        mask[2:6, 3 + row : 9 + row] = True
        rows.append([coco_encode(mask), coco_encode(np.zeros(SIZE_HW, bool))])
    (tmp_path / "sav_000009_manual.json").write_text(json.dumps({"masklet": rows, "masklet_id": [0, 4]}))
    return tmp_path


def test_sav_training_is_a_film_with_masklets(sav):
    (video,) = open_dataset("sav", sav, "train")
    assert list(video.masks) == [0, 4, 8] and len(list(video.frames())) == 12
    assert video.masks[8][0].any() and not video.masks[8][4].any(), "annotated as away"
    assert np.argwhere(video.masks[8][0]).min(0).tolist() == [2, 5]
    with pytest.raises(KeyError):
        video.masks[3]
    whole = json.loads((sav / "sav_000009_manual.json").read_text())
    whole["masklet"][2].pop()
    (sav / "sav_000009_manual.json").write_text(json.dumps(whole))
    with pytest.raises(BadInput, match="manual.json: expected a mask of each object in frame 8"):
        open_dataset("sav", sav, "train")[0].masks[8]
    for damaged in (
        "{",
        "[]",
        '{"masklet": []}',
        '{"masklet": null, "masklet_id": []}',
        '{"masklet": [5], "masklet_id": [0]}',
    ):
        (sav / "sav_000009_manual.json").write_text(damaged)
        with pytest.raises(BadInput, match="an SA-V annotation"):
            list(open_dataset("sav", sav, "train")[0].masks)


def test_frames_of_sav_with_null_for_a_mask_are_not_annotated(sav):
    """As upstream: null does not say that the object is away."""
    notes, (video,) = sav / "sav_000009_manual.json", open_dataset("sav", sav, "train")
    whole = json.loads(notes.read_text())
    whole["masklet"][1][0] = None
    notes.write_text(json.dumps(whole))
    assert list(video.masks) == [0, 8] and len(video.masks) == 2 and video.masks.get(4) is None
    clips = DatasetClips(((video,),), (1.0,), num_frames=2, size=32)
    assert all((clips(seed)[..., 3] == 1).any((1, 2)).all() for seed in range(8)), "it is in frames 0 and 8"
    played = RecordedVideo(video, may_overlap=True).frames()
    assert [index for index, entry in enumerate(played) if entry.masks is not None] == [0, 8]
    whole["masklet"][0] = None
    notes.write_text(json.dumps(whole))
    assert list(video.masks) == [8]
    whole["masklet"][2][1] = None
    notes.write_text(json.dumps(whole))
    with pytest.raises(
        BadInput, match="manual.json: .* masks of all objects in a frame or more, got none; leave it out"
    ):
        clips(0)


def test_of_sav_only_the_newest_annotations_stay_in_memory(tmp_path):
    rle = coco_encode(np.eye(41, dtype=bool))
    for index in range(9):
        (tmp_path / f"sav_{index}.mp4").touch()
        (tmp_path / f"sav_{index}_manual.json").write_text(json.dumps({"masklet": [[rle]], "masklet_id": [0]}))
    videos = open_dataset("sav", tmp_path, "train")
    assert all(video.masks[0][0].any() for video in videos)
    kept = [thing for thing in gc.get_objects() if type(thing) is dict and thing.get("counts") == rle["counts"]]
    assert len([thing for thing in kept if thing is not rle]) <= 4


def test_a_film_gives_the_frames_asked_for_in_that_order(sav):
    (video,) = open_dataset("sav", sav, "train")
    late, early = video.frames_at([8, 4])
    assert abs(int(late[0, 0, 0]) - 160) < 8 and abs(int(early[0, 0, 0]) - 80) < 8
    with pytest.raises(BadInput, match="ends before"):
        video.frames_at([40])


def test_a_film_that_ends_before_its_masks_is_refused_when_it_is_played(sav):
    whole = json.loads((sav / "sav_000009_manual.json").read_text())
    whole["masklet"].append(whole["masklet"][-1])
    (sav / "sav_000009_manual.json").write_text(json.dumps(whole))
    (video,) = open_dataset("sav", sav, "train")
    with pytest.raises(BadInput, match=r"sav_000009.mp4: frames \[12\] are annotated, but the film ends before them"):
        list(video.frames())


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_missing_dataset_says_where_to_get_it(tmp_path, name):
    with pytest.raises(BadInput) as caught:
        open_dataset(name, tmp_path, "train")
    assert LAYOUTS[name].source in str(caught.value) and str(tmp_path) in str(caught.value)


def test_an_unknown_dataset_names_the_known():
    with pytest.raises(BadInput, match="youtube_vos"):
        open_dataset("imagenet", ".")


def test_a_picture_is_read_as_it_is_stored(tmp_path):
    """Like its masks, which know no orientation."""
    rgb = np.zeros((16, 32, 3), np.uint8)
    rgb[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: upside down
    Image.fromarray(rgb).save(tmp_path / "0.jpg", exif=exif)
    assert read_rgb(tmp_path / "0.jpg")[:4].min() > 200
