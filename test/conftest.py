"""Isolation: every test process has a ROS domain of its own, on this machine only, and its own log folder. Every test
leaves signals and the environment as they were."""

import contextlib
import fcntl
import gc
import importlib
import os
import signal
import socket
import tempfile
import warnings
from pathlib import Path

import pytest


def claim_domain() -> int:
    """Finds a domain without participants and locks it until this process ends, against other test processes."""
    for attempt in range(100):
        domain = 1 + (os.getpid() + attempt) % 100
        lock = os.open(Path(tempfile.gettempdir()) / f"ros_domain_{domain}_{os.getuid()}.lock", os.O_RDWR | os.O_CREAT)
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.bind(("", 7410 + 250 * domain))  # where the domain's first participant listens (DDSI-RTPS, 9.6.2)
            return domain
        os.close(lock)
    raise RuntimeError("ROS domains 1 to 100 are all in use on this machine")


os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(claim_domain())
for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS"):
    os.environ.pop(name, None)  # the tests are about default transports too
for name in ("ROS_DISCOVERY_SERVER", "ROS_SUPER_CLIENT", "ROS2_EASY_MODE"):
    os.environ.pop(name, None)  # through a server the nodes of all domains meet
LOGS = tempfile.TemporaryDirectory(prefix="ros_log_", ignore_cleanup_errors=True)  # deleted at exit
os.environ["ROS_LOG_DIR"] = LOGS.name
if "ENCODED_IMAGES" not in os.environ:  # one for all processes of a run: see golden_record.py
    ENCODED = tempfile.TemporaryDirectory(prefix="encoded_", ignore_cleanup_errors=True)
    os.environ["ENCODED_IMAGES"] = ENCODED.name

# Warnings are errors here, and these two use deprecated Python features when they are imported: the message generator's
# parser since 3.11, matplotlib's dates (in Ubuntu 24.04's version) since 3.12.
for module in ("lark", "dateutil.tz"):
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module(module)

with contextlib.suppress(ImportError):
    import hypothesis

    hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine may stall any example
    hypothesis.settings.load_profile("any machine")


# Each takes most of a minute. With --no-loadscope-reorder xdist hands files out in the order of the tests. A stream's
# golden tests come later than the others, which leave them their encoded images.
LONG = (
    "test_golden.py", "test_flat.py", "test_pretended_gpu.py", "test_stream_golden.py", "test_training_sources.py",
    "test_training_stop.py", "test_stream_holes.py", "test_transformers.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first: begun last, one would leave the other cores idle."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


@pytest.fixture(autouse=True)
def nothing_for_the_next_test():
    """Restores both: commands that run in this process install signal handlers and set variables for their children."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    environment = dict(os.environ)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name in os.environ.keys() - environment:
        del os.environ[name]
    os.environ.update(environment)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what was imported stays: each collection after a test would look through it, for 0.1 s


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Reference cycles keep participants alive: a lifecycle node that was destroyed is still seen by those of the next
    test, and if its participant ends while another starts, both may hang. Only here has pytest let go of fixtures."""
    result = yield
    if "rig" in item.fixturenames:
        gc.collect()
    return result


@pytest.fixture
def rig():
    """The ROS side of a test: see ros_rig.py."""
    from ros_rig import Rig

    made = Rig()
    yield made
    made.close()
