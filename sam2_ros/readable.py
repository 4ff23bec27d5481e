"""Makes external text safe for messages, logs and terminals. Knows no ROS."""

LONGEST = 1000  # characters


def utf8(text: str) -> str:
    """Escapes surrogates, which UTF-8 cannot encode: Python puts them for undecodable bytes of file names, and they
    would crash rclpy."""
    return text.encode(errors="backslashreplace").decode()


def readable(text: str) -> str:
    """One printable line, at most LONGEST characters of the text: an encoding field of five megabytes must not fill the
    log, and a name with line breaks must not forge lines in it."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def reason_of(error: Exception) -> str:
    """An error's message, or its type if it has none, as `MemoryError()`."""
    return str(error) or type(error).__name__
