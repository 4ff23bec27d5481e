"""Numbers of a process, from /proc: what a leak would make grow."""

import os
from pathlib import Path


class Watch:
    """pid: of the process, or "self"."""

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
