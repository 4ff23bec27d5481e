"""Picture files, not by their names: OpenCV ends the process over one that is not UTF-8. Knows no ROS."""

import os
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np


def read_picture(path: Path, flags: int) -> np.ndarray | None:
    """What OpenCV makes of a picture file, (H, W, 3) uint8 BGR or with IMREAD_GRAYSCALE (H, W); None if it is none."""
    try:
        content = np.frombuffer(path.read_bytes() if path.is_file() else b"", np.uint8)
        return cv2.imdecode(content, flags) if content.size else None
    except (OSError, ValueError, cv2.error):  # of names that are none, and of sizes that no picture has
        return None


def may_be_read(path: Path) -> bool:
    """False for a file, or a folder, of another user that this one may not read: which is no damage."""
    return not os.path.exists(path) or os.access(path, os.R_OK)


def write_picture(path: Path, rgb: np.ndarray) -> bool:
    """Whether an (H, W, 3) uint8 RGB picture could be written as a file of the kind that its name ends in."""
    encoded = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
    with suppress(OSError):  # a full disk
        path.write_bytes(encoded.tobytes())
    return path.is_file() and path.stat().st_size == encoded.size
