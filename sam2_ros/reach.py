"""Which machines this process can discover nodes on, as its environment says.

Knows no ROS: rcl reads the same variables.
"""

import fcntl
import os
import socket
import struct
from contextlib import suppress

RANGE, LOCALHOST_ONLY, PEERS = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS"
_FLAGS, _ADDRESS, _UP_AND_RUNNING = 0x8913, 0x8915, 0x41  # requests of netdevice(7), and flags


def limit() -> str:
    """A clause about the variable that keeps other machines out, to append to a sentence; "" = none does."""
    if os.environ.get(LOCALHOST_ONLY) == "1":
        return f"; nodes on other machines are not seen, as {LOCALHOST_ONLY}=1"
    chosen = os.environ.get(RANGE, "")
    if chosen in ("LOCALHOST", "OFF") and not os.environ.get(PEERS):
        return f"; nodes on other machines are not seen, as {RANGE}={chosen}"
    return ""


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
    return f"; {new[0]} came up after this node had started, which does not use it: restart the node" if new else ""
