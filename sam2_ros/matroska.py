"""Whether a Matroska or WebM file is whole: OpenCV neither notices nor knows how many pictures one has. Knows the first
elements of such files (RFC 8794, RFC 9559)."""

from pathlib import Path

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def bytes_missing(path: Path) -> int | None:
    """How many bytes the file is shorter than it says; 0 if it does not say, as a live recording. None = another kind
    of file."""
    with path.open("rb") as file:
        head = file.read(4096)
        if not head.startswith(_EBML):
            return None
        size, at = _size(head, len(_EBML))
        at += size
        if not head.startswith(_SEGMENT, at):
            return 0
        size, at = _size(head, at + len(_SEGMENT))
    return max(at + size - path.stat().st_size, 0)


def _size(data: bytes, at: int) -> tuple[int, int]:
    """(size of the element whose size is written at `at`, where its content begins); the size is 0 if unknown."""
    if at >= len(data):
        return 0, at
    length = 9 - data[at].bit_length()  # leading zeros tell it
    most = (1 << 7 * length) - 1  # all ones mean unknown
    size = int.from_bytes(data[at : at + length], "big") & most
    return (0 if size == most else size), at + length
