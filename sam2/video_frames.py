"""Reads a JPEG folder or a video file into network input.

Folders give the official video predictor's numbers. Video files are read with OpenCV, where upstream uses decord;
colours may differ, as the two convert from the codec's colour space in different ways.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sam2.errors import BadInput
from sam2.files import opencv_name
from sam2.preprocess import to_model_input

_IMAGE_SUFFIXES = {".jpg", ".jpeg"}


def load_frames(
    video_path: str | Path, image_size: int, device: torch.device, lazily: bool = False
) -> tuple["Tensor | JpegFolder", int, int]:
    """(frames, height, width) of the source: frames index to (3, S, S) float32 on `device`.

    `video_path`: a folder of JPEGs named by their frame number, or a video file that OpenCV can read. `lazily`
    decodes each JPEG on access. Raises BadInput for anything else, and for an empty video.
    """
    path = Path(video_path)
    if path.is_dir():
        folder = JpegFolder(path, image_size, device)
        height, width = folder.size_hw
        if lazily:
            return folder, height, width
        sources = map(_read_jpeg, folder.paths)
        return _resized(sources, len(folder), image_size, device, "frame loading (JPEG)"), height, width
    if not path.is_file():
        raise BadInput(f"video_path {str(path)!r}: expected a folder of JPEG files or a video file, found neither")
    count, (height, width) = _measure_video(path)
    if not count:
        raise BadInput(f"video_path {str(path)!r}: expected a video with at least one frame that OpenCV can decode")
    return _resized(_read_video(path), count, image_size, device, "frame loading (video)"), height, width


def _resized(sources: Iterable[np.ndarray], count: int, image_size: int, device: torch.device, title: str) -> Tensor:
    """(n, 3, S, S) for n <= `count` frames, resized one at a time, so that only the result grows with the video."""
    images, filled = torch.empty(count, 3, image_size, image_size, dtype=torch.float32, device=device), 0
    for frame in tqdm(islice(sources, count), desc=title, total=count):
        images[filled] = to_model_input(frame, image_size)
        filled += 1
    return images[:filled]


class JpegFolder:
    """The frames of a folder, decoded whenever they are needed: kept, they would be 12 MB each at 1024 pixels."""

    def __init__(self, folder: Path, image_size: int, device: torch.device):
        names = [p for p in folder.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES]
        unnumbered = [p.name for p in names if not re.fullmatch(r"\d+", p.stem)]
        if unnumbered or not names:
            got = f"{unnumbered[0]!r}" if unnumbered else "no JPEG file"
            raise BadInput(f"video_path {str(folder)!r}: expected JPEGs named by frame number (00000.jpg), got {got}")
        self.paths = sorted(names, key=lambda p: int(p.stem))
        self._image_size, self._device = image_size, device
        self.size_hw = _read_jpeg(self.paths[0]).shape[:2]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return to_model_input(_read_jpeg(self.paths[index]), self._image_size).to(self._device)


def _read_jpeg(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises BadInput."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow, on damaged files
        raise BadInput(f"frame {path}: expected a JPEG that can be decoded, got {error}") from error


def _measure_video(path: Path) -> tuple[int, tuple[int, int]]:
    """The number of frames and (height, width) of the first, by decoding all of them: headers may be wrong."""
    capture = cv2.VideoCapture(opencv_name(path))
    try:
        more, first = capture.read()
        count = 0
        while more:
            count, more = count + 1, capture.grab()
        return count, first.shape[:2] if count else (0, 0)
    finally:
        capture.release()


def _read_video(path: Path) -> Iterator[np.ndarray]:
    """RGB frames (H, W, 3) uint8 of a video file."""
    capture = cv2.VideoCapture(opencv_name(path))
    try:
        while True:
            more, bgr = capture.read()
            if not more:
                return
            yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
