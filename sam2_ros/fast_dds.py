"""Fast DDS's shared memory with room for images, in every process that is started here.

By default an image above half a megabyte does not fit, and what does not fit holds up what would.
"""

import os
import sys
from pathlib import Path

PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"
_OLD_NAME = "FASTRTPS_DEFAULT_PROFILES_FILE"


def make_room() -> None:
    """Sets the environment of this process and its children, unless it names a profile already. Call it before
    `rclpy.init`; other middlewares do not read it."""
    if PROFILES in os.environ or _OLD_NAME in os.environ:
        return
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    places = [Path(prefix) / "share" / "sam2_ros" for prefix in prefixes if prefix] + [Path(__file__).parents[1]]
    profile = next((path for place in places if (path := place / "config" / "fastdds_shm.xml").is_file()), None)
    if profile:
        os.environ[PROFILES] = str(profile)
