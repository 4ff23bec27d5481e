"""How many bytes the kernel buffers for each socket until a process reads them; 0 = unknown."""

from contextlib import suppress
from pathlib import Path

MOST, USUAL = Path("/proc/sys/net/core/rmem_max"), Path("/proc/sys/net/core/rmem_default")


def most_bytes() -> int:
    """The most that a socket can ask for."""
    return _read(MOST)


def usual_bytes() -> int:
    """What a socket gets that does not ask."""
    return _read(USUAL)


def _read(setting: Path) -> int:
    with suppress(OSError, ValueError):  # in some containers there is none
        return int(setting.read_text())
    return 0
