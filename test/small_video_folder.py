"""Tiny videos on disk in the layouts of the datasets: red frames, two objects and void."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE_HW = (24, 32)


def write_frame(path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*SIZE_HW, 3), (0, 0, level), np.uint8))  # BGR: red


def write_palette(path, boxes: dict[int, tuple[int, int, int, int]]) -> None:
    """boxes: object id -> x0 y0 x1 y1; the palette's colours are not its indices."""
    labels = np.zeros(SIZE_HW, np.uint8)
    for object_id, (x0, y0, x1, y1) in boxes.items():
        labels[y0:y1, x0:x1] = object_id
    image = Image.frombytes("P", SIZE_HW[::-1], labels.tobytes())
    image.putpalette([(17 * i) % 256 for i in range(768)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_video(frames, masks, name: str, num_frames: int = 3, start: int = 0, every: int = 1) -> None:
    for index in range(start, start + num_frames * every, every):
        write_frame(frames / name / f"{index:05d}.jpg", level=200 - index)
        write_palette(masks / name / f"{index:05d}.png", {1: (2, 3, 8, 9), 7: (20, 10, 30, 20), 255: (0, 0, 2, 2)})


def write_davis(root: Path) -> None:
    """Three videos, of which two are listed for training."""
    for name in ("bear", "cat", "dog"):
        write_video(root / "JPEGImages/480p", root / "Annotations/480p", name)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/train.txt").write_text("dog\nbear\n")
