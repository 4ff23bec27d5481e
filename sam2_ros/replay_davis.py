"""A replay as one video of a data set in the layout of DAVIS: to look through, to correct, to train and to score with.

Knows files. A mask's pixels are labels, as in the label mask; the palette has the colours of the overlay.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import sam2
from sam2_ros.overlay import colour_of
from sam2_ros.replay_sink import check_folder
from sam2_ros.replay_source import Shot

FRAMES, MASKS, LIST = "JPEGImages/480p", "Annotations/480p", "ImageSets/2017/train.txt"
_JPEG_QUALITY = 95
_PALETTE = bytes([0, 0, 0, *(channel for label in range(1, 255) for channel in colour_of(label)), 255, 255, 255])


class DavisVideo:
    """A sink of a replay; use `open`. frames, masks: folders; files are named by the number of their image."""

    def __init__(self, frames: Path, masks: Path) -> None:
        self._frames, self._masks = frames, masks

    @classmethod
    @contextmanager
    def open(cls, root: Path, name: str) -> Iterator["DavisVideo"]:
        """Adds the video `name` to the data set at `root`, which is made if need be, and to its training list.

        Raises sam2.BadInput if it has that video. Nothing is left of a failed replay; the list names whole videos only.
        """
        frames, masks = root / FRAMES / name, root / MASKS / name
        there = " and ".join(str(folder) for folder in (frames, masks) if folder.exists())
        if there:
            raise sam2.BadInput(f"{there}: there already; remove them, or give this recording another --name")
        with _folder(root), tempfile.TemporaryDirectory(dir=root, prefix=".replay_") as part:
            made = cls(Path(part) / "frames", Path(part) / "masks")
            made._frames.mkdir()
            made._masks.mkdir()
            yield made
            for folder in (frames, masks):
                folder.parent.mkdir(parents=True, exist_ok=True)
            os.rename(made._frames, frames)
            os.rename(made._masks, masks)
            _add_line(root / LIST, name)

    def write(self, shot: Shot, tracks: list[sam2.Track]) -> None:
        bgr = cv2.cvtColor(shot.rgb, cv2.COLOR_RGB2BGR)  # (H, W, 3)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
        (self._frames / f"{shot.index:05}.jpg").write_bytes(jpeg.tobytes())
        labels = sam2.label_mask(tracks, shot.rgb.shape[:2])  # (H, W)
        picture = Image.frombytes("P", labels.shape[::-1], np.ascontiguousarray(labels).tobytes())
        picture.putpalette(_PALETTE)
        picture.save(self._masks / f"{shot.index:05}.png")


@contextmanager
def _folder(root: Path) -> Iterator[None]:
    """`root` is a folder meanwhile, and afterwards unless it was made in vain. Raises sam2.BadInput if it cannot be."""
    if root.exists() and not root.is_dir():
        raise sam2.BadInput(f"{root}: expected a folder, or nothing, found a file")
    check_folder(root / "ImageSets" if root.is_dir() else root)
    made_here = not root.is_dir()
    root.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if made_here:
                root.rmdir()
        raise


def _add_line(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    if line not in lines:
        path.write_text("".join(f"{each}\n" for each in [*lines, line]))
