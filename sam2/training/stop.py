"""Ctrl-C and SIGTERM end a run after the step in hand, so that nothing of it is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """A list that their numbers are added to while the block runs; the second one raises KeyboardInterrupt.

    Only the main thread hears signals; in another the list stays empty.
    """
    came: list[int] = []

    def note(number: int, frame) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
