"""Datasets as people have them: linked together, damaged, listed twice; read all the same, or refused by name."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_video_folder import SIZE_HW, write_davis, write_frame, write_palette

from sam2.errors import BadInput
from sam2.run_lengths import coco_encode
from sam2.training.dataset_clips import DatasetClips
from sam2.training.dataset_files import read_indices
from sam2.training.datasets import open_dataset


def write_film(folder: Path, masklet: list, ids=(0,)) -> Path:
    """Two frames and SA-V's annotations beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    film = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 24, SIZE_HW[::-1])
    for level in (20, 40):
        film.write(np.full((*SIZE_HW, 3), level, np.uint8))
    film.release()
    notes = folder / "film_manual.json"
    notes.write_text(json.dumps({"masklet": masklet, "masklet_id": list(ids)}))
    return notes


def test_masks_of_an_object_that_lie_elsewhere_are_its_masks(tmp_path):
    """Left out without a word, an object would be missing from the figures."""
    frames, masks = tmp_path / "sav_val/JPEGImages_24fps/v", tmp_path / "sav_val/Annotations_6fps/v"
    write_frame(frames / "00000.jpg", 100)
    write_palette(masks / "000/00000.PNG", {1: (0, 0, 4, 4)})
    write_palette(tmp_path / "elsewhere/00000.png", {1: (4, 4, 9, 9)})
    (masks / "003").symlink_to(tmp_path / "elsewhere")
    (masks / "004").symlink_to(masks)  # round in a circle
    write_palette(masks / ".ipynb_checkpoints/00000-checkpoint.png", {1: (0, 0, 4, 4)})
    (masks.parent / ".ipynb_checkpoints").mkdir()
    (video,) = open_dataset("sav", tmp_path, "val")
    assert {key: int(mask.sum()) for key, mask in video.masks[0].items()} == {0: 16, 3: 25}


def test_parts_of_sav_may_be_links_and_what_a_mac_leaves_behind_is_no_film(tmp_path):
    parts = tmp_path / "parts"
    write_film(parts, [[coco_encode(np.ones(SIZE_HW, bool))]])
    for suffix in (".mp4", "_manual.json"):
        (parts / f"._film{suffix}").write_bytes(b"what a Mac leaves behind")
    (parts / "film.mp4").rename(parts / "film.MP4")
    (tmp_path / "SA-V").mkdir()
    (tmp_path / "SA-V/sav_000").symlink_to(parts)
    (video,) = open_dataset("sav", tmp_path / "SA-V", "train")
    assert video.name == "film" and len(list(video.frames())) == 2


def test_a_mask_damaged_between_its_chunks_is_named(tmp_path):
    path = tmp_path / "0.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8))
    whole = path.read_bytes()
    at = whole.index(b"IDAT") - 4
    path.write_bytes(whole[:at] + (1000).to_bytes(4, "big") + whole[at + 4 :])  # as if its pixels ended early
    with pytest.raises(BadInput, match="0.png: expected a palette PNG"):
        read_indices(path)


def test_a_list_names_each_video_once_whatever_wrote_it(tmp_path):
    write_davis(tmp_path)
    listed = tmp_path / "ImageSets/2017/train.txt"
    listed.write_bytes("\ufeffdog\r\nbear\r\ndog\r\n".encode())
    assert [video.name for video in open_dataset("davis", tmp_path, "train")] == ["bear", "dog"]
    listed.write_bytes("b\u00e4r\n".encode("latin-1"))
    with pytest.raises(BadInput, match="train.txt: expected names of videos in UTF-8"):
        open_dataset("davis", tmp_path, "train")
    listed.write_text("\n")
    with pytest.raises(BadInput, match="train.txt: expected names of videos, a line each, found none"):
        open_dataset("davis", tmp_path, "train")
    listed.write_text("dog\nbaer\n")
    with pytest.raises(BadInput, match="train.txt: names baer, expected the folder .*Annotations/480p/baer; correct"):
        open_dataset("davis", tmp_path, "train")


def test_two_pictures_of_one_frame_are_refused(tmp_path):
    """Both would be played, and all masks behind them be of another frame."""
    write_davis(tmp_path)
    write_frame(tmp_path / "JPEGImages/480p/dog/00001.png", 0)
    with pytest.raises(BadInput, match=r"dog/00001.jpg: expected one picture of each frame"):
        open_dataset("davis", tmp_path, "train")


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ('{"masklet_id": [0], "masklet": []}', "masks of all objects in a frame or more"),
        ('{"masklet_id": [Infinity], "masklet": [[]]}', "expected an SA-V annotation"),
        ('{"masklet_id": [0], "masklet": [[{"size": [Infinity, 1], "counts": [1]}]]}', "a mask of each object"),
        ("[" * 100_000, "expected an SA-V annotation"),
    ],
    ids=["empty", "endless id", "endless size", "deep"],
)
def test_annotations_of_a_film_without_use_are_named(notes, words, tmp_path):
    write_film(tmp_path, []).write_text(notes)
    clips = DatasetClips((tuple(open_dataset("sav", tmp_path, "train")),), (1.0,), num_frames=2, size=32)
    with pytest.raises(BadInput, match=f"film_manual.json: .*{words}"):
        clips(0)


def test_a_video_is_not_evaluated_on_that_was_trained_on(tmp_path):
    write_davis(tmp_path)
    lists = tmp_path / "ImageSets/2017"
    (lists / "val.txt").write_text("cat\nbear\n")
    for split, other in (("train", "val"), ("val", "train")):
        with pytest.raises(
            BadInput, match=rf"{other}.txt: names bear, as does {split}.txt; expected each video in one"
        ):
            open_dataset("davis", tmp_path, split)
    (lists / "trainval.txt").write_text("cat\nbear\ndog\n")
    assert len(open_dataset("davis", tmp_path, "trainval")) == 3
    for words in ("cat\n", ""):
        (lists / "val.txt").write_text(words)
        assert len(open_dataset("davis", tmp_path, "train")) == 2
