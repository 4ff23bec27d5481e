"""Memory growth when the number of objects is new to the process: oneDNN keeps compiled kernels for every shape.

    python -m benchmarks.memory

With the memory that the node reserves at its start, and without. nano on one thread of a CPU, objects batched: they are
added one by one, then removed and added again. Prints and writes `benchmarks/results/memory_nano_cpu.md`.
"""

import multiprocessing
import os
from pathlib import Path

from tqdm import tqdm

import sam2
from benchmarks.stream import RESULTS, SIZE_HW
from sam2_ros import heap

OBJECTS, FRAMES = 8, 30  # frames after each object that came or went
ROUNDS = 4


class Stream:
    """A stream with objects in small boxes side by side; their contents do not matter."""

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
    heap.bound_kernels()  # sets a variable that oneDNN reads in the processes started below
    context, found = multiprocessing.get_context("spawn"), {}
    for reserved in (True, False):
        with context.Pool(1) as pool:
            found[reserved] = pool.apply(measure, (reserved,))
    text = report(found)
    (RESULTS / "memory_nano_cpu.md").write_text(text)
    print(text)


def measure(reserved: bool) -> tuple[float, list[float], list[float]]:
    """Returns MB at the start, the growth in MB by each object, and by each round. Runs in a process of its own."""
    heap.keep_freed()
    sam2.set_cpu_threads(1, "nano")
    stream, grown = Stream(), []
    if reserved:
        heap.reserve()
    at_start = resident_mb()
    bar = tqdm(total=OBJECTS * (1 + 2 * ROUNDS), unit="objects", desc="reserved" if reserved else "not reserved")

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
    return at_start, grown, rounds


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])  # proc(5): resident
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(found: dict[bool, tuple[float, list[float], list[float]]]) -> str:
    """found: what `measure` returned, by whether memory was reserved."""
    lines = [["", "as the node has it", "nothing reserved"], ["---", "---:", "---:"]]
    lines += [["at the start", *(f"{found[key][0]:.0f} MB" for key in (True, False))]]
    for number in range(1, OBJECTS + 1):
        lines += [[f"object {number}", *(f"{found[key][1][number - 1]:+.1f}" for key in (True, False))]]
    for number in range(ROUNDS):
        lines += [["all gone one by one and back", *(f"{found[key][2][number]:+.1f}" for key in (True, False))]]
    return (
        f"Resident memory; nano, one thread, {SIZE_HW[1]}x{SIZE_HW[0]}, {FRAMES} images after each object that came or"
        " went.\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    )


if __name__ == "__main__":
    main()
