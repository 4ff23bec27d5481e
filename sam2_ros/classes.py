"""Class names and their values in the class mask. Knows no messages.

0 is the background and 255 is vision_msgs' "unlabelled", so there is room for 254; what has no value is unlabelled.
"""

from collections.abc import Iterable

MAX_CLASSES, UNLABELLED = 254, 255


class Classes:
    """names: those with a fixed value, MAX_CLASSES at most, the first 1; later names get the next free values."""

    def __init__(self, names: Iterable[str]) -> None:
        self.ids = {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)), start=1)}
        self._is_new = True

    def learn(self, names: Iterable[str]) -> bool:
        """Gives every new name a value while there are any left; True if `ids` has changed since the last call."""
        for name in names:
            if name not in self.ids and len(self.ids) < MAX_CLASSES:
                self.ids[name] = len(self.ids) + 1
                self._is_new = True
        is_new, self._is_new = self._is_new, False
        return is_new
