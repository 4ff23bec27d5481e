"""The exception for an input that cannot be used: an image, depth, a transform."""

from sam2_ros.readable import readable


class Refused(Exception):
    """An input that was dropped: `reason` is a short name to count, the message is a sentence for people."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(readable(sentence))
        self.reason = reason
