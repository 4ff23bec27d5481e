"""`sam2_ros replay`: runs every image of a recording through the tracker and writes the results into a new bag.

Reads bags (rosbag2 mcap and sqlite3, ROS 1), videos and folders of images; takes prompts from a file (`prompt_file`
documents it). No DDS, no clock: the same recording with the same prompts, weights and threads gives the same bytes.
Connects source, tracker and sinks; each of them is in a file of its own.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

import sam2
from sam2_ros import prompt_file
from sam2_ros.arguments import path_argument
from sam2_ros.replay_prompts import blaming, check_alone, check_frames, look_ahead, warn_of_the_past

if TYPE_CHECKING:
    from sam2_ros.replay_report import Report
    from sam2_ros.replay_source import Source

DAMAGED = 3  # exit code
ENDINGS = {"overlay": (".mp4",), "sheet": (".png", ".jpg"), "report": (".json",)}  # by option
DESCRIPTION = """\
Run a recording through the tracker, every image of it, and write tracks, visibility and label masks into a new bag.

SOURCE is a bag (a folder with metadata.yaml, *.mcap, *.db3, or ROS 1 *.bag), a video file, or a folder of images.
Nothing is published; ROS need not be running. On a CPU the same call gives the same bytes again.
"""

EPILOG = (
    prompt_file.FORMAT
    + """
exit code:
  0  every image that SOURCE announces was tracked, or refused and counted
  1  nothing was written, for the printed reason
  3  SOURCE is damaged, or ends early, or before a prompt's image: what was tracked up to there was written
  130, 143  interrupted, nothing was written

examples:
  sam2_ros replay kitchen_bag --prompts prompts.yaml --out tracks.mcap
  sam2_ros replay kitchen.mp4 --prompts prompts.yaml --out tracks --overlay kitchen_tracks.mp4 --sheet kitchen.png
  sam2_ros replay kitchen_bag --prompts prompts.yaml --out tracks.mcap --davis things    training data
  ros2 bag play tracks.mcap      or open it in Foxglove or PlotJuggler
"""
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises SystemExit, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="sam2_ros replay", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("source", type=path_argument, metavar="SOURCE", help="bag, video file or folder of images")
    parser.add_argument("--prompts", type=path_argument, required=True, help="YAML file: what to track, see below")
    parser.add_argument(
        "--out", type=path_argument, required=True, help="the new bag: one file if it ends in .mcap, a folder otherwise"
    )
    parser.add_argument("--overlay", type=path_argument, help="also write the images with the masks on them, as *.mp4")
    parser.add_argument(
        "--sheet", type=path_argument, help="also write eight moments as one picture, as *.png or *.jpg"
    )
    parser.add_argument("--report", type=path_argument, help="also write a report on each object, as JSON")
    parser.add_argument(
        "--davis", type=path_argument, metavar="FOLDER",
        help="also add images and masks, as JPEG and indexed PNG, to a training data set in the layout of DAVIS",
    )  # fmt: skip
    parser.add_argument("--name", type=_name, help="name of the recording in that data set (default: that of SOURCE)")
    parser.add_argument("--topic", default="", help="image topic in the bag; needed if there are several")
    parser.add_argument(
        "--fps", type=float, help="images per second of a folder, or of a video without a rate (default: 30)"
    )
    parser.add_argument("--model", default="nano", help="nano, tiny, small, base_plus, large (default: %(default)s)")
    parser.add_argument("--checkpoint", type=path_argument, help="weights file; without it the model's own")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.fps is not None and not 0.001 <= args.fps <= 1000:
        parser.error(f"--fps: expected images per second, 0.001 to 1000, got {args.fps:g}")
    if args.name and not args.davis:
        parser.error("--name: expected --davis FOLDER, too: it names the recording in that data set")
    return args


def _name(given: str) -> str:
    if given in ("", ".", "..") or "/" in given:
        raise argparse.ArgumentTypeError(f"expected the name of a folder, got {given!r}")
    return given


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, DAMAGED, or 130 if interrupted. Raises OSError if the disk is full, ModuleNotFoundError
    if rosbags or the messages are not installed, and sam2.Sam2Error with one sentence for all else that can be wrong.
    """
    args = parse(argv)
    # Silences FFmpeg: this command itself reports what is wrong with a video, once.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as by nohup
            signal.signal(number, lambda number, frame: sys.exit(128 + number))  # unwinds, which removes part files
    try:
        return _main(args)
    except KeyboardInterrupt:
        print("sam2_ros replay: interrupted, nothing was written", file=sys.stderr)
        return 130


