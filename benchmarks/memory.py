"""What a number of objects that was never there before costs: oneDNN keeps programs for its shapes.

    LRU_CACHE_CAPACITY=16 ONEDNN_PRIMITIVE_CACHE_CAPACITY=512 python -m benchmarks.memory

with what the node sets for itself. nano on one thread of a CPU, objects batched: they come one after another, then go
and come again. Prints and writes `benchmarks/results/memory_nano_cpu.md`.
"""

import os
import sys
from pathlib import Path

from tqdm import tqdm

import sam2
from benchmarks.stream import RESULTS, SIZE_HW

OBJECTS, FRAMES = 8, 30  # frames after each object that came or went
ROUNDS = 4
VARIABLES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


class Stream:
    """Small boxes side by side; what is in them does not matter."""

    def __init__(self) -> None:
        self._images = [frame.rgb for frame in map(sam2.World(7, SIZE_HW).frame, range(FRAMES))]
        self._tracker = sam2.Tracker(sam2.load_model("nano", device="cpu"), batched=True, sticky_corrections=True)
        self._tracker.warm_up()
        self._steps = 0

    def add(self, number: int) -> None:
        x = 60.0 * number
        self._run([sam2.Prompt(f"{number}", box_xyxy=[x, 200.0, x + 50, 260.0])])

    def remove(self, number: int) -> None:
        self._tracker.remove(f"{number}")
        self._run([])

    def _run(self, prompts: list[sam2.Prompt]) -> None:
        for _ in range(FRAMES):
            self._steps += 1
            frame = sam2.Frame(self._images[self._steps % FRAMES], self._steps * 10**8)
            self._tracker.step(frame, prompts)
            prompts = []


def main() -> None:
    if not all(map(os.environ.get, VARIABLES)):
        sys.exit(__doc__)
    sam2.set_cpu_threads(1, "nano")
    stream, grown = Stream(), []
    bar = tqdm(total=OBJECTS * (1 + 2 * ROUNDS), unit="objects")

    def growth(change, number: int) -> float:
        before = resident_mb()
        change(number)
        bar.update()
        return resident_mb() - before

    for number in range(OBJECTS):
        grown.append(growth(stream.add, number))
    rounds = []
    for _ in range(ROUNDS):
        gone = [growth(stream.remove, number) for number in reversed(range(OBJECTS))]
        rounds.append(sum(gone) + sum(growth(stream.add, number) for number in range(OBJECTS)))
    text = report(grown, rounds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory_nano_cpu.md").write_text(text)
    print(text)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])  # proc(5): resident
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(grown: list[float], rounds: list[float]) -> str:
    """grown: MB by number of objects, from 1. rounds: MB of each."""
    given = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES)
    lines = [["objects", "resident memory, MB more"], ["---:"] * 2]
    lines += [[f"{number}", f"{mb:.1f}"] for number, mb in enumerate(grown, start=1)]
    return (
        f"nano, one thread, {SIZE_HW[1]}x{SIZE_HW[0]}, {FRAMES} images after each object that came; {given}.\n\n"
        + "".join(f"| {' | '.join(line)} |\n" for line in lines)
        + f"\nAll gone one by one and back again, {ROUNDS} times: {', '.join(f'{mb:+.1f}' for mb in rounds)} MB.\n"
    )


if __name__ == "__main__":
    main()
