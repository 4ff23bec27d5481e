"""Where the package's files are that are no code: definitions of messages, profiles. Knows no ROS."""

import os
import sys
from pathlib import Path


def share_folders() -> list[Path]:
    """Where `share/sam2_ros` may be, of each sourced workspace and of this Python; the first that has a file counts."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    return [Path(prefix) / "share" / "sam2_ros" for prefix in prefixes if prefix]
