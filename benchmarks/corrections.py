"""Measures the two rules by which the node's tracker differs from the official one after corrections.

    python -m benchmarks.corrections [--model nano]

In clips of the synthetic world each object in view gets a click in its middle every few frames. The official tracker
forgets such a correction like any tracked frame; with `sticky_corrections` it becomes a prompted memory, of which the
first and the newest few are kept. Writes `benchmarks/results/corrections_<model>.md`.
"""

import argparse
import os

import torch
from tqdm import tqdm

from benchmarks.approximate import CLIP_FRAMES, Option, alike
from benchmarks.arguments import model_name, whole
from benchmarks.stream import RESULTS

CORRECT_EVERY = 6  # frames: six corrections in a clip, seven prompted frames
ALL = {"prompted_memories": 8}
RULES = (
    Option("official: corrections fade", limits=ALL),
    Option("sticky_corrections, all kept", limits=ALL, sticky_corrections=True),
    Option("sticky_corrections, four kept (the node)", sticky_corrections=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=model_name, dest="likeness", default="nano", help="needs trained weights")
    parser.add_argument("--checkpoint", help="its weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=whole, default=12)
    parser.add_argument("--threads", type=whole, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = [["rule", "IoU with the official rule's masks", "IoU with truth"], ["---"] * 3]
    for rule in tqdm(RULES, desc=args.likeness):
        same, true = alike(args, (RULES[0], rule), CORRECT_EVERY)
        lines.append([rule.name, f"{same:.3f}", f"{true:.3f}"])
    text = (
        f"{args.likeness}, {args.clips} held-out clips of {CLIP_FRAMES} frames, a box on the first, a click in the "
        f"middle of each object in view every {CORRECT_EVERY} frames.\n\n"
    ) + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (RESULTS / f"corrections_{args.likeness}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
