"""What the approximate options gain in speed and lose in mask IoU against the exact tracker, measured side by side.

    python -m benchmarks.approximate [--speed tiny] [--likeness nano]

Speed is measured with random weights of the --speed model, in turns with the exact tracker; IoU with trained weights of
the --likeness model, on clips of the synthetic world. Writes `benchmarks/results/approximate_<device>.md`.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

import sam2
from benchmarks.arguments import model_name, whole
from benchmarks.stream import RESULTS, SIZE_HW, make_weights
from sam2.metrics import region_similarity
from sam2.training.synthetic import HELD_OUT_SEED

CLIP_FRAMES = 40


@dataclass(frozen=True)
class Option:
    name: str
    model: dict = field(default_factory=dict)  # of `load_model`
    limits: dict = field(default_factory=dict)
    halves: bool = False  # image_size is half of the model's own
    sticky_corrections: bool = False


OPTIONS = (
    Option("exact"),
    Option("image_size: half", halves=True),
    Option("recent_memories: 3", limits={"recent_memories": 3}),
    Option("recent_memories: 1", limits={"recent_memories": 1}),
    Option("memory_pooling: 2", model={"memory_pooling": 2}),
    Option("memory_pooling: 2, recent_memories: 3", model={"memory_pooling": 2}, limits={"recent_memories": 3}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--speed", type=model_name, default="tiny", help="model whose speed is measured")
    masks = "model whose masks are compared; needs trained weights"
    parser.add_argument("--likeness", type=model_name, default="nano", help=masks)
    parser.add_argument("--checkpoint", help="of the latter")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=whole, default=12)
    parser.add_argument("--frames", type=whole, default=3, help="turns that count for speed")
    parser.add_argument("--threads", type=whole, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        config = sam2.find_config(args.speed)
        times = speed(args, config, make_weights(config, Path(folder)))
    likeness = [alike(args, (OPTIONS[0], option)) for option in tqdm(OPTIONS, desc=f"masks of {args.likeness}")]
    text = report(args, times, likeness)
    (RESULTS / f"approximate_{args.device}.md").write_text(text)
    print(text)


def make_tracker(option: Option, name: str, checkpoint, device: str) -> sam2.Tracker:
    size = {"image_size": sam2.find_config(name).image_size // 2} if option.halves else {}
    model = sam2.load_model(name, checkpoint, device, **option.model, **size)
    return sam2.Tracker(model, sam2.Limits(**option.limits), option.sticky_corrections)


def speed(args: argparse.Namespace, config, weights: Path) -> list[list[float]]:
    """CPU seconds per turn of every option, one object, with a full memory bank."""
    trackers = [make_tracker(option, config.name, weights, args.device) for option in OPTIONS]
    world = sam2.World(1, SIZE_HW)
    warm_up = sam2.Limits().recent_memories + 2
    times = [[] for _ in OPTIONS]
    for index in tqdm(range(warm_up + args.frames), desc=f"speed of {args.speed}"):
        frame = sam2.Frame(world.frame(index % CLIP_FRAMES).rgb, stamp_ns=(index + 1) * 10**8)
        prompts = [sam2.Prompt("0", box_xyxy=np.array([200, 150, 320, 260], np.float32))] if index == 0 else []
        for tracker, spent in zip(trackers, times, strict=True):
            begin = time.process_time()  # processor time: leaves out what other programs take
            tracker.step(frame, prompts)
            spent.append(time.process_time() - begin)
    return [spent[warm_up:] for spent in times]


def alike(args: argparse.Namespace, pair: tuple[Option, Option], correct_every: int = 0) -> tuple[float, float]:
    """Mean IoU of the second option's masks with the first's, where either is not empty, and with the truth.

    correct_every: each object in view gets a click in its middle every so many frames; 0: never.
    """
    with_exact, with_truth = [], []
    for seed in range(args.clips):
        world = sam2.World(HELD_OUT_SEED + seed, SIZE_HW)
        trackers = [make_tracker(o, args.likeness, args.checkpoint, args.device) for o in pair]
        for index in range(CLIP_FRAMES):
            seen = world.frame(index)
            truth = {str(i): mask for i, mask in enumerate(seen.masks)}
            prompts = [sam2.Prompt(name, box_xyxy=_box(mask)) for name, mask in truth.items() if mask.sum() >= 400]
            frame = sam2.Frame(seen.rgb, stamp_ns=(index + 1) * 10**8)
            if index:
                prompts = _clicks(truth, trackers[0].object_ids) if correct_every and index % correct_every == 0 else []
            exact, ours = (t.step(frame, prompts) for t in trackers)
            for a, b in zip(exact, ours, strict=True):
                if a.mask.any() or b.mask.any():
                    with_exact.append(region_similarity(a.mask, b.mask))
                if b.object_id in truth:
                    with_truth.append(region_similarity(b.mask, truth[b.object_id]))
    return statistics.mean(with_exact), statistics.mean(with_truth)


def _clicks(truth: dict[str, np.ndarray], object_ids: list[str]) -> list[sam2.Prompt]:
    prompts = []
    for name in object_ids:
        if truth[name].sum() >= 100:
            depth = cv2.distanceTransform(truth[name].astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
            prompts.append(sam2.Prompt(name, points_xy=[(x + 0.5, y + 0.5)], labels=[1]))
    return prompts


def _box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)


def report(args: argparse.Namespace, times: list[list[float]], likeness: list[tuple[float, float]]) -> str:
    head = [
        "option",
        f"{args.speed}: CPU s/frame",
        "times faster",
        f"{args.likeness}: IoU with exact",
        "IoU with truth",
    ]
    lines = [head, ["---"] * len(head)]
    for option, spent, (same, true) in zip(OPTIONS, times, likeness, strict=True):
        ratio = statistics.median(e / t for e, t in zip(times[0], spent, strict=True))
        lines.append([option.name, f"{statistics.median(spent):.2f}", f"{ratio:.2f}", f"{same:.3f}", f"{true:.3f}"])
    return (
        f"{args.threads} thread(s), torch {torch.__version__}; speed: {args.frames} turns, one object, full memory "
        f"bank; IoU: {args.clips} held-out clips of {CLIP_FRAMES} frames, boxes on the first.\n\n"
        + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
