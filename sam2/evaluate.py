"""Evaluation from the command line: videos in parallel processes, a result file for each, one summary of all.

    python -m sam2.evaluate --dataset synthetic --model nano --clips 200 --frames 40 --json figures.json
    python -m sam2.evaluate --dataset davis --root DAVIS --model tiny --prompt mask

What is measured is defined in `evaluation_video`, how the work is distributed in `evaluation_run`, and how results are
summarised in `evaluation_report`. Synthetic videos are worlds of the default difficulty, by default at the model's own
image size.
"""

import argparse
import importlib.util
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sam2.checkpoint import load_model, resized
from sam2.config import find_config
from sam2.device import choose_device, set_cpu_threads
from sam2.errors import BadInput, Sam2Error
from sam2.evaluation_files import Results, Settings, data_digest, default_folder, write_json
from sam2.evaluation_report import drift, plot, split_card, summarise, table, write_into_card
from sam2.evaluation_run import evaluate_all
from sam2.evaluation_video import (
    PROMPT_KINDS,
    SHORTEST,
    AnyVideo,
    RecordedVideo,
    StreamTracker,
    SyntheticVideo,
    VideoResult,
    check_annotated,
)
from sam2.files import alone_in, check_file, check_folder, path_argument
from sam2.limits import MAX_LABEL, Limits
from sam2.memoryless import MemorylessTracker
from sam2.precision import choose_precision
from sam2.tracker import Tracker
from sam2.training.datasets import LAYOUTS, describe, open_dataset
from sam2.training.synthetic import HELD_OUT_SEED
from sam2.weights_cache import find_weights, sha256

LARGEST = 4096  # side of a synthetic frame; one of this size takes seconds to draw

_COLUMNS = """\
Columns, in percent, with the same weight for every object: J is the overlap of predicted and true mask, F that of their
borders, J&F the mean of both; an object's first and last annotated image do not count. With sav, as in its toolkit,
annotations without a mask can be the first and last too, and images count from the first in which truth or prediction
has a mask. visibility: how often the tracker knew whether the object is in the image; there and away: the same for the
images it is in, and for those it is not. returns: how often an object was away for 3 to 15 images and came back;
re-acquired: in how many of these its mask was right (J of 0.5 or more) within 3 images.
"""


