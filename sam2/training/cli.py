"""The command line of training: which recipe, which data, where to, for how long.

Mistakes are reported in one sentence and, where possible, before the work begins.
"""

import argparse
import math
import os
import signal
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from sam2.config import find_config
from sam2.device import choose_device, free_bytes, set_cpu_threads
from sam2.errors import BadCheckpoint, BadInput, Sam2Error
from sam2.files import alone_in, check_file, check_folder, path_argument
from sam2.training.config import CONFIGS, TrainConfig, find_train_config
from sam2.training.dataset_clips import DatasetClips
from sam2.training.datasets import LAYOUTS, describe, open_dataset
from sam2.training.draws import Maker
from sam2.training.fuse import fuse
from sam2.training.state import STATE, WEIGHT_SUFFIXES
from sam2.training.synthetic_clips import SyntheticClips
from sam2.training.team import Team, join_team
from sam2.training.train import Trainer
from sam2.weights_cache import find_weights, sha256

WEIGHTS = "weights.pt"  # in --out


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sam2.training.train", description="train or fine-tune SAM 2; run again to resume"
    )
    parser.add_argument("--config", default="smoke", choices=CONFIGS, help="the recipe")
    parser.add_argument("--out", type=path_argument, required=True, help="folder of the run; an existing run resumes")
    parser.add_argument("--model", help="another size than the recipe's: nano, tiny, small, base_plus, large")
    parser.add_argument(
        "--checkpoint", type=path_argument, help="weights to begin with (official .pt, or .safetensors)"
    )
    parser.add_argument("--dataset", action="append", choices=LAYOUTS, help="real data; repeat it for a mixture")
    parser.add_argument("--root", type=path_argument, action="append", help="folder of each --dataset")
    parser.add_argument("--weight", type=float, action="append", help="share of each --dataset in the mixture")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this long; run again to resume")
    parser.add_argument("--budget-minutes", type=float, help="length of the whole run by the clock")
    parser.add_argument("--steps", type=int, help="length of the whole run in steps")
    parser.add_argument("--seed", type=int, help="seed of all random draws; also the first synthetic world")
    parser.add_argument("--size", type=int, help="side of the images, pixels (a multiple of 32)")
    parser.add_argument("--batch-scale", type=float, default=1.0, help="factor for all batch sizes")
    parser.add_argument("--workers", type=int, help="processes that make clips")
    parser.add_argument("--pool", type=int, help="clips kept on the device, each frames x size x size x 4 bytes")
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:N; on a CPU nano trains in one thread unless OMP_NUM_THREADS says otherwise",
    )
    parser.add_argument(
        "--fuse",
        action=argparse.BooleanOptionalAction,
        help="compile the most frequent stages; by default on a GPU, for whole images",
    )
    parser.add_argument(
        "--export", type=path_argument, help=f"the averaged weights, .pt or .safetensors; by default {WEIGHTS} in --out"
    )
    return parser.parse_args(arguments)


def _config(args: argparse.Namespace) -> TrainConfig:
    _check_ranges(args)
    config = find_train_config(args.config)
    names = ("model", "size", "workers", "pool", "seed", "steps", "budget_minutes")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if "budget_minutes" in given:  # instead of steps
        given["steps"] = 0
    phases = tuple(replace(p, batch=max(1, round(p.batch * args.batch_scale))) for p in config.phases)
    config = replace(config, phases=phases, **given)
    size, least = config.image_size, max(32, *(p.window for p in config.phases))
    if size % 32 or size < least:
        raise BadInput(f"--size: expected a multiple of 32 from {least} on for {args.config}, got {size}")
    return config


def _check_ranges(args: argparse.Namespace) -> None:
    for name, least, most in (
        ("minutes", 0, math.inf),
        ("steps", 1, math.inf),
        ("pool", 1, math.inf),
        ("size", 32, math.inf),
        ("seed", 0, 2**62),  # leaves room for offsets
        ("workers", 0, 512),
    ):
        value = getattr(args, name)
        if value is not None and not least <= value <= most:  # refuses NaN, too
            span = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise BadInput(f"--{name}: expected {span}, got {value}")
    for name, most in (("budget_minutes", 1e6), ("batch_scale", 1e3)):  # more can only be a typing error
        value = getattr(args, name)
        if value is not None and not 0 < value <= most:
            raise BadInput(f"--{name.replace('_', '-')}: expected more than 0, at most {most:g}, got {value}")
    if args.steps and args.budget_minutes:
        raise BadInput("--steps, --budget-minutes: both say how long the run is; give one of them")


def _weights(args: argparse.Namespace) -> tuple[float, ...]:
    weights = args.weight or [1.0] * len(args.dataset)
    if len(weights) != len(args.dataset):
        raise BadInput(f"--weight: expected none or one for each of {len(args.dataset)} --dataset, got {len(weights)}")
    if not all(0 <= weight < math.inf for weight in weights) or not 0 < sum(weights) < math.inf:
        got = ", ".join(map(str, weights))
        raise BadInput(f"--weight: expected 0 or more for each --dataset, and more than 0 for one, got {got}")
    return tuple(weights)


