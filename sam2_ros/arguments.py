"""What the command lines have in common: kinds of arguments. Knows nothing of what they are for."""

import argparse
import os
from pathlib import Path


def path_argument(text: str) -> Path:
    """An empty path, which `Path` takes for the current folder, is refused: in a script it comes from a variable that
    is not set."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got an empty text; is a variable not set?")
    return Path(os.path.expanduser(text))  # shells leave the ~ of --out=~/x
