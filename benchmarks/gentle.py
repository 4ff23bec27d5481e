"""The demo's scores in nine gentle worlds, its own among them, without ROS: three boxes in each, every image processed;
at the input size that nano was trained at and at a larger one.

    python -m benchmarks.gentle

Prints and writes `benchmarks/results/gentle_nano.md`. Scored as `sam2_ros demo` scores: IoU over the images in which
the mask or the truth has a pixel, visibility over all; the prompted image does not count.
"""

import statistics
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import sam2
from benchmarks.stream import RESULTS, SIZE_HW
from sam2.metrics import region_similarity

SEEDS = range(1_000_032, 1_000_041)
OBJECTS, FRAMES = 3, 240
IMAGE_SIZES = 256, 320  # of the network's input, pixels
FRAME_NS = 83_333_333  # twelve a second


class Score(NamedTuple):
    """Both are in 0..1."""

    iou: float
    visibility: float


def main() -> None:
    sam2.set_cpu_threads(0, "nano")
    models = [sam2.load_model("nano", image_size=size) for size in IMAGE_SIZES]
    scores = {seed: [play(model, seed) for model in models] for seed in tqdm(SEEDS, unit="world")}
    text = report(scores)
    (RESULTS / "gentle_nano.md").write_text(text)
    print(text)


def play(model, seed: int) -> Score:
    """One world tracked and scored."""
    world = sam2.World.gentle(seed, SIZE_HW)
    tracker = sam2.Tracker(model, batched=True)
    ious, right = [], []
    for index in range(FRAMES):
        seen = world.frame(index)
        prompts = boxes(seen.masks) if index == 0 else []
        tracks = tracker.step(sam2.Frame(seen.rgb, (index + 1) * FRAME_NS), prompts)
        for track in tracks if index else ():
            true = seen.masks[int(track.object_id)]
            if track.mask.any() or true.any():
                ious.append(region_similarity(track.mask, true))
            right.append((track.state is sam2.State.VISIBLE) == bool(true.any()))
    return Score(statistics.mean(ious), statistics.mean(right))


def boxes(masks: np.ndarray) -> list[sam2.Prompt]:
    """A box around each of the `OBJECTS` largest of (K, H, W) masks, empty ones left out."""
    areas = np.count_nonzero(masks, axis=(1, 2))
    prompts = []
    for k in sorted(k for k in np.argsort(-areas)[:OBJECTS].tolist() if areas[k]):
        x, y, width, height = sam2.bounding_box(masks[k])
        prompts.append(sam2.Prompt(str(k), box_xyxy=[x, y, x + width, y + height]))
    return prompts


def report(scores: dict[int, list[Score]]) -> str:
    """scores: by world, one for each of IMAGE_SIZES."""
    rows = [(str(seed), *(value for score in row for value in score)) for seed, row in scores.items()]
    _, *columns = zip(*rows, strict=True)
    for name, summary in (("median", statistics.median), ("least", min), ("most", max)):
        rows.append((name, *map(summary, columns)))
    head = [f"{size}: mean IoU | {size}: visibility %" for size in IMAGE_SIZES]
    lines = [["world", *head], ["---"] + ["---: | ---:"] * len(head)]
    for name, *values in rows:
        lines.append([name, *(f"{i:.3f} | {100 * v:.1f}" for i, v in zip(values[::2], values[1::2], strict=True))])
    text = f"nano, gentle worlds, {SIZE_HW[1]}x{SIZE_HW[0]}, {OBJECTS} boxes on the first of {FRAMES} images.\n\n"
    return text + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
