"""Checks where a replay may write, and says when a file could not be written in the end. Knows no formats."""

import os
import sys
from pathlib import Path

import sam2


def check_free(out: Path) -> None:
    """Raises sam2.BadInput if a bag cannot be made at `out`."""
    if out.exists():
        raise sam2.BadInput(f"{out}: already exists; remove it or choose another name")
    check_folder(out)


def check_folder(out: Path) -> None:
    """Raises sam2.BadInput if there is no folder to write `out` into."""
    if not out.parent.is_dir():
        raise sam2.BadInput(f"{out}: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise sam2.BadInput(f"{out}: the folder {out.parent} cannot be written; choose another")


def tell_lost(out: Path, what: str) -> None:
    """Says that something beside the bag could not be written; not an error, because the bag matters more."""
    print(f"{out}: the {what} could not be written; is the disk full?", file=sys.stderr)
