"""Eight images of a replay in one picture, evenly spread over the recording.

Its length need not be known: of the images so far, at most sixteen are kept, evenly spaced.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import sam2
from sam2_ros.overlay import Overlay
from sam2_ros.panel import PAPER, panel
from sam2_ros.pictures import write_picture
from sam2_ros.replay_files import part_of, put_in_place
from sam2_ros.replay_source import Shot

_COLUMNS, _ROWS = 4, 2


class ContactSheet:
    """A sink of a replay; use `open`."""

    def __init__(self) -> None:
        self._overlay = Overlay()
        self._kept: list[tuple[int, np.ndarray]] = []  # number of the image, its panel
        self._seen, self._step = 0, 1  # images so far; every `_step`-th is kept
        self.is_written = False  # final once closed

    @classmethod
    @contextmanager
    def open(cls, out: Path) -> Iterator["ContactSheet"]:
        """out: ends in .png or .jpg. Leaves no file if the replay fails. If the sheet cannot be written, prints a
        message and raises nothing."""
        with part_of(out) as part:
            made = cls()
            yield made
            made.is_written = put_in_place(part, out, write_picture(part, made.picture()), "sheet")

    def write(self, shot: Shot, tracks: list[sam2.Track]) -> None:
        drawn = self._overlay.draw(shot.rgb, tracks)  # even if not kept: the overlay remembers where objects were
        number, self._seen = self._seen, self._seen + 1  # not `index`, which counts refused images too
        if number % self._step:
            return
        if len(self._kept) == 2 * _COLUMNS * _ROWS:
            self._step *= 2
            self._kept = self._kept[::2]
        self._kept.append((shot.index, panel(drawn, f"image {shot.index}")))

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB; fewer than eight images leave places empty."""
        count = _COLUMNS * _ROWS
        chosen = np.unique(np.linspace(0, len(self._kept) - 1, count).round().astype(int))
        panels = [self._kept[i][1] for i in chosen]
        panels += [np.full_like(panels[0], PAPER)] * (count - len(panels))
        return np.vstack([np.hstack(panels[i : i + _COLUMNS]) for i in range(0, count, _COLUMNS)])
