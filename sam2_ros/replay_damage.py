"""What keeps a bag from being read, in words, and what mends it. Knows files, not their messages."""

import errno
import tempfile
from os import SEEK_END
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection

import sam2

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk
MCAP_MAGIC = b"\x89MCAP0\r\n"  # begins and ends a file, mcap.dev/spec


class _AnyQos:
    def __eq__(self, other: object) -> bool:
        return True


def with_any_qos(connections: list[Connection]) -> list[Connection]:
    """The same connections of a bag's folder, to read. rosbags gives no message of those whose QoS in metadata.yaml is
    not exactly that in the file, and `ros2 bag reindex` writes another one."""
    anything: Any = _AnyQos()
    return [connection._replace(ext=anything) for connection in connections]


def check_complete(path: Path) -> None:
    """Raises sam2.BadInput for a database whose newest messages are still in its write-ahead log, which is not read."""
    for log in path.glob("*.db3-wal") if path.is_dir() else [path.with_name(f"{path.name}-wal")]:
        if log.is_file() and log.stat().st_size:
            raise sam2.BadInput(
                f"bag {path}: its newest messages are still in {log.name}: does its recorder run, or was it killed? "
                f"Then `sqlite3 {log.with_suffix('.db3')} 'pragma wal_checkpoint(truncate)'` puts them in their place"
            )


def cure_of(path: Path) -> str:
    """A hint for an unreadable bag that begins like an MCAP file and does not end like one."""
    for file in path.glob("*.mcap") if path.is_dir() else [path]:
        with file.open("rb") as raw:
            begins = raw.read(len(MCAP_MAGIC)) == MCAP_MAGIC
            raw.seek(-min(len(MCAP_MAGIC), file.stat().st_size), SEEK_END)
            if begins and raw.read() != MCAP_MAGIC:
                return (
                    f"; if its recorder was killed, `mcap recover` mends {file.name}; or write `output_bags: [{{uri: "
                    "mended, storage_id: mcap, all_topics: true}]` into mended.yaml, and then "
                    f"`ros2 bag convert -i {path} -o mended.yaml` writes the bag `mended`"
                )
    return ""


def said_by(error: Exception) -> str:
    """The error's message in one line; its repr if the message is empty or, as a KeyError's, a mere key."""
    if isinstance(error, OSError) and error.errno in FULL:
        place = f"{tempfile.gettempdir()}, where files that are compressed as a whole are unpacked first"
        return f"{error.strerror} in {place}; let TMPDIR name a folder with more room"
    words = str(error).split()
    return repr(error) if isinstance(error, KeyError) or not words else " ".join(words)