def _main(args: argparse.Namespace) -> int:
    from sam2_ros.contact_sheet import ContactSheet
    from sam2_ros.film import Film
    from sam2_ros.replay_bag import TrackBag
    from sam2_ros.replay_davis import DavisVideo
    from sam2_ros.replay_files import check_file, check_free, close_undisturbed
    from sam2_ros.replay_report import Report
    from sam2_ros.replay_source import open_source

    entries = prompt_file.read(args.prompts)
    _check_apart(args, entries)
    check_free(args.out)
    for option, endings in ENDINGS.items():
        if path := getattr(args, option):
            check_file(path, f"--{option}", endings)
    with ExitStack() as stack:
        source = stack.enter_context(open_source(args.source, args.topic, args.fps or 0.0))
        check_frames(entries, source.total)
        report = Report(source, sam2.find_config(args.model).name)
        bag = stack.enter_context(TrackBag.open(args.out))
        pictures: dict[Path, Film | ContactSheet] = {}
        if args.overlay:
            pictures[args.overlay] = stack.enter_context(Film.open(args.overlay, source.fps))
        if args.sheet:
            pictures[args.sheet] = stack.enter_context(ContactSheet.open(args.sheet))
        sinks: list[TrackBag | Film | ContactSheet | DavisVideo] = [bag, *pictures.values()]
        davis = None
        if args.davis:
            place = _real(args.source)
            name = args.name or (place.name if place.is_dir() else place.stem)
            davis = stack.enter_context(DavisVideo.open(args.davis, name, len(_object_ids(entries))))
            sinks.append(davis)
        # Takes seconds, so everything else is checked before.
        tracker = make_tracker(args, entries)
        began = time.monotonic()
        replay(source, entries, tracker, sinks, report)
        bag.finish()  # before any output is moved into place, because a full disk shows here
        took_s = time.monotonic() - began
        close_undisturbed(stack)  # moves the outputs into place
    written = [args.out, *(path for path, picture in pictures.items() if picture.is_written)]
    if args.report and report.write(args.report):
        written.append(args.report)
    if davis and davis.is_written:
        written.append(args.davis)
    print(report.summary(took_s))
    print(f"wrote {', '.join(map(str, written))}")
    if source.damage:
        print(f"sam2_ros replay: {source.damage}", file=sys.stderr)
    return DAMAGED if source.damage else 0


def _check_apart(args: argparse.Namespace, entries: list[prompt_file.Entry]) -> None:
    """Raises BadInput if an output would overwrite an input or another output."""
    source, out = _real(args.source), _real(args.out)
    taken = {_real(entry.mask_file): "a mask of --prompts" for entry in entries if entry.mask_file}
    taken |= {source: "SOURCE", _real(args.prompts): "--prompts"}
    for name in ("out", "overlay", "sheet", "report", "davis"):
        path = getattr(args, name)
        if path is None:
            continue
        if (other := taken.setdefault(_real(path), f"--{name}")) != f"--{name}":
            raise sam2.BadInput(f"--{name} {path}: expected a file of its own, {other} is the same")
        if source in _real(path).parents:
            raise sam2.BadInput(f"--{name} {path}: expected a place outside of SOURCE, whose files are read")
        if out in _real(path).parents:
            raise sam2.BadInput(f"--{name} {path}: expected a place outside of --out, which is made when all is done")


def _real(path: Path) -> Path:
    """Follows links. Unlike `Path.resolve`, does not raise for circular ones."""
    return Path(os.path.realpath(path))


def make_tracker(args: argparse.Namespace, entries: list[prompt_file.Entry]) -> sam2.Tracker:
    """Makes a tracker like the node's, with room for the file's objects and, as prompts are never late, no history."""
    sam2.set_cpu_threads(0, args.model)
    model = sam2.load_model(args.model, checkpoint=args.checkpoint, device=args.device)
    limits = sam2.Limits(max_objects=len(_object_ids(entries)), history_frames=1)
    return sam2.Tracker(model, limits=limits, sticky_corrections=True)


def _object_ids(entries: list[prompt_file.Entry]) -> set[str]:
    return {entry.prompt.object_id for entry in entries}


def replay(
    source: "Source", entries: list[prompt_file.Entry], tracker: sam2.Tracker, sinks: Iterable, report: "Report"
) -> None:
    """Steps the tracker through the source, with the prompts. sinks: have `write(shot, tracks)`.

    Raises sam2.BadInput if no image can be used and, naming the entry, for a prompt that is refused, or if none of
    their images came though the source is not damaged.
    """
    from sam2_ros.replay_source import until_damage

    check_alone(entries, tracker)
    waiting, seen = entries, 0
    # No bar unless it is a terminal: in a log file it would be noise. It may also be closed.
    bar = tqdm(until_damage(source), total=source.total or None, unit=" images", disable=None if sys.stderr else True)
    for shot, frame in _encoding_ahead(bar, tracker):
        due = [entry for entry in waiting if entry.is_due(shot.index, shot.stamp_ns)]
        waiting = [entry for entry in waiting if not entry.is_due(shot.index, shot.stamp_ns)]
        for number, entry in enumerate(due, start=1):
            with blaming([entry]):
                tracker.check([one.prompt for one in due[:number]], frame)
        if not seen:
            warn_of_the_past(due, shot.stamp_ns)
            look_ahead(waiting, source, tracker, frame)
        with blaming(due):
            tracks = tracker.step(frame, [entry.prompt for entry in due])
        for sink in sinks:
            sink.write(shot, tracks)
        report.note(shot, tracks, _object_ids(due))
        seen += 1
    if not seen:
        why = source.last_refusal or "it ends before the first; is it damaged?"
        raise sam2.BadInput(f"{source.name}: not one usable image: {why}")
    if waiting and not source.damage:
        if len(waiting) == len(entries):
            entry = entries[0]
            raise sam2.BadInput(f"{entry.name}: {entry.place} never came; the source ended after {seen} images")
        source.damage = f"{source.name}: it ended after {seen} images: what was tracked in them is kept"
    for entry in waiting:
        source.damage += f"; {entry.name}: {entry.place} never came"


def _encoding_ahead(shots: Iterable, tracker: sam2.Tracker) -> Iterator[tuple]:
    """Yields (shot, its frame), after telling the tracker to encode the next frame ahead."""
    frames = ((shot, sam2.Frame(shot.rgb, shot.time_ns)) for shot in shots)
    current = next(frames, None)
    while current is not None:
        following = next(frames, None)
        if following is not None:
            tracker.encode_ahead(following[1])
        yield current
        current = following


if __name__ == "__main__":
    sys.exit(main())
