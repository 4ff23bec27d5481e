"""Evaluation from the command line: videos in parallel processes, a result file each, one summary of them all.

    python -m sam2.evaluate --dataset synthetic --model nano --clips 200 --frames 40 --json figures.json
    python -m sam2.evaluate --dataset davis --root DAVIS --model tiny --prompt mask

Knows how work is shared out; what is measured is in `evaluation_video`, what it adds up to in `evaluation_report`.
Synthetic videos are worlds of the default difficulty, by default at the model's own image size.
"""

import argparse
import importlib.util
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from sam2.checkpoint import load_model, resized
from sam2.config import find_config
from sam2.device import choose_device, set_cpu_threads
from sam2.errors import BadInput, Sam2Error
from sam2.evaluation_files import Results, Settings, data_digest, default_folder, write_json
from sam2.evaluation_report import drift, plot, split_card, summarise, table, write_into_card
from sam2.evaluation_video import (
    PROMPT_KINDS,
    SHORTEST,
    RecordedVideo,
    StreamTracker,
    SyntheticVideo,
    VideoResult,
    check_annotated,
    evaluate_video,
)
from sam2.files import check_file, check_folder, writing
from sam2.limits import MAX_LABEL, Limits
from sam2.memoryless import MemorylessTracker
from sam2.precision import choose_precision
from sam2.tracker import Tracker
from sam2.training.datasets import LAYOUTS, describe, open_dataset
from sam2.training.synthetic import HELD_OUT_SEED
from sam2.weights_cache import find_weights, sha256

AnyVideo = SyntheticVideo | RecordedVideo
MakeTracker = Callable[[], StreamTracker]
_COLUMNS = """\
Columns, in percent, every object alike: J is the overlap of predicted and true mask, F that of their borders, J&F the
mean of both, without the first and the last annotated image. visibility: whether "it is in the image" was right; there
and away: the same over the images it is, and is not, in. returns: how often an object was away for 3 to 15 images and
came back; re-acquired: in how many of these its mask was right (J of 0.5 or more) within 3 images.
"""


@dataclass(frozen=True)
class TrackerMaker:
    """Builds the tracker to be judged, once in each process."""

    model: str
    checkpoint: Path
    device: str
    precision: str
    image_size: int  # of the network's input, pixels
    has_memory: bool  # False: the ablation of `memoryless`

    def __call__(self) -> StreamTracker:
        model = load_model(self.model, self.checkpoint, self.device, self.precision, self.image_size)
        # As many objects as a label image holds; nothing is prompted late, so no history is kept.
        tracker = Tracker(model, Limits(max_objects=MAX_LABEL, history_frames=1))
        return tracker if self.has_memory else MemorylessTracker(model, tracker)


def evaluate_all(
    videos: list[AnyVideo], prompt: str, make_tracker: MakeTracker, results: Results, workers: int
) -> list[VideoResult]:
    """Results of all videos, in their order; those that `results` holds from an earlier run are not computed again.

    prompt: one of PROMPT_KINDS; workers: processes, each with a tracker of its own, 1 = this process (for more,
    make_tracker must be picklable). Raises what a video raises; what was done until then is kept.
    """
    done = {video.name: results.find(video) for video in videos}
    missing = [video for video in videos if done[video.name] is None]
    if len(missing) < len(videos):
        print(f"{len(videos) - len(missing)} of {len(videos)} videos: {results.folder} has their results", flush=True)
    run = _in_processes if workers > 1 and len(missing) > 1 else _in_this_process
    with tqdm(total=len(videos), initial=len(videos) - len(missing), unit="video", desc=prompt) as progress:
        for result in run(missing, prompt, make_tracker, workers):
            results.keep(result)
            done[result.name] = result
            progress.update()
    return [done[video.name] for video in videos]


def _in_this_process(videos: list[AnyVideo], prompt: str, make_tracker: MakeTracker, _) -> Iterator[VideoResult]:
    tracker = make_tracker() if videos else None
    for video in videos:
        yield evaluate_video(video, tracker, prompt)


_tracker: StreamTracker | Sam2Error | None = None  # of a worker process


def _start_worker(make_tracker: MakeTracker) -> None:
    global _tracker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops the workers
    torch.set_num_threads(1)
    try:
        _tracker = make_tracker()
    except Sam2Error as error:  # raised with the first video: an error here only breaks the pool
        _tracker = error


def _work(video: AnyVideo, prompt: str) -> VideoResult:
    if isinstance(_tracker, Sam2Error):
        raise _tracker
    return evaluate_video(video, _tracker, prompt)