@dataclass(frozen=True)
class TrackerMaker:
    """Builds the tracker to be evaluated, once in each process."""

    model: str
    checkpoint: Path
    device: str
    precision: str
    image_size: int  # of the network's input, pixels
    has_memory: bool  # False: the ablation of `memoryless`

    def __call__(self) -> StreamTracker:
        model = load_model(self.model, self.checkpoint, self.device, self.precision, self.image_size)
        # As many objects as a label image can hold. Nothing is prompted late, so there is no need for a history.
        tracker = Tracker(model, Limits(max_objects=MAX_LABEL, history_frames=1))
        return tracker if self.has_memory else MemorylessTracker(model, tracker)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Raises BadInput for an option that would have no effect, and SystemExit, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="python -m sam2.evaluate", description="J&F, visibility, re-acquisition", epilog=_COLUMNS
    )
    add = parser.add_argument
    add("--dataset", default="synthetic", choices=("synthetic", *LAYOUTS))
    add("--root", type=path_argument, help="folder of a dataset on disk")
    add("--split", help="split of a dataset on disk; by default val, or valid for youtube_vos, mose and lvos")
    add("--seed", type=int, help=f"seed of the first synthetic clip; the others follow (default: {HELD_OUT_SEED})")
    add("--clips", type=int, help="how many synthetic clips (default: 200)")
    add("--frames", type=int, help="length of a synthetic clip (default: 40)")
    add("--size", type=int, help="side of synthetic frames in pixels; by default the model's")
    add("--model", default="nano", help="nano, tiny, small, base_plus, large")
    add("--image-size", type=int, help="side of the network's input in pixels; by default the model's own")
    add("--checkpoint", type=path_argument, help="weights other than the packaged or downloaded ones")
    add("--prompt", default="click", choices=PROMPT_KINDS, help="the one prompt of each object")
    add("--memory", default="on", choices=("on", "off"), help="off: the memory is emptied before every frame")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    add("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    add("--workers", type=int, help="processes, by default one per processor core, or one if there is a GPU")
    add(
        "--out",
        type=path_argument,
        help="result files, by default below out/evaluation; a stopped run resumes from them",
    )
    add("--json", type=path_argument, help="write the summary here")
    add("--plot", type=path_argument, help="write a picture of J&F over time here")
    add(
        "--card",
        type=path_argument,
        help="write the table into this Markdown file, after <!-- PROMPT[ at SIZE][ without memory] -->",
    )
    args = parser.parse_args(arguments)
    if args.dataset == "synthetic":
        _refuse(args, ("root", "split"), "a dataset on disk; name it as --dataset")
        defaults: dict[str, object] = dict(seed=HELD_OUT_SEED, clips=200, frames=40)
    else:
        _refuse(args, ("seed", "clips", "frames", "size"), f"synthetic clips, not for {args.dataset}; leave it out")
        defaults = dict(split=LAYOUTS[args.dataset].validation)
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def _refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Raises BadInput for an option that would have no effect."""
    for name in names:
        if getattr(args, name) is not None:
            raise BadInput(f"--{name}: is for {why}")


def _videos(args: argparse.Namespace, side: int) -> list[AnyVideo]:
    if args.dataset != "synthetic":
        if args.root is None:
            raise BadInput(f"--root: expected, of {args.dataset}, {describe(args.dataset, args.split)}; got none")
        videos = open_dataset(args.dataset, args.root, args.split)
        check_annotated(videos, f"{args.dataset} ({args.split})")
        return [RecordedVideo(video, may_overlap=args.dataset == "sav") for video in videos]
    if args.seed < HELD_OUT_SEED:
        raise BadInput(f"--seed: expected {HELD_OUT_SEED} or more, got {args.seed}, which may have been trained on")
    if args.frames < SHORTEST or args.clips < 1:
        raise BadInput(
            f"--frames, --clips: expected at least {SHORTEST} frames and 1 clip, got {args.frames} and {args.clips}"
        )
    return [SyntheticVideo(args.seed + i, args.frames, side) for i in range(args.clips)]


def _check_numbers(args: argparse.Namespace) -> None:
    if args.size is not None and not 32 <= args.size <= LARGEST:
        raise BadInput(f"--size: expected 32 to {LARGEST}, got {args.size}")
    if args.workers is not None and args.workers < 1:
        raise BadInput(f"--workers: expected 1 or more, got {args.workers}")


def _check_outputs(args: argparse.Namespace, place: str) -> None:
    """Raises BadInput, before hours of work, for an output that cannot be written."""
    for name in ("json", "plot", "card"):
        path = getattr(args, name)
        if path:
            check_file(path, f"--{name}")
    if args.out:
        check_folder(args.out, "--out")
    if args.card:
        split_card(args.card, place)
    if args.plot and args.plot.suffix not in (".png", ".svg", ".pdf", ".jpg"):
        raise BadInput(f"--plot {args.plot}: expected a name that ends in .png, .svg, .pdf or .jpg")
    if args.plot and not importlib.util.find_spec("matplotlib"):
        raise BadInput("--plot: expected matplotlib, found none; pip install matplotlib, or leave --plot out")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Everything `main` does but print; returns the summary. Raises Sam2Error, and OSError for files."""
    config = find_config(args.model)
    side = args.size or config.image_size
    image_size = resized(config, args.image_size).image_size
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    size_text = f" at {image_size}" if image_size != config.image_size else ""
    place = f"{args.prompt}{size_text}{'' if args.memory == 'on' else ' without memory'}"  # mark in the card
    _check_numbers(args)
    _check_outputs(args, place)
    videos = _videos(args, side)
    checkpoint = args.checkpoint or find_weights(config)
    if not checkpoint.is_file():
        raise BadInput(f"--checkpoint: expected a weights file, found none at {checkpoint}")
    settings = Settings(
        dataset=args.dataset,
        split=args.split or "",
        model=config.name,
        image_size=image_size,
        weights_sha256=sha256(checkpoint),
        prompt=args.prompt,
        memory=args.memory == "on",
        precision=precision.name,
        side=side,
        data=data_digest(args.root),
    )
    maker = TrackerMaker(args.model, checkpoint, args.device, args.precision, image_size, settings.memory)
    folder = args.out or default_folder(settings)
    workers = args.workers or (os.cpu_count() if device.type == "cpu" else 1) or 1  # the count may be None
    if device.type == "cpu":
        set_cpu_threads(0, args.model)
    with alone_in(folder):
        played = evaluate_all(videos, args.prompt, maker, Results(folder, settings), workers)
    scored = _without_failures(played)
    failed = [result.name for result in played if result.failure]
    summary = {**_summarise(args, scored), "failed": failed, "settings": asdict(settings)}
    if args.dataset == "synthetic":
        summary["settings"] |= {"seed": args.seed, "clips": args.clips, "frames": args.frames}
    if args.json:
        write_json(args.json, summary)
    if args.card and not failed:
        write_into_card(args.card, place, _card_text(summary))
    if args.plot:
        title = f"{config.name}{size_text} on {args.dataset}, {args.prompt}, memory {args.memory}"
        plot(scored, title, args.plot)
    return summary


def _summarise(args: argparse.Namespace, scored: list[VideoResult]) -> dict[str, Any]:
    """The figures. Raises BadInput for a dataset on disk in which there was nothing to score."""
    figures = summarise(scored)
    if args.dataset == "synthetic":
        return figures
    if not any(result.objects for result in scored):
        raise BadInput(
            f"{args.dataset} ({args.split}): expected objects in its masks, found none in {len(scored)} videos"
        )
    if figures["j_and_f"] is None:
        raise BadInput(
            f"{args.dataset} ({args.split}): expected an object with masks in {SHORTEST} frames or more, as its first "
            "and last do not count; found none"
        )
    return figures


def _without_failures(results: list[VideoResult]) -> list[VideoResult]:
    """The results that did not fail. Raises Sam2Error if there are none."""
    scored = [result for result in results if not result.failure]
    if not scored:
        raise Sam2Error(f"all {len(results)} videos failed, the first with: {results[0].failure}")
    return scored


def _card_text(summary: dict[str, Any]) -> str:
    given = summary["settings"]
    which = f" of {given['frames']} frames, from seed {given['seed']}" if "seed" in given else ""
    weights = f"weights {given['weights_sha256'][:16]}"
    return f"{summary['videos']} {given['dataset']} clips{which}; {weights}.\n\n{table(summary)}\n\n{drift(summary)}"


def main(arguments: list[str] | None = None) -> int:
    try:
        summary = run(parse(arguments))
    except (Sam2Error, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print("stopped; videos that are done are kept, and the same command goes on", file=sys.stderr)
        return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
    print(f"{table(summary)}\n\n{drift(summary)}")
    print(f"{summary['videos']} videos, {summary['frames_per_second']} frames per second in each process")
    if failed := summary["failed"]:
        print(
            f"this is without {len(failed)} of {len(failed) + summary['videos']} videos, which failed: "
            f"{', '.join(failed)}; a --card is left as it was",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _stop(number: int, frame: object) -> None:
    """Signal handler that ends the run and its worker processes like Ctrl-C."""
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
