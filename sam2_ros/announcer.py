"""Repeats lasting errors of the diagnostics in the log, where people who start a node in a terminal look.

Knows levels and sentences. Does not know where they come from.
"""

from typing import TYPE_CHECKING

from sam2_ros.health import Level

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

LASTING = 3  # reports in a row


class Announcer:
    """Decides which reports are logged."""

    def __init__(self, log: "RcutilsLogger") -> None:
        self._log = log
        self._errors: dict[str, int] = {}  # reports in a row, by name
        self._told: dict[str, Level] = {}  # the level last logged, by name

    def hear(self, name: str, level: Level, sentence: str) -> None:
        """Takes a report. Logs an error once, after LASTING in a row, then its change to a warning and its end."""
        self._errors[name] = self._errors.get(name, 0) + 1 if level is Level.ERROR else 0
        told = self._told.get(name, Level.OK)
        if self._errors[name] >= LASTING and told is not Level.ERROR:
            self._log.warning(f"{name}: {sentence}")
        elif level is Level.WARN and told is Level.ERROR:
            self._log.warning(f"{name}, better: {sentence}")
        elif level is Level.OK and told is not Level.OK:
            self._log.info(f"{name} again: {sentence}")
        else:
            return
        self._told[name] = level
