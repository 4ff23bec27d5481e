"""Checks a replay's paths, and makes its files appear whole or not at all. Knows no formats."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sam2
from sam2_ros.readable import utf8


def check_free(out: Path) -> None:
    """Raises sam2.BadInput if a bag cannot be made at `out`."""
    if os.path.lexists(out):  # a link to nowhere is in the way, too
        raise sam2.BadInput(f"{out}: already exists; remove it or choose another name")
    check_folder(out)


def check_folder(out: Path) -> None:
    """Raises sam2.BadInput if there is no folder to write `out` into."""
    if not out.parent.is_dir():
        raise sam2.BadInput(f"{out}: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise sam2.BadInput(f"{out}: the folder {out.parent} cannot be written; choose another")


def check_file(out: Path, option: str, endings: tuple[str, ...]) -> None:
    """Raises sam2.BadInput unless `out` can be written as a file with one of `endings`."""
    if out.suffix.lower() not in endings:
        raise sam2.BadInput(f"{option} {out}: expected a name ending in {' or '.join(endings)}")
    check_folder(out)
    if out.is_dir():
        raise sam2.BadInput(f"{out}: expected the name of a file, found a folder")


def video_name(path: Path) -> str:
    """The name to give OpenCV. Raises sam2.BadInput if it is not UTF-8, because OpenCV would end the process."""
    if utf8(str(path)) != str(path):
        raise sam2.BadInput(f"{path}: expected a name in UTF-8, as OpenCV needs it for a video; rename it")
    return str(path.absolute())  # what precedes the colon in 12:30.mp4 would be a protocol


@contextmanager
def naming(out: Path) -> Iterator[None]:
    """Adds `out` to an OSError that names no file, as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(out)
        raise


@contextmanager
def part_of(out: Path) -> Iterator[Path]:
    """A path on the same disk as `out`, to write to and then to move to `out`. What is still there at the end of the
    block is removed."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".replay_", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / out.name


def close_undisturbed(stack: ExitStack) -> None:
    """Closes it with the signals ignored that end a replay: one that came between two outputs would leave only the
    first of them."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        stack.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def put_in_place(part: Path, out: Path, is_whole: bool, what: str) -> bool:
    """Moves a file to `out` if it `is_whole`; returns whether it is there. Otherwise prints that the `what` is lost,
    which is no error because the bag matters more."""
    if not is_whole:
        tell_lost(out, what)
        return False
    try:
        os.replace(part, out)
    except OSError as error:  # in a folder like /tmp, for one, a file of somebody else's may not be replaced
        tell_lost(out, what, str(error.strerror))
        return False
    return True


def tell_lost(out: Path, what: str, why: str = "is the disk full?") -> None:
    """Says that a file beside the bag could not be written."""
    print(f"{out}: the {what} could not be written; {why}", file=sys.stderr)
