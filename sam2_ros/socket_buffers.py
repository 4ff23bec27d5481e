"""How much the kernel keeps of what the network brings until a process reads it: bytes for a socket, 0 = unknown."""

from contextlib import suppress
from pathlib import Path

MOST, USUAL = Path("/proc/sys/net/core/rmem_max"), Path("/proc/sys/net/core/rmem_default")


def most_bytes() -> int:
    """For those who ask for as much."""
    return _read(MOST)


def usual_bytes() -> int:
    """For those who do not ask."""
    return _read(USUAL)


def _read(setting: Path) -> int:
    with suppress(OSError, ValueError):  # in some containers there is none
        return int(setting.read_text())
    return 0
