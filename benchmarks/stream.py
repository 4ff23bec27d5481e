"""Streaming trackers side by side: the same frames, weights and prompts, each peer in its own process, taking turns.

    python -m benchmarks.stream --model tiny --objects 1 4 16 --peers official transformers

Prints and writes `benchmarks/results/stream_<model>_<device>.md` and a plot. Times are per frame with a full memory
bank: "end to end" from a uint8 image to uint8 masks of its size, "compute" without resizing images and masks. The ratio
is taken turn by turn, so that changes of the machine's speed affect both sides; processor time also leaves out other
programs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import sam2
from benchmarks.arguments import model_name, whole
from benchmarks.machine import processor
from sam2.model import SAM2

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CLIP_FRAMES = 24
ENOUGH_FRAMES = 20  # to tell growth from fluctuation
_MODULES = {"transformers": "hugging_face"}  # a module of that name would hide the library
SIZE_HW = (480, 640)


def main() -> None:
    args = parse()
    config = sam2.find_config(args.model)
    threads = args.threads or os.cpu_count()
    rows, series = [], {}
    name = f"stream_{args.model}_{args.device}" + ("_batched" if args.batched else "")
    with tempfile.TemporaryDirectory() as folder:
        weights = make_weights(config, Path(folder))
        for num_objects in args.objects:
            frames = make_clip(num_objects, Path(folder))
            spec = {"config": config.name, "weights": str(weights), "frames": str(frames), "threads": threads}
            found = run(args, spec | {"device": args.device, "batched": args.batched or None}, num_objects)
            rows += table_rows(found, num_objects)
            series[num_objects] = found
            text = report(args, rows, threads)
            (RESULTS / f"{name}.md").write_text(text)  # after each count, in case the next one fails
    plot(series, RESULTS / f"{name}.png")
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=model_name, default="tiny")
    parser.add_argument("--objects", type=whole, nargs="+", default=[1])
    parser.add_argument(
        "--peers", nargs="*", default=[], choices=["official", "official_vos_optimized", "transformers"]
    )
    parser.add_argument("--official-python", default=os.environ.get("SAM2_OFFICIAL_PYTHON"),
                        help="an interpreter that has Meta's sam2 (also $SAM2_OFFICIAL_PYTHON)")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="with cuda, official_vos_optimized is measured too")
    parser.add_argument("--warm-up", type=int, default=16, help="frames before the timing, to fill the memory bank")
    parser.add_argument("--frames", type=whole, default=10, help="frames that count")
    parser.add_argument("--threads", type=whole, help="default: all processors")
    parser.add_argument("--batched", action="store_true", help="ours: objects together, as on a GPU by default")
    args = parser.parse_args()
    if args.device != "cpu" and "official" in args.peers:
        args.peers.append("official_vos_optimized")
    return args


def make_weights(config, folder: Path) -> Path:
    """Random weights in the official layout, under which objects are present in every frame."""
    torch.manual_seed(0)
    model = SAM2(config)
    torch.nn.init.normal_(model.maskmem_tpos_enc, std=0.1)
    torch.nn.init.constant_(model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 5.0)
    torch.save({"model": model.state_dict()}, folder / "weights.pt")
    return folder / "weights.pt"


def make_clip(num_objects: int, folder: Path) -> Path:
    """Frames of the synthetic world and one box per object."""
    world = sam2.World(1, SIZE_HW)
    frames = np.stack([world.frame(t).rgb for t in range(CLIP_FRAMES)])
    rng = np.random.default_rng(0)
    corner = rng.uniform((0, 0), (SIZE_HW[1] - 120, SIZE_HW[0] - 120), (num_objects, 2))
    boxes = np.concatenate((corner, corner + 100), axis=1).astype(np.float32)
    path = folder / f"clip_{num_objects}.npz"
    np.savez(path, frames=frames, boxes=boxes)
    return path


class Peer:
    """A tracker in a child process, which takes a step at each `step`."""

    def __init__(self, name: str, spec: dict, official_python: str | None):
        self.name, self.frames = name, []
        command, folder = [sys.executable, "-m", f"benchmarks.peers.{_MODULES.get(name, name)}"], ROOT
        if name.startswith("official"):
            if official_python is None:
                raise FileNotFoundError("no interpreter with Meta's sam2 given (--official-python)")
            command, folder = [official_python, str(ROOT / "benchmarks/peers/official.py"), name], tempfile.gettempdir()
        self.process = subprocess.Popen(
            command,
            cwd=folder,  # official: away from this repository, whose package is also called sam2
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("VERBOSE") else subprocess.PIPE,
        )
        self._send(spec)
        if not self._receive():
            self.process.wait()
            error = self.process.stderr.read().strip().splitlines() if self.process.stderr else []
            raise RuntimeError(error[-1] if error else "ended without a word")

    def step(self) -> None:
        self._send({"step": True})
        answer = self._receive()
        if not answer:
            raise RuntimeError(f"{self.name} ended in the middle of a run")
        self.frames.append(answer)

    def _send(self, message: dict) -> None:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def _receive(self) -> dict | None:
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def run(args: argparse.Namespace, spec: dict, num_objects: int) -> dict[str, list[dict]]:
    """Measured frames by peer; a peer that is not installed is named and left out."""
    peers = []
    try:
        for name in ("ours", *args.peers):
            try:
                peers.append(Peer(name, spec, args.official_python))
            except (RuntimeError, FileNotFoundError) as error:
                print(f"left out: {name}: {error}", file=sys.stderr)
        for _ in tqdm(range(args.warm_up + args.frames), desc=f"{num_objects} objects"):
            for peer in peers:
                peer.step()
        return {peer.name: peer.frames[args.warm_up :] for peer in peers}
    finally:
        for peer in peers:
            peer.close()


def table_rows(found: dict[str, list[dict]], num_objects: int) -> list[list[str]]:
    rows = []
    for name, frames in found.items():
        total, compute = ([1e3 * frame[key] for frame in frames] for key in ("total", "compute"))
        turns = list(zip(frames, found["ours"], strict=True))
        ratio, cpu_ratio = (statistics.median(f[key] / o[key] for f, o in turns) for key in ("total", "cpu"))
        growth = "too few frames"
        if len(frames) >= ENOUGH_FRAMES:
            growth = f"{np.polyfit(range(len(frames)), [frame['rss'] for frame in frames], 1)[0] / 1024:.0f}"
        rows.append(
            [name, str(num_objects), f"{statistics.median(total):.0f}", f"{np.percentile(total, 95):.0f}",
             f"{statistics.median(compute):.0f}", f"{max(f['rss'] for f in frames) / 2**20:.0f}",
             growth, f"{ratio:.2f}", f"{cpu_ratio:.2f}"]
        )  # fmt: skip
    return rows


def report(args: argparse.Namespace, rows: list[list[str]], threads: int) -> str:
    head = [
        "tracker",
        "objects",
        "ms/frame",
        "p95",
        "compute ms",
        "peak MiB",
        "growth kB/frame",
        "time / ours",
        "CPU time / ours",
    ]
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *rows)]
    place = f"{threads} thread(s) of {processor()}" if args.device == "cpu" else torch.cuda.get_device_name()
    how = ", objects batched" if args.batched else ""
    conditions = f"{args.model}{how}, {SIZE_HW[1]}x{SIZE_HW[0]} images, {place}, torch {torch.__version__}"
    return (
        f"{conditions}, {args.frames} frames after {args.warm_up}; medians.\n\n"
        + "\n".join(f"| {line} |" for line in lines)
        + "\n"
    )


def plot(series: dict[int, dict[str, list[dict]]], path: Path) -> None:
    """Milliseconds per frame against the number of objects."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.subplots()
    for name in dict.fromkeys(name for found in series.values() for name in found):
        points = [
            (n, 1e3 * statistics.median(f["total"] for f in found[name]))
            for n, found in series.items()
            if name in found
        ]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xlabel="objects", ylabel="ms per frame, end to end", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
