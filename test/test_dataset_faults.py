"""Datasets as people have them: linked together, damaged, listed twice; read all the same, or refused by name."""

import json
from pathlib import Path

import cv2
import numpy as np
from small_video_folder import SIZE_HW, write_frame, write_palette

from sam2.masks import coco_encode
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
