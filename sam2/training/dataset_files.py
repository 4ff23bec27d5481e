"""Reads images, masks, films and lists, and names damaged files. Knows nothing of datasets."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sam2.errors import BadInput
from sam2.files import opencv_name, reading

VOID = 255  # palette index some datasets use for "do not score"; read as background
_JPEG_BEGINS, _JPEG_ENDS = b"\xff\xd8", b"\xff\xd9"
_TRAILER = 1024  # bytes that a camera may append to a JPEG


def find_files(folder: Path, suffixes: tuple[str, ...], above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Files below a folder with one of these suffixes, in either case, sorted; none if there is no such folder.

    Follows links to folders, but not in circles; skips hidden files. `above`: the folders that it is in.
    """
    above = above | {Path(os.path.realpath(folder))}  # `Path.resolve` raises for links in a circle
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or path.name == "lost+found":  # unreadable, at the root of a file system
            continue
        if path.suffix.lower() in suffixes:
            yield path
        elif path.is_dir() and Path(os.path.realpath(path)) not in above:
            yield from find_files(path, suffixes, above)


def in_order(path: Path) -> tuple[list[tuple[Decimal, str]], str]:
    """Sort key: by name, with numbers by value: "img_9" comes before "img_10", and the time "7.25" before "7.5"."""
    parts = re.findall(r"^\d+\.\d+$|\d+|\D+", path.stem)
    return [(Decimal(part), "") if part[0].isdecimal() else (Decimal(-1), part) for part in parts], path.name


def read_indices(path: Path) -> tuple[np.ndarray, str]:
    """(H, W) uint8: the palette indices of a PNG, not its colours; and the image's mode.

    Raises BadInput if the file is not an image, or has colours or 16-bit numbers instead of indices.
    """
    try:
        with Image.open(path) as image:
            mode, labels = image.mode, np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow, on damaged files
        raise BadInput(f"{path}: expected a palette PNG ({error})") from error
    if mode not in ("P", "L", "1"):
        raise BadInput(
            f"{path}: expected a PNG whose pixels are object numbers (mode P or L), got mode {mode}; save it with "
            "indexed colours"
        )
    return labels.astype(np.uint8), mode


def is_grey_mask(path: Path) -> bool | None:
    """Whether this is a grey mask of a single object, which is 255; None if it is empty. Raises what `read_indices`
    raises, and BadInput if such a mask has soft edges, whose shades would be taken for objects."""
    labels, mode = read_indices(path)
    values, pixels = np.unique(labels[labels > 0], return_counts=True)
    if not values.size:
        return None
    is_mostly_white = mode == "L" and values[pixels.argmax()] == VOID
    if is_mostly_white and ((values > VOID // 2) & (values < VOID)).any():
        raise BadInput(
            f"{path}: expected 0 and 255, or a number for each object, got a mask of 255 with {len(values) - 1} other "
            "shades; save masks without soft edges"
        )
    return is_mostly_white and values.size == 1


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8. Raises BadInput for anything but a complete JPEG or PNG."""
    with reading(path):
        content = path.read_bytes()
    if content.startswith(_JPEG_BEGINS) and _JPEG_ENDS not in content[-_TRAILER:]:  # OpenCV would fill in gray
        raise BadInput(f"{path}: expected a whole JPEG, got one that ends in its middle; copy or unpack it again")
    # Without the rotation that EXIF asks for: masks are not rotated either.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = None
    with suppress(cv2.error):  # raised for impossible image sizes
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if image is None:
        raise BadInput(f"{path}: expected a JPEG or PNG image, found none that can be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_film(path: Path, wanted: set[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index, frame) in order, the frames (H, W, 3) uint8 RGB. wanted: only these; others are not converted."""
    film = cv2.VideoCapture(opencv_name(path))
    try:
        if not film.isOpened():
            raise BadInput(f"{path}: expected a video that OpenCV can open")
        index = 0
        while film.grab():
            if wanted is None or index in wanted:
                yield index, cv2.cvtColor(film.retrieve()[1], cv2.COLOR_BGR2RGB)
            index += 1
    finally:
        film.release()


def read_list(path: Path) -> list[str]:
    """The names in the list, without duplicates: a video that is listed twice must not count twice."""
    try:
        with reading(path):
            lines = path.read_text("utf-8-sig").splitlines()  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected names of videos in UTF-8, a line each ({error}); save it as UTF-8") from error
    return sorted({line.strip() for line in lines} - {""})
