"""A replay as one video of a data set in the layout of DAVIS: to look through, to correct, to train and to score with.

Knows files. A mask's pixels are labels, as in the label mask; the palette has the colours of the overlay.
"""

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import cv2
from PIL import Image

import sam2
from sam2_ros.overlay import colour_of
from sam2_ros.readable import utf8
from sam2_ros.replay_files import check_folder, naming
from sam2_ros.replay_source import Shot

FRAMES, MASKS, LIST = "JPEGImages/480p", "Annotations/480p", "ImageSets/2017/train.txt"
LONGEST = 255  # bytes in the name of a folder
LOCK_S = 10.0
_JPEG_QUALITY, _JPEG_SIDE = 95, 65500  # the encoder's limit
_PALETTE = bytes([0, 0, 0, *(channel for label in range(1, 255) for channel in colour_of(label)), 255, 255, 255])


class DavisVideo:
    """A sink of a replay; use `open`. Files are named by the number of their image. root: the data set; part: a folder
    for frames and masks until they are moved into it.

    objects: how many there will be. Images before the last of them is prompted, and those with an INVALID object, are
    left out, because in training an object without a mask counts as absent.
    """

    def __init__(self, root: Path, part: Path, objects: int) -> None:
        self._root, self._frames, self._masks, self._objects = root, part / "frames", part / "masks", objects
        self.is_written = False  # final once closed

    @classmethod
    @contextmanager
    def open(cls, root: Path, name: str, objects: int) -> Iterator["DavisVideo"]:
        """Adds the video `name` to the data set at `root`, which is made if necessary, and to its training list.

        Raises sam2.BadInput if the data set has that video already or cannot be written. Leaves nothing behind if the
        replay fails or has no image to write; in the latter case it prints a message.
        """
        if utf8(name) != name or len(name.encode()) > LONGEST or [name] != name.strip().splitlines():
            raise sam2.BadInput(
                f"--davis {root}: expected a video's name that is one line of a list in UTF-8, of at most {LONGEST} "
                f"bytes and without spaces at its ends, got {name!r:.100}; choose another --name"
            )
        frames, masks, names = root / FRAMES / name, root / MASKS / name, root / LIST
        _check_free(frames, masks)
        _lines(names)
        with _folders(root, *(path.parent for path in (frames, masks, names))):
            with tempfile.TemporaryDirectory(dir=root, prefix=".replay_", ignore_cleanup_errors=True) as part:
                made = cls(root, Path(part), objects)
                made._frames.mkdir()
                made._masks.mkdir()
                yield made
                if not any(made._frames.iterdir()):
                    lack = f"not one of its images has all {objects} objects"
                    print(f"{root}: {name} is left out: {lack}", file=sys.stderr)
                    return
                with _in_turn(root):
                    _check_free(frames, masks)  # again: hours have passed, and another replay may have used the name
                    with naming(root):
                        made._put_in_place(frames, masks, names)
                made.is_written = True

    def _put_in_place(self, frames: Path, masks: Path, names: Path) -> None:
        moved: list[Path] = []
        try:
            for ours, place in ((self._frames, frames), (self._masks, masks)):
                place.parent.mkdir(parents=True, exist_ok=True)  # again: another replay may have made and removed it
                os.rename(ours, place)
                moved.append(place)
            names.parent.mkdir(parents=True, exist_ok=True)
            _add_line(names, frames.name, self._frames.parent / "list")
        except BaseException:
            for place in moved:  # and not the other place, which another replay may have filled
                shutil.rmtree(place, ignore_errors=True)
            raise

    def write(self, shot: Shot, tracks: list[sam2.Track]) -> None:
        if len(tracks) < self._objects or any(track.state is sam2.State.INVALID for track in tracks):
            return
        bgr = cv2.cvtColor(shot.rgb, cv2.COLOR_RGB2BGR)  # (H, W, 3)
        if max(bgr.shape) > _JPEG_SIDE:
            size = "x".join(map(str, bgr.shape[1::-1]))
            raise sam2.BadInput(f"--davis: a JPEG has at most {_JPEG_SIDE} pixels a side, image {shot.index} is {size}")
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
        labels = sam2.label_mask(tracks, shot.rgb.shape[:2])  # (H, W)
        picture = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
        picture.putpalette(_PALETTE)
        with naming(self._root):
            (self._frames / f"{shot.index:05}.jpg").write_bytes(jpeg.tobytes())
            picture.save(self._masks / f"{shot.index:05}.png")


def _check_free(*folders: Path) -> None:
    there = " and ".join(str(folder) for folder in folders if os.path.lexists(folder))
    if there:
        raise sam2.BadInput(f"{there}: there already; remove them, or give this recording another --name")


@contextmanager
def _in_turn(root: Path) -> Iterator[None]:
    """Locks the data set, because other replays may be adding to it, too. Goes on without the lock if there are none,
    or if it is not free within LOCK_S: a training whose results are there, too, holds it for hours."""
    opened, end_s = os.open(root, os.O_RDONLY), time.monotonic() + LOCK_S
    try:
        with suppress(OSError):  # there are no locks
            while time.monotonic() < end_s:
                with suppress(BlockingIOError):
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.02)
        yield
    finally:
        os.close(opened)


@contextmanager
def _folders(root: Path, *folders: Path) -> Iterator[None]:
    """Makes folders, and removes those that stay empty. Raises sam2.BadInput if they cannot be made."""
    made: list[Path] = []
    try:
        for folder in (root, *folders):
            for part in reversed([folder, *folder.parents]):
                if not part.exists():
                    check_folder(part)
                    part.mkdir(exist_ok=True)  # another replay may begin at the same moment
                    made.append(part)
                elif not part.is_dir():
                    raise sam2.BadInput(f"{part}: expected a folder, or nothing, found a file")
            check_folder(folder / "new")
        yield
    finally:
        with ExitStack() as stack:
            with suppress(OSError):  # it may be what cannot be made
                stack.enter_context(_in_turn(root))
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()


def _add_line(path: Path, line: str, part: Path) -> None:
    """Adds a line unless the list has it, or another one beside it, where somebody has moved it to evaluate on. part:
    where the new list is written first, as a full disk must not destroy the old one."""
    lines = _lines(path)
    others = (each.read_text("utf-8-sig", errors="replace").splitlines() for each in path.parent.glob("*.txt"))
    if not any(line in each for each in (lines, *others)):
        part.write_text("".join(f"{each}\n" for each in [*lines, line]), "utf-8")
        os.replace(part, path)


def _lines(path: Path) -> list[str]:
    """The lines of a list of videos; [] if there is no such file. Raises sam2.BadInput."""
    try:
        return path.read_text("utf-8-sig").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise sam2.BadInput(f"{path}: expected a list of videos in UTF-8, got: {error}") from error