def _in_processes(
    videos: list[AnyVideo], prompt: str, make_tracker: MakeTracker, workers: int
) -> Iterator[VideoResult]:
    """In the order in which they are done."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(workers, len(videos)), context, _start_worker, (make_tracker,)) as pool:
        jobs = [pool.submit(_work, video, prompt) for video in videos]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool as error:
            raise Sam2Error(
                "evaluation: expected its processes to live, one was killed, most likely for memory; use fewer "
                "--workers, videos that are done are kept"
            ) from error
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:  # a video may take minutes; it is not kept
                worker.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sam2.evaluate", description="J&F, visibility, re-acquisition", epilog=_COLUMNS
    )
    add = parser.add_argument
    add("--dataset", default="synthetic", choices=("synthetic", *LAYOUTS))
    add("--root", type=Path, help="folder of a dataset on disk")
    add("--split", help="of a dataset on disk, as it calls it; by default val, and valid of youtube_vos, mose and lvos")
    add("--seed", type=int, default=HELD_OUT_SEED, help="of the first synthetic clip; the others follow")
    add("--clips", type=int, default=200, help="how many synthetic clips")
    add("--frames", type=int, default=40, help="length of a synthetic clip")
    add("--size", type=int, help="side of synthetic frames in pixels; by default the model's")
    add("--model", default="nano", help="nano, tiny, small, base_plus, large")
    add("--image-size", type=int, help="side of the network's input in pixels; by default the model's own")
    add("--checkpoint", type=Path, help="weights other than the packaged or downloaded ones")
    add("--prompt", default="click", choices=PROMPT_KINDS, help="what each object is given, once")
    add("--memory", default="on", choices=("on", "off"), help="off: emptied before every frame")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    add("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    add("--workers", type=int, help="processes, by default one per processor core, or one if there is a GPU")
    add("--out", type=Path, help="result files, by default below out/evaluation; a stopped run goes on from there")
    add("--json", type=Path, help="write the summary here")
    add("--plot", type=Path, help="write a picture of J&F over time here")
    add(
        "--card",
        type=Path,
        help="write the table into this Markdown file, after <!-- PROMPT[ at SIZE][ without memory] -->",
    )
    args = parser.parse_args(arguments)
    if args.split is None and args.dataset != "synthetic":
        args.split = LAYOUTS[args.dataset].validation
    return args


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
    for name, least in (("size", 32), ("workers", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise BadInput(f"--{name}: expected {least} or more, got {value}")


def _check_outputs(args: argparse.Namespace, place: str) -> None:
    """Before hours of work: what is to be written at the end can be."""
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


def run(args: argparse.Namespace) -> dict:
    """Everything `main` does but print; returns the summary. Raises Sam2Error, and OSError for files."""
    config = find_config(args.model)
    side = args.size or config.image_size
    image_size = resized(config, args.image_size).image_size
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    size_text = f" at {image_size}" if image_size != config.image_size else ""
    place = f"{args.prompt}{size_text}{'' if args.memory == 'on' else ' without memory'}"  # in a card
    _check_numbers(args)
    _check_outputs(args, place)
    videos = _videos(args, side)
    checkpoint = args.checkpoint or find_weights(config)
    if not checkpoint.is_file():
        raise BadInput(f"--checkpoint: expected a weights file, found none at {checkpoint}")
    split = args.split if args.dataset != "synthetic" else ""
    what = (args.dataset, split, config.name, image_size, sha256(checkpoint), args.prompt, args.memory == "on")
    settings = Settings(*what, precision.name, side, data_digest(videos))
    maker = TrackerMaker(args.model, checkpoint, args.device, args.precision, image_size, settings.memory)
    results = Results(args.out or default_folder(settings), settings)
    workers = args.workers or (os.cpu_count() if device.type == "cpu" else 1)
    if device.type == "cpu":
        set_cpu_threads(0, args.model)
    scored = evaluate_all(videos, args.prompt, maker, results, workers)
    if args.dataset != "synthetic" and not any(result.objects for result in scored):
        raise BadInput(
            f"{args.dataset} ({args.split}): expected objects in its masks, found none in {len(scored)} videos"
        )
    summary = {**summarise(scored), "settings": asdict(settings)}
    if summary["j_and_f"] is None and args.dataset != "synthetic":
        raise BadInput(
            f"{args.dataset} ({args.split}): expected an object with masks in {SHORTEST} frames or more, as its first "
            "and last do not count; found none"
        )
    if args.dataset == "synthetic":
        summary["settings"] |= {"seed": args.seed, "clips": args.clips, "frames": args.frames}
    if args.json:
        write_json(args.json, summary)
    if args.card:
        write_into_card(args.card, place, _card_text(summary))
    if args.plot:
        title = f"{config.name}{size_text} on {args.dataset}, {args.prompt}, memory {args.memory}"
        with writing(args.plot):
            args.plot.parent.mkdir(parents=True, exist_ok=True)
            plot(scored, title, args.plot)
    return summary


def _card_text(summary: dict) -> str:
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
    except KeyboardInterrupt:
        print("stopped; videos that are done are kept, and the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"{table(summary)}\n\n{drift(summary)}")
    print(f"{summary['videos']} videos, {summary['frames_per_second']} frames per second in each process")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does, and its processes with it
    sys.exit(main())
