"""Reads the figures of a process that a leak makes grow."""

import ctypes
import os
from pathlib import Path


class Watch:
    """Reads figures from /proc. pid: of the process, or "self"."""

    def __init__(self, pid: int | str) -> None:
        self._root = Path("/proc") / str(pid)

    def read(self) -> dict:
        """rss_mb (now, not the highest), threads, files (open descriptors), cpu_s (used so far)."""
        status = dict(
            line.split(":\t", 1) for line in (self._root / "status").read_text().splitlines() if ":\t" in line
        )
        times = (self._root / "stat").read_text().rsplit(")", 1)[1].split()
        return {
            "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
            "threads": int(status["Threads"]),
            "files": len(os.listdir(self._root / "fd")),
            "cpu_s": (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"),
        }


class _Mallinfo2(ctypes.Structure):
    """glibc 2.33's malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


_mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)  # once: each opening leaks 70 bytes
if _mallinfo2 is not None:
    _mallinfo2.restype = _Mallinfo2


def in_use_mb() -> float:
    """The allocated memory of this process, in the heap and in blocks with their own mapping, without free blocks.

    A leak fills free memory before the process grows: because of what `sam2_ros/heap.py` reserves, `rss_mb` does not
    show the first 96 MiB of it. NaN if the C library has no mallinfo2.
    """
    if _mallinfo2 is None:
        return float("nan")
    info = _mallinfo2()
    return (info.uordblks + info.hblkhd) / 2**20
