"""Fast DDS's shared memory with room for images, in every process that is started here.

By default an image above half a megabyte does not fit, and what does not fit holds up what would.
"""

import os
import sys
from pathlib import Path

PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"
_CHOICES = (PROFILES, "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS")
SEGMENT_BYTES = 64 << 20  # of each process, as the profile says


def make_room() -> None:
    """Sets the environment of this process and its children, if `profile` has something to set. Call it before
    `rclpy.init`; other middlewares do not read it."""
    if path := profile():
        os.environ[PROFILES] = path


def profile() -> str:
    """The file that PROFILES should name; "" if somebody has chosen transports already or the machine has no room for
    ours (a container's 64 MB)."""
    if any(name in os.environ for name in _CHOICES) or _shared_memory_bytes() < 2 * SEGMENT_BYTES:
        return ""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    places = [Path(prefix) / "share" / "sam2_ros" for prefix in prefixes if prefix] + [Path(__file__).parents[1]]
    return next((str(path) for place in places if (path := place / "config" / "fastdds_shm.xml").is_file()), "")


def _shared_memory_bytes() -> int:
    """What is free in the machine's shared memory; 0 where there is none."""
    try:
        about = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return about.f_bavail * about.f_frsize
