"""Says in the log what the diagnostics say once it has lasted: who starts a node in a terminal looks there.

Knows levels and sentences. Does not know where they come from.
"""

from sam2_ros.health import Level

LASTING = 3  # reports in a row


class Announcer:
    """log: has info and warning."""

    def __init__(self, log) -> None:
        self._log = log
        self._errors: dict[str, int] = {}  # reports in a row, by name

    def hear(self, name: str, level: Level, sentence: str) -> None:
        """One report of one thing: an error is told once when it has lasted, and its end."""
        before = self._errors.get(name, 0)
        self._errors[name] = before + 1 if level is Level.ERROR else 0
        if self._errors[name] == LASTING:
            self._log.warning(f"{name}: {sentence}")
        elif before >= LASTING and level is Level.WARN:
            self._log.warning(f"{name}, better: {sentence}")
        elif before >= LASTING and level is Level.OK:
            self._log.info(f"{name} again: {sentence}")
