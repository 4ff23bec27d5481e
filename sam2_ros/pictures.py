"""Reads and writes picture files without passing their names to OpenCV, which ends the process if one is not UTF-8.

Knows no ROS.
"""

import os
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

JPEG = (".jpg", ".jpeg")  # puts some grey around whatever is white on black


def read_picture(path: Path, flags: int) -> np.ndarray | None:
    """Decodes a picture file: (H, W, 3) BGR, uint8 except with IMREAD_ANYDEPTH; None if that fails."""
    try:
        content = np.frombuffer(path.read_bytes() if path.is_file() else b"", np.uint8)
        return cv2.imdecode(content, flags) if content.size else None
    except (OSError, ValueError, cv2.error):  # also for invalid names and impossible picture sizes
        return None


def read_mask(path: Path) -> np.ndarray | None:
    """(H, W) bool: what is not black in a picture file, however dark, of any depth; in a JPEG, what is more than
    half as bright as its brightest. None if it cannot be decoded."""
    pixels = read_picture(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if pixels is None:
        return None
    brightness = pixels.max(axis=2)
    return brightness > (brightness.max() / 2 if path.suffix.lower() in JPEG else 0)


def may_be_read(path: Path) -> bool:
    """False for a file, or a folder, of another user that this one may not read: which is no damage."""
    return not os.path.exists(path) or os.access(path, os.R_OK)


def write_picture(path: Path, rgb: np.ndarray) -> bool:
    """Writes an (H, W, 3) uint8 RGB picture in the format of the name's suffix; returns whether the file is whole."""
    encoded = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
    with suppress(OSError):  # a full disk
        path.write_bytes(encoded.tobytes())
    return path.is_file() and path.stat().st_size == encoded.size
