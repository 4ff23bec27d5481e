"""Asks CycloneDDS for receive buffers that hold images: it loses those that do not fit, even if they are reliable."""

import os

NAME = "rmw_cyclonedds_cpp"
CONFIGURATION = "CYCLONEDDS_URI"
# A maximum without a minimum takes what the kernel gives (net.core.rmem_max) and never fails.
_ROOM = '<CycloneDDS><Domain><Internal><SocketReceiveBufferSize max="16MB"/></Internal></Domain></CycloneDDS>'


def make_room() -> None:
    """Enlarges the buffers of this process and its children, through the environment, unless that configures CycloneDDS
    already. Call it before `rclpy.init`. Other middlewares ignore it."""
    os.environ.setdefault(CONFIGURATION, _ROOM)
