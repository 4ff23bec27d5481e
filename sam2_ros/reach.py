"""Which machines this process can discover nodes on, as its environment says.

Knows no ROS: rcl reads the same variables.
"""

import os

RANGE, LOCALHOST_ONLY, PEERS = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS"


def limit() -> str:
    """A clause about the variable that keeps other machines out, to append to a sentence; "" = none does."""
    if os.environ.get(LOCALHOST_ONLY) == "1":
        return f"; nodes on other machines are not seen, as {LOCALHOST_ONLY}=1"
    chosen = os.environ.get(RANGE, "")
    if chosen in ("LOCALHOST", "OFF") and not os.environ.get(PEERS):
        return f"; nodes on other machines are not seen, as {RANGE}={chosen}"
    return ""
