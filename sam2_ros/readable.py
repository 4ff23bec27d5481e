"""Text from elsewhere, made fit for messages, logs and people. Knows no ROS."""

LONGEST = 1000  # characters of what is said about an input


def utf8(text: str) -> str:
    """What UTF-8 cannot hold as an escape: bytes of an old file name are, in Python, text that ends rclpy."""
    return text.encode(errors="backslashreplace").decode()


def readable(text: str) -> str:
    """`utf8`, cut where it is endless: whoever sends five megabytes for an encoding must not fill the log with them."""
    return utf8(text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)")


def reason_of(error: Exception) -> str:
    """What an error says of itself; of one without a word (`MemoryError()`) its name."""
    return str(error) or type(error).__name__
