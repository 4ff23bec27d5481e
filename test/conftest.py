"""Isolation: every test process has a ROS domain of its own, on this machine only, and its own log folder."""

import contextlib
import fcntl
import os
import socket
import tempfile
import warnings
from pathlib import Path

import pytest


def claim_domain() -> int:
    """A domain without participants, ours until this process ends: other test processes see the lock."""
    for attempt in range(100):
        domain = 1 + (os.getpid() + attempt) % 100
        lock = os.open(Path(tempfile.gettempdir()) / f"ros_domain_{domain}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.bind(("", 7410 + 250 * domain))  # where the domain's first participant listens (DDSI-RTPS, 9.6.2)
            return domain
        os.close(lock)
    raise RuntimeError("ROS domains 1 to 100 are all in use on this machine")


os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(claim_domain())
os.environ.pop("FASTDDS_DEFAULT_PROFILES_FILE", None)  # the tests are about default transports too
LOGS = tempfile.TemporaryDirectory(prefix="ros_log_", ignore_cleanup_errors=True)  # goes with the interpreter
os.environ["ROS_LOG_DIR"] = LOGS.name

with warnings.catch_warnings(), contextlib.suppress(ImportError):
    # The message generator's parser imports a module that Python 3.11 deprecates; warnings are errors here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import lark  # noqa: F401


@pytest.fixture
def rig():
    """The ROS side of a test: see ros_rig.py."""
    from ros_rig import Rig

    made = Rig()
    yield made
    made.close()
