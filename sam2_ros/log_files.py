"""Keeps rcl from ending a program that has no place for its log: the disk is full or read-only, or there is no home.

Used before rclpy is imported.
"""

import errno
import os
import sys
import tempfile
from contextlib import suppress

NO_LOG_FILES = ["--ros-args", "--disable-external-lib-logs"]  # for commands that end soon: nobody reads theirs


def say(sentence: str) -> None:
    """Prints to stderr if that is possible: it may be a file on a full disk."""
    with suppress(OSError, ValueError, AttributeError):
        print(sentence, file=sys.stderr, flush=True)


def log_arguments() -> list[str]:
    """ROS arguments that turn log files off if none can be written; then prints why to stderr."""
    folder = os.environ.get("ROS_LOG_DIR") or os.path.join(os.environ.get("ROS_HOME") or "~/.ros", "log")
    if folder.startswith("~") and (home := os.environ.get("HOME")):  # the only home that rcl knows
        folder = home + folder[1:]
    try:
        if folder.startswith("~"):  # rcl would not start the node then
            raise FileNotFoundError(errno.ENOENT, "HOME is not set")
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"?")
    except OSError as error:
        say(f"sam2_ros: no log files: {folder}: {error.strerror}; make it writable or set ROS_LOG_DIR")
        return NO_LOG_FILES
    return []
