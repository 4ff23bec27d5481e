"""A thread for what is too slow for the executor and none of the network's business: masks that a list is made of.

Knows nothing of what is made.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rclpy.task import Future


class Aside:
    """wake: called from the thread when something has been made, so that the executor goes on with who waits for it."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._thread, self._wake = ThreadPoolExecutor(1, "aside"), wake

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    async def made(self, make: Callable):
        """What `make` returns or raises."""
        future = Future()
        future.add_done_callback(lambda _: self._wake())

        def run() -> None:
            try:
                future.set_result(make())
            except Exception as error:
                future.set_exception(error)

        self._thread.submit(run)
        return await future
