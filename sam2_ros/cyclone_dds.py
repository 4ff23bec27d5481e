"""Asks CycloneDDS for receive buffers that hold images: it loses those that do not fit, even if they are reliable."""

import os
from contextlib import suppress
from pathlib import Path

NAME = "rmw_cyclonedds_cpp"
CONFIGURATION = "CYCLONEDDS_URI"
LIMIT = Path("/proc/sys/net/core/rmem_max")
# A maximum without a minimum takes what the kernel gives (net.core.rmem_max) and never fails.
_ROOM = '<CycloneDDS><Domain><Internal><SocketReceiveBufferSize max="16MB"/></Internal></Domain></CycloneDDS>'


def make_room() -> None:
    """Enlarges the buffers of this process and its children, through the environment, unless that configures CycloneDDS
    already. Call it before `rclpy.init`. Other middlewares ignore it."""
    os.environ.setdefault(CONFIGURATION, _ROOM)


def most_room_bytes() -> int:
    """The most that the kernel gives to a receive buffer; 0 = not known."""
    return kernels_bytes(LIMIT)


def kernels_bytes(setting: Path) -> int:
    """A number below /proc/sys; 0 if it is not there."""
    with suppress(OSError, ValueError):
        return int(setting.read_text())
    return 0
