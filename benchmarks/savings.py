"""The gain of each exact optimisation of the stream: each is undone in turn and compared with the tracker as it is.

    python -m benchmarks.savings --model tiny --objects 2

Writes `benchmarks/results/savings_<model>.md`. All variants get the same frame and memory; processor time is compared
turn by turn, so that other load on the machine affects all equally.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from tqdm import tqdm

import sam2
from benchmarks.arguments import model_name, whole
from benchmarks.machine import processor
from benchmarks.stream import RESULTS, SIZE_HW, make_weights
from sam2 import attention, layers, linear, memory_attention, position
from sam2.frame_step import FrameStep
from sam2.prompt_encoder import PromptEncoder

WARM_UP = 9  # frames until the spatial memory is full


@contextmanager
def _wide_values():
    """Values projected to the model's width before they are averaged, as the formula is written."""

    def forward(self, q, k, v, num_unrotated=0):
        table = position.rotary_table(self.q_proj.out_features, round(q.shape[1] ** 0.5), q.device)
        q = position.rotate(self.q_proj(q), table).expand(k.shape[0], -1, -1)
        k, v = self._rotate_grids(self.k_proj(k), table, num_unrotated), self.v_proj(v)
        return self.out_proj(attention.average(q[:, None], k[:, None], v[:, None])[:, 0])

    with mock.patch.object(attention.RotaryAttention, "forward", forward):
        yield


@contextmanager
def _self_attend_per_object():
    """Computes the image's self-attention for each object anew, as if it were alone."""
    track = FrameStep.track

    def alone(self, objects, moment, self_attended):
        return track(self, objects, moment, self.self_attend(moment))

    with mock.patch.object(FrameStep, "track", alone):
        yield


@contextmanager
def _tables_each_time():
    def fresh(*arguments):
        position.rotary_table.cache_clear()
        return position.rotary_table(*arguments)

    def fresh_sines(*arguments):
        position.sine_grid.cache_clear()
        return position.sine_grid(*arguments)

    with mock.patch.object(attention, "rotary_table", fresh):
        with mock.patch.object(memory_attention, "sine_grid", fresh_sines):
            yield


@contextmanager
def _free_prompt():
    """Makes the prompt encoder free: the most that caching a tracked frame's empty prompt could save."""
    kept = {}

    def keep(name):
        original = getattr(PromptEncoder, name)
        return lambda self, *a: kept.setdefault((id(self), name), original(self, *a))

    with mock.patch.multiple(PromptEncoder, **{name: keep(name) for name in ("sparse", "dense", "grid_position")}):
        yield


Undo = Callable[[], AbstractContextManager]
SAVINGS: tuple[tuple[str, str, Undo], ...] = (  # its name, the predicted time without it, and how to undo it
    (
        "fp32 products by oneDNN",
        "x 1.6 (MKL reaches 75 of 170 GFLOP/s)",
        lambda: mock.patch.object(linear, "_HAS_ONEDNN", False),
    ),
    ("attention in tiles", "x 1.1", lambda: mock.patch.object(attention, "_goes_in_tiles", lambda q, k, v: False)),
    ("values averaged 64 wide", "x 1.4 (of 512 columns 320 are left)", _wide_values),
    ("work in slices that stay in the cache", "x 1.1", lambda: mock.patch.object(layers, "_ROWS", 1 << 40)),
    ("the image's own attention shared by objects", "x 1.04 with 2 objects", _self_attend_per_object),
    ("rotary and sine tables kept", "x 1.01", _tables_each_time),
)  # fmt: skip
NOT_TAKEN: tuple[tuple[str, str, Undo], ...] = (("the empty prompt's encodings kept", "x 0.999", _free_prompt),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=model_name, default="tiny")
    parser.add_argument("--objects", type=whole, default=2)
    parser.add_argument("--turns", type=whole, default=3)
    parser.add_argument("--threads", type=whole, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    variants = [("as it is", "", nullcontext), *SAVINGS, *NOT_TAKEN]
    times = measure(args, [undo for _, _, undo in variants])
    lines = [["without", "predicted time", "measured", "CPU s/frame"], ["---"] * 4]
    for (name, predicted, _), spent in zip(variants, times, strict=True):
        ratio = statistics.median(t / base for t, base in zip(spent, times[0], strict=True))
        lines.append([name, predicted, f"x {ratio:.2f}", f"{statistics.median(spent):.2f}"])
    text = (
        f"{args.model}, {args.objects} objects, full spatial memory, {args.threads} thread(s), {args.turns} turns, "
        f"{processor()}, torch {torch.__version__}; median of the ratios of processor time.\n\n"
    ) + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (RESULTS / f"savings_{args.model}.md").write_text(text)
    print(text)


def measure(args: argparse.Namespace, undoings: list[Undo]) -> list[list[float]]:
    """CPU seconds per turn of each variant. One tracker serves all: their masks agree, and so do their memories."""
    config = sam2.find_config(args.model)
    with tempfile.TemporaryDirectory() as folder:
        tracker = sam2.Tracker(sam2.load_model(config.name, make_weights(config, Path(folder)), "cpu"))
    rgb = sam2.World(1, SIZE_HW).frame(0).rgb
    boxes = [np.array([100 + 60 * i, 100, 200 + 60 * i, 220], np.float32) for i in range(args.objects)]
    prompts = [sam2.Prompt(str(i), box_xyxy=box) for i, box in enumerate(boxes)]
    times, index = [[] for _ in undoings], 0

    def step(prompts=()) -> float:
        nonlocal index
        index += 1
        begin = time.process_time()
        tracker.step(sam2.Frame(rgb, stamp_ns=index * 10**8), prompts)
        return time.process_time() - begin

    step(prompts)
    for _ in tqdm(range(WARM_UP), desc="the memory fills"):
        step()
    for _ in tqdm(range(args.turns), desc="turns"):
        for undo, spent in zip(undoings, times, strict=True):
            with undo():
                spent.append(step())
    return times


if __name__ == "__main__":
    main()
