"""Writes pictures to a video file, which appears complete or not at all: a replay's overlay, the demo's films."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

import sam2
from sam2_ros.overlay import Overlay
from sam2_ros.replay_files import part_of, put_in_place, video_name
from sam2_ros.replay_source import Shot

_MOST_TICKS = 65535  # per second, of MPEG-4's clock, which OpenCV takes from the rate's first three decimals


class Film:
    """The images with the tracks drawn on them, as a video; use `open`."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._overlay = path, Overlay()
        self._fps = round(fps, int(math.log10(_MOST_TICKS / fps)))
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self.is_written = False  # final once closed

    @classmethod
    @contextmanager
    def open(cls, out: Path, fps: float) -> Iterator["Film"]:
        """Raises sam2.BadInput if OpenCV cannot write such a file. An incomplete file is discarded with a printed
        message; that raises nothing."""
        video_name(out)
        with part_of(out) as part:
            film = cls(part, fps)
            yield film
            if film._writer is not None:
                film._writer.release()
                film.is_written = put_in_place(part, out, film._is_whole(), "video")

    def write(self, shot: Shot, tracks: list[sam2.Track]) -> None:
        """Draws the tracks on the image and adds it, scaled to the size of the first."""
        self.write_picture(self._overlay.draw(shot.rgb, tracks))

    def write_picture(self, rgb: np.ndarray) -> None:
        """rgb: (H, W, 3) uint8."""
        height, width = rgb.shape[:2]
        if self._writer is None:
            self._size_wh = width, height
            codec = cv2.VideoWriter.fourcc(*"mp4v")  # the one that every build of OpenCV has
            self._writer = cv2.VideoWriter(video_name(self._path), codec, self._fps, self._size_wh)
            if not self._writer.isOpened():
                raise sam2.BadInput(
                    f"{self._path.name}: OpenCV cannot begin a video of {width}x{height} pixels and {self._fps:g} "
                    "images per second; choose another rate or leave the video out, or is the disk full?"
                )
        if (width, height) != self._size_wh:
            rgb = cv2.resize(rgb, self._size_wh, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

    def _is_whole(self) -> bool:
        """Whether the file can be opened. OpenCV's writer does not report a full disk, but then the index at the file's
        end is missing."""
        return cv2.VideoCapture(video_name(self._path)).isOpened()
