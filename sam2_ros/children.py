"""Child processes that never outlive the one that started them. Knows no ROS."""

import ctypes
import signal
import subprocess
import sys
import time
from pathlib import Path

import sam2

STOP_S = 5.0  # time to end before a process is killed
PR_SET_PDEATHSIG = 1  # prctl(2)


class Children:
    """Child processes that are stopped at the end of the `with` block, and by the kernel if this process dies.

    folder: the output of each child goes to <folder>/<name>.log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *_: object) -> None:
        numbers = signal.SIGINT, signal.SIGTERM  # an impatient second Ctrl-C must not leave a process behind
        before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
        try:
            self._stop()
        finally:
            for number, handler in before.items():  # what comes after may be long, and can be interrupted
                signal.signal(number, handler)

    def _stop(self) -> None:
        alive = [process for process in self._processes.values() if process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_S
        for process in alive:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, *words: str) -> subprocess.Popen:
        """Starts `sam2_ros <words>` as a process called `name`."""
        with open(self._folder / f"{name}.log", "w") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-c", _program(), *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=_end_with_parent,
            )  # fmt: skip
        return self._processes[name]

    def check(self) -> None:
        """Raises sam2.Sam2Error if a process has failed, with the last lines of its log."""
        for name, process in self._processes.items():
            if process.poll() not in (None, 0):
                said = (self._folder / f"{name}.log").read_text(errors="replace").strip().splitlines()[-3:]
                raise sam2.Sam2Error(f"the {name} ended with exit code {process.returncode}: {' '.join(said)}")


def _program() -> str:
    """`sam2_ros`, with modules from where this process has them. With `-m` what is in the working directory would come
    first: where Meta's clone lies, its folder `sam2`."""
    return f"import sys; sys.path[:] = {sys.path!r}; from sam2_ros.cli import main; sys.exit(main())"


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
