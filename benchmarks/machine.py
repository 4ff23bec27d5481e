"""Names the machine that a figure was measured on."""

import platform
import re
from pathlib import Path


def processor() -> str:
    """Linux's name of the processor: a kernel that is fast on one vendor's may be slow on another's."""
    path = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", path.read_text(), re.MULTILINE) if path.exists() else []
    return names[0] if names else platform.machine()