def _maker(args: argparse.Namespace, config: TrainConfig) -> Maker:
    if not args.dataset:
        if args.root or args.weight:
            raise BadInput("--root, --weight: expected a --dataset for each, got none; name it")
        return SyntheticClips(config.clip_frames, config.image_size, config.gentle)
    roots = args.root or []
    if len(roots) != len(args.dataset):
        wanted = "; ".join(f"of {name} {describe(name, 'train')}" for name in dict.fromkeys(args.dataset))
        raise BadInput(
            f"--root: expected one folder for each of {len(args.dataset)} --dataset, got {len(roots)}: {wanted}"
        )
    weights = _weights(args)
    videos = tuple(tuple(open_dataset(n, r, "train")) for n, r in zip(args.dataset, roots, strict=True))
    return DatasetClips(videos, weights, config.clip_frames, config.image_size, config.min_area)


def _where_weights_are(model: str) -> str:
    try:
        return f"its own is {find_weights(find_config(model))}"
    except BadCheckpoint as error:  # which says how to get them
        return str(error)


def _check_room(config: TrainConfig, maker: Maker, device: torch.device) -> None:
    """Raises BadInput unless the pool leaves half of the memory free: a process that takes too much is killed."""
    needed, free = config.pool * math.prod(maker.shape), free_bytes(device)
    if free is not None and needed > free / 2:
        raise BadInput(
            f"--pool: {config.pool} clips of {' x '.join(map(str, maker.shape))} bytes take {needed / 2**30:.1f} GiB, "
            f"expected at most half of the {free / 2**30:.1f} GiB that are free; choose a smaller --pool or --size"
        )


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        run(args)
    except (Sam2Error, OSError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        saved = (args.out / STATE).exists()
        print("stopped", "the same command goes on" if saved else "nothing was saved", sep="; ", file=sys.stderr)
        return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
    return 0


def run(args: argparse.Namespace) -> None:
    """Does what `main` does, but raises its errors."""
    config = _config(args)
    begins = not (args.out / STATE).exists()
    if config.needs_checkpoint and not args.checkpoint and begins:
        raise BadInput(
            f"--checkpoint: {args.config} goes on from weights, expected a file of {config.model}; "
            f"{_where_weights_are(config.model)}"
        )
    path = args.export or args.out / WEIGHTS
    if path.suffix not in WEIGHT_SUFFIXES:
        raise BadInput(f"--export: expected a name ending in {' or '.join(WEIGHT_SUFFIXES)}, got {path}")
    _check_export(path, args.out / STATE, "from which the run goes on")
    if begins and args.checkpoint:
        _check_export(path, args.checkpoint, "with which the run begins")
    check_folder(args.out, "--out")
    check_file(path, "--export")
    if choose_device(args.device).type == "cpu":
        set_cpu_threads(0, config.model)
    maker = _maker(args, config)
    team, device = join_team(args.device)
    _check_room(config, maker, device)
    with alone_in(args.out) if team.leads else nullcontext():
        _train(args, config, maker, team, device, path)


def _check_export(path: Path, other: Path, use: str) -> None:
    if os.path.realpath(path) == os.path.realpath(other):
        raise BadInput(f"--export: expected another name than {path}, {use}; choose one")


def _check_checkpoint(args: argparse.Namespace, began_with: str) -> None:
    """Raises BadInput if the resumed run did not begin with the file --checkpoint."""
    path = args.checkpoint
    if not (path.is_file() and sha256(path) == began_with):
        raise BadInput(
            f"--checkpoint: {args.out} goes on from its own weights, and did not begin with {path}; choose "
            "another --out to begin with that, or leave it out to go on"
        )


def _train(
    args: argparse.Namespace, config: TrainConfig, maker: Maker, team: Team, device: torch.device, path: Path
) -> None:
    """path: of the weights to export."""
    # Windows would cause a compilation for every position in the image.
    pays = device.type == "cuda" and not any(phase.window for phase in config.phases)
    trainer = Trainer(config, maker, args.out, device, team)
    if team.leads:
        print(f"learning from {maker}", flush=True)
    if pays if args.fuse is None else args.fuse:
        fuse(trainer.lessons)
    if trainer.resume():
        if team.leads:
            done = f"({100 * trainer.share:.0f} % done)" if trainer.share < 1 else "and done: another --out begins anew"
            print(f"going on from step {trainer.progress.step} {done}", flush=True)
        if args.checkpoint:
            _check_checkpoint(args, trainer.progress.began_with)
            _check_export(path, args.checkpoint, "with which the run began")
    elif args.checkpoint:
        trainer.start_from(args.checkpoint)
    if stopped_by := trainer.run(60 * args.minutes):
        trainer.leave_team()
        raise KeyboardInterrupt(stopped_by)
    if team.leads:
        trainer.export(path)
        print(f"weights: {path}")
    trainer.leave_team()
    if device.type == "cuda":
        print(f"device memory used at most: {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB")
