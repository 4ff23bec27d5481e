"""Atomic writes, locks on folders, and checks before long work that an output path is given and writable."""

import argparse
import glob
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sam2.errors import BadInput

if sys.platform != "win32":
    import fcntl

_ABANDONED_S = 600.0  # a .part file not modified for so long is abandoned


def opencv_name(path: Path) -> str:
    """The name of a video file for OpenCV. Raises BadInput if it is not UTF-8: OpenCV would end the process."""
    name = str(path.absolute())  # what precedes the colon in 12:30.mp4 would be a protocol
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{path}: expected a name in UTF-8, as OpenCV needs it for a video; rename it") from None
    return name


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Re-raises an OSError with the path and what to do; that of a full disk has neither."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{path}: cannot be written ({reason}); make room, or name another place") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Adds the path to an OSError that names no file, as that of a disk which cannot read its content."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file atomically, by renaming a temporary one beside it; makes the folder. Removes the temporary file if
    writing fails, and old ones that killed processes left. Raises OSError, or ValueError for an invalid path."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # another process may be writing it, too
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_old_parts(path)
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:  # also Ctrl-C
            part.unlink(missing_ok=True)
            raise


def _remove_old_parts(path: Path) -> None:
    """Removes abandoned .part files of `path`; another process may still be writing a recent one."""
    with suppress(OSError):  # another process removed it, or only another user may
        for part in path.parent.glob(f"{glob.escape(path.name)}.[0-9]*.part"):
            if time.time() - part.stat().st_mtime > _ABANDONED_S:
                part.unlink()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Makes a folder and locks it while the block runs, since two runs would overwrite each other's files.

    Raises BadInput if another process holds the lock. The lock ends with the process, even a killed one, and leaves no
    file behind. On a file system without locks the folder is not locked.
    """

    def refuse() -> None:
        raise BadInput(
            f"{folder}: expected no other run in this folder, another process is at work there; wait for its end, or "
            "name another --out"
        ) from None

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, refuse):
        yield


@contextmanager
def in_turn(folder: Path, waiting: str) -> Iterator[None]:
    """Like `alone_in`, but waits for the process that holds the lock, after printing the sentence `waiting`. Raises
    OSError if the folder cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, lambda: print(waiting, file=sys.stderr, flush=True)):
        yield


@contextmanager
def _locked(folder: Path, when_taken: Callable[[], None]) -> Iterator[None]:
    """Locks a folder while the block runs: until its descriptor is closed. If another process holds the lock, calls
    `when_taken`, then waits for it."""
    if sys.platform == "win32":
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                when_taken()
                fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def path_argument(text: str) -> Path:
    """A path on a command line. An empty one, which `Path` takes for the current folder, is refused: in a script it
    comes from a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got an empty text; is a variable not set?")
    return Path(os.path.expanduser(text))  # shells leave the ~ of --out=~/x


def check_file(path: Path, option: str) -> None:
    """Raises BadInput unless a file can be written at `path`, whose folders need not exist yet. To be called before
    hours of work."""
    if path.is_dir():
        raise BadInput(f"{option}: expected the name of a file, got the folder {path}; add a name")
    check_folder(path.parent, option)


def check_folder(path: Path, option: str) -> None:
    """Raises BadInput unless files can be written into the folder `path`, which need not exist yet."""
    path = path.absolute()
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise BadInput(f"{option}: expected a folder, got the file {nearest}; name another place")
    try:
        with tempfile.TemporaryFile(dir=nearest):  # mode bits do not decide: root, ACLs, read-only mounts
            pass
    except OSError as error:
        raise BadInput(f"{option}: the folder {nearest} cannot be written ({error.strerror}); name another") from error
