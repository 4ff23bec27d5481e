"""Enlarges Fast DDS's shared-memory segments and receive buffers so that images fit, for every process started here.

By default images above half a megabyte do not fit, and delay smaller ones too; from another machine even those above
200 KB do not. Also removes segments that killed processes left behind.
"""

import fcntl
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sam2_ros import socket_buffers
from sam2_ros.share_folders import share_folders

OLD_PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"
# Jazzy's Fast DDS 2.14 reads the old name only; later versions warn about it.
PROFILES = OLD_PROFILES if os.environ.get("ROS_DISTRO") == "jazzy" else "FASTDDS_DEFAULT_PROFILES_FILE"
TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"
_CHOICES = (PROFILES, OLD_PROFILES, TRANSPORTS)
NAME = "rmw_fastrtps"  # how rclpy's names of it begin
PROFILE = "fastdds_shm.xml"
SMALL_PROFILE = "fastdds_small_shm.xml"  # without large segments
RECEIVE_BYTES = 16 << 20  # asked for each socket by both profiles
SEGMENT_BYTES = 64 << 20  # of each process, as the profile says
SHARED = Path("/dev/shm")
GROWN_UP_S = 10.0  # younger segments are left alone: a new one is not locked yet


def make_room() -> None:
    """Makes this process and its children use `profile`, if there is one to use, through the environment. Call it
    before `rclpy.init`. Other middlewares ignore it."""
    remove_left_behind()
    if path := profile():
        os.environ[PROFILES] = path


def profile() -> str:
    """The file to set PROFILES to; "" if the environment chooses profiles or transports already. The small one where
    shared memory has no room for several large segments (a container's 64 MB)."""
    if any(name in os.environ for name in _CHOICES):
        return ""
    return find_profile(PROFILE if _shared_memory_bytes() >= 2 * SEGMENT_BYTES else SMALL_PROFILE)


def find_profile(name: str) -> str:
    """The path of a profile of this package; "" if it is not installed."""
    places = [*share_folders(), Path(__file__).parents[1]]
    return next((str(path) for place in places if (path := place / "config" / name).is_file()), "")


def transports() -> str:
    """The value of TRANSPORTS; "" = not set, or without effect, as profiles are set."""
    has_profiles = PROFILES in os.environ or OLD_PROFILES in os.environ
    return "" if has_profiles else os.environ.get(TRANSPORTS, "")


def receive_buffer_bytes() -> int:
    """How much of an image from another machine the kernel keeps for this process; 0 = not known."""
    if Path(os.environ.get(PROFILES, "")).name not in (PROFILE, SMALL_PROFILE):
        return socket_buffers.usual_bytes()
    return min(RECEIVE_BYTES, socket_buffers.most_bytes())


def host_of(gid: Sequence[int]) -> bytes:
    """What endpoints that can share memory have in common: Fast DDS's GIDs begin with its vendor and a number of the
    host, made of the host's addresses when the process starts."""
    return bytes(gid[:4])


def remove_left_behind() -> None:
    """Removes segments of this user's killed processes, which Fast DDS never does: a node that is restarted again and
    again must not fill the memory. Living processes are recognised by their locks, as by `fastdds shm clean`."""
    for lock in SHARED.glob("fast*_el"):
        if re.fullmatch("fast(dds|rtps)_[0-9a-f]{16}_el", lock.name):  # rtps: of Jazzy
            with suppress(OSError):  # it is locked, or already gone
                _remove_unlocked(lock)


def _remove_unlocked(lock: Path) -> None:
    """Raises OSError if it is locked."""
    about = lock.stat()
    if about.st_uid != os.getuid() or time.time() - about.st_mtime < GROWN_UP_S:
        return
    with lock.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.with_name(lock.name.removesuffix("_el")).unlink(missing_ok=True)
        lock.unlink()


def _shared_memory_bytes() -> int:
    """Free bytes of the machine's shared memory; 0 if there is none."""
    try:
        about = os.statvfs(SHARED)
    except OSError:
        return 0
    return about.f_bavail * about.f_frsize
