"""Which machines this process can discover nodes on, as its environment says.

Knows no ROS: rcl reads the same variables.
"""

import fcntl
import os
import socket
import struct
from contextlib import suppress

from sam2_ros import fast_dds

RANGE, LOCALHOST_ONLY, PEERS = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS"
SERVER = "ROS_DISCOVERY_SERVER"  # of Fast DDS
_FLAGS, _ADDRESS, _UP_AND_RUNNING = 0x8913, 0x8915, 0x41  # requests of netdevice(7), and flags


def limit() -> str:
    """A clause about the variable that keeps other machines out, to append to a sentence; "" = none does."""
    chosen = os.environ.get(RANGE, "")
    if server() and chosen != "OFF":  # a server introduces other machines whatever the range is
        return ""
    if os.environ.get(LOCALHOST_ONLY) == "1":
        return f"; nodes on other machines are not seen, as {LOCALHOST_ONLY}=1"
    if chosen in ("LOCALHOST", "OFF") and not os.environ.get(PEERS):
        return f"; nodes on other machines are not seen, as {RANGE}={chosen}"
    return ""


def server() -> str:
    """A clause about the discovery server without which nobody is seen, likewise; "" = there is none."""
    told = os.environ.get(SERVER)
    is_asked = (os.environ.get("RMW_IMPLEMENTATION") or fast_dds.NAME).startswith(fast_dds.NAME)
    return f"; with {SERVER}={told} only nodes that use it are seen, while it runs" if told and is_asked else ""


def addresses() -> frozenset[str]:
    """The IPv4 addresses of this machine's interfaces that are up."""
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no address, or has gone meanwhile
                request = struct.pack("256s", name.encode())
                flags = struct.unpack_from("H", fcntl.ioctl(asked, _FLAGS, request), 16)[0]
                if flags & _UP_AND_RUNNING == _UP_AND_RUNNING:
                    found.add(socket.inet_ntoa(fcntl.ioctl(asked, _ADDRESS, request)[20:24]))
    return frozenset(found)


def came_later(at_start: frozenset[str]) -> str:
    """A clause about addresses that this machine has got since, which DDS does not use; "" = there are none. at_start:
    `addresses` when the process joined the network."""
    new = sorted(addresses() - at_start)
    if not new:
        return ""
    restart = "if the camera is on that network, restart the node"
    return f"; {new[0]} came up after this node had started, which does not use it: {restart}"
