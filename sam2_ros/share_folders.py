"""Finds the package's files other than code: message definitions, Fast DDS profiles. Knows no ROS."""

import os
import sys
from pathlib import Path


def share_folders() -> list[Path]:
    """Candidates for `share/sam2_ros`, in each sourced workspace and this Python; the first that has a file counts."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    return [Path(prefix) / "share" / "sam2_ros" for prefix in prefixes if prefix]
