"""Makes text from elsewhere fit for messages, logs and people. Knows no ROS."""

LONGEST = 1000  # characters of what is said about an input


def utf8(text: str) -> str:
    """Escapes what UTF-8 cannot encode: Python keeps undecodable bytes of file names in text that would crash rclpy."""
    return text.encode(errors="backslashreplace").decode()


def readable(text: str) -> str:
    """One line that a terminal only shows, shortened: a message whose encoding field holds five megabytes must not fill
    the log, and a name with line ends must not write lines of its own there."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def reason_of(error: Exception) -> str:
    """An error's message, or its type if it has none, as `MemoryError()`."""
    return str(error) or type(error).__name__
