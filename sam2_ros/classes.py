"""Class names and their values in the class mask. Knows no messages.

0 is the background and 255 is vision_msgs' "unlabelled", so 254 classes have values; all others are unlabelled.
"""

from collections.abc import Callable, Iterable

from sam2_ros.readable import readable

MAX_CLASSES, UNLABELLED = 254, 255


class Classes:
    """Gives each class name its value, `ids`.

    names: get the values 1, 2, ... in this order, MAX_CLASSES at most; names seen later get the next free values. warn:
    called with a sentence about the first name that finds no free value.
    """

    def __init__(self, names: Iterable[str], warn: Callable[[str], object]) -> None:
        self.ids = {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)), start=1)}
        self._is_full = False
        self._warn = warn

    def learn(self, names: Iterable[str]) -> None:
        """Gives every new name a value while there are any left."""
        for name in names:
            if name in self.ids:
                continue
            if len(self.ids) < MAX_CLASSES:
                self.ids[name] = len(self.ids) + 1
            elif not self._is_full:
                self._is_full = True
                sentence = (
                    f"class {name!r}: expected at most {MAX_CLASSES} classes since the node was configured, got one "
                    f"more; this and further ones are {UNLABELLED} in the class mask; use fewer names, and configure "
                    "the node again"
                )
                self._warn(readable(sentence))
