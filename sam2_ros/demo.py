"""`sam2_ros demo`: a simulated camera, the tracking node and prompts by service, as processes that talk over DDS.

Starts the other two processes, prompts with a box around each thing in an early image, records the node's outputs
until the camera ends, prints a table, and writes demo.mp4, demo.png and camera.mp4. Uses only topics and services that
any user of the node has.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

import sam2
from sam2_ros import cyclone_dds, demo_picture, demo_score, fast_dds, reach
from sam2_ros.arguments import path_argument
from sam2_ros.children import Children
from sam2_ros.demo_audience import ANSWER_S, READY_S, Audience, Interrupted, check_signals, in_time, signals
from sam2_ros.film import Film
from sam2_ros.log_files import NO_LOG_FILES
from sam2_ros.msg import Prompt, TrackArray
from sam2_ros.pictures import write_picture
from sam2_ros.replay_files import part_of, put_in_place, video_name
from sam2_ros.requests import Code
from sam2_ros.ros_time import stamp_ns
from sam2_ros.simulator import check_camera
from sam2_ros.srv import AddObjects, ListObjects

LAST_RESULT_S = 5.0  # how long to wait for the last result
ATTEMPTS = 5  # to prompt: on a busy machine the tracker may have missed the first image
ENOUGH_IOU, ENOUGH_VISIBILITY = 0.75, 0.9  # what the demonstration must reach to succeed
PICTURES = "demo.mp4", "demo.png", "camera.mp4"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises SystemExit, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="sam2_ros demo",
        description="A simulated camera, the tracker and prompts by service, as separate processes over ROS 2. Prompts "
        "objects with boxes in an early image; ends with a table, demo.mp4, demo.png and camera.mp4.",
        epilog="Exit code 0: the tracker met its goals. 1: it did not, or something failed. While it runs, "
        "`ros2 topic echo /sam2/visibility` works with the ROS_DOMAIN_ID that it prints, without a discovery server.",
    )
    parser.add_argument(
        "--out", type=path_argument, default=Path("out/demo"), help="folder for the results (%(default)s)"
    )
    parser.add_argument("--frames", type=int, default=240, help="number of camera images (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=12.0, help="images per second (default: %(default)s)")
    parser.add_argument("--width", type=int, default=640, help="pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, default=480, help="pixels (default: %(default)s)")
    parser.add_argument(
        "--seed",
        type=int,
        default=1000036,
        help="seed of the world; 1000000 and above were never trained on (default: %(default)s)",
    )
    parser.add_argument("--full", action="store_true", help="the world of training and evaluation, not a gentle one")
    parser.add_argument(
        "--objects", type=int, default=3, help="how many objects to track, the largest ones (default: %(default)s)"
    )
    parser.add_argument("--model", default="nano", help="nano, tiny, small, base_plus, large (default: %(default)s)")
    parser.add_argument("--checkpoint", type=path_argument, help="weights file; without it the model's own")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.frames < 20 or args.objects < 1:
        parser.error("expected --frames of at least 20 and --objects of at least 1")
    check_camera(parser, args)
    return args


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 = success, 1 = the tracker was not good enough or a picture could not be written, 130 = interrupted.
    Raises sam2.Sam2Error if anything else fails."""
    args = parse(argv)
    signals.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Only recorded here: an exception raised during a callback would be swallowed.
        signal.signal(number, lambda number, frame: signals.append(number))
    try:
        _surroundings()
        video_name(args.out)  # now, rather than when everything is over
        args.out.mkdir(parents=True, exist_ok=True)
        for name in PICTURES:  # so that files of an earlier demo are not taken for this one's
            (args.out / name).unlink(missing_ok=True)
        return _run(args)
    except Interrupted:
        print("sam2_ros demo: interrupted", file=sys.stderr)
        return 130


def _surroundings() -> None:
    """Sets the environment of this process and its children, unless set already: a ROS domain of their own, discovery
    on this machine only, room for images in the middleware."""
    os.environ.pop(reach.SERVER, None)  # through it all domains, and so the robot's own cameras and nodes, would meet
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    fast_dds.make_room()
    cyclone_dds.make_room()


def _run(args: argparse.Namespace) -> int:
    print(f"results go to {args.out}/, ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}")
    rclpy.init(args=NO_LOG_FILES, signal_handler_options=SignalHandlerOptions.NO)
    try:
        with tempfile.TemporaryFile() as spool:
            node, executor = rclpy.create_node("demo"), SingleThreadedExecutor()
            executor.add_node(node)
            with Children(args.out) as children:
                audience = Audience(node, executor, children, spool)
                boxes, prompted_ns = _perform(args, audience, children)
            executor.shutdown()
            node.destroy_node()
            results = demo_score.pair_up(audience.answers, audience.truths, boxes)
            answered = demo_score.images_answered(audience.answers)
            run = demo_score.score(results, args.frames, answered, prompted_ns)
            print(f"\n{demo_score.table(run)}\n")
            drawn = _draw(args, audience, results, run, (boxes, prompted_ns))
    finally:
        rclpy.shutdown()
    print(f"wrote {', '.join(str(args.out / name) for name in drawn) or 'nothing'}")
    return _exit_code(run, drawn)


def _exit_code(run: demo_score.Score, drawn: list[str]) -> int:
    """Prints which score was too low, if one was. Pictures that could not be written have been reported already."""
    is_good = run.mean_iou >= ENOUGH_IOU and run.visibility >= ENOUGH_VISIBILITY
    if not is_good:
        print(
            f"sam2_ros demo: expected a mean IoU of {ENOUGH_IOU} and a visibility accuracy of {ENOUGH_VISIBILITY:.0%} "
            f"at least, got {run.mean_iou:.3f} and {run.visibility:.1%}", file=sys.stderr,
        )  # fmt: skip
    return 0 if is_good and len(drawn) == len(PICTURES) else 1


def _perform(args: argparse.Namespace, audience: Audience, children: Children) -> tuple[dict, int]:
    """Runs tracker and camera until the camera ends; returns the boxes, and the stamp of the image they are on."""
    audience.find_rivals()
    print(f"1/4 starting the tracker with {args.model}")
    settings = {"model": args.model, "checkpoint": args.checkpoint, "device": args.device}
    given = [word for name, value in settings.items() if value for word in ("-p", f"{name}:={value}")]
    children.start("tracker", "track", "--ros-args", *given)
    ready = (Code.OK, Code.NO_IMAGE)
    while (answer := audience.call(ListObjects, "/sam2/list_objects", ListObjects.Request())).code not in ready:
        audience.until(in_time(0.2), READY_S, f"the tracker ({answer.sentence})")
    world = "the full world" if args.full else "a gentle world: nothing small, fast, alike or camouflaged"
    print(f"2/4 starting the camera: {args.frames} images of {args.width}x{args.height}, {args.rate:g} per second")
    print(f"    it shows {world}")
    audience.watch()
    options = {"seed": args.seed, "width": args.width, "height": args.height, "rate": args.rate, "frames": args.frames}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words += [] if args.full else ["--gentle"]
    camera = children.start("camera", "simulate", "--wait", "2", *words)  # 2: the tracker and this process
    audience.until(lambda: audience.has_image, READY_S, "the first image")
    prompted = _prompt(audience, args.objects)
    print("4/4 tracking")
    audience.until(lambda: camera.poll() == 0, args.frames / args.rate * 3 + READY_S, "the last image")
    last = in_time(LAST_RESULT_S)
    newest = audience.truths[-1].header
    audience.until(lambda: last() or audience.answers[-1][0].header == newest, ANSWER_S, "the last result")
    return prompted


def _prompt(audience: Audience, how_many: int) -> tuple[dict, int]:
    """Prompts with boxes on the first image or, if the tracker missed it, on the newest. Returns as `_perform`."""
    truth = audience.first_image
    for _ in range(ATTEMPTS):
        boxes = choose_boxes(truth, how_many)
        prompts = [Prompt(header=truth.header, object_id=name, box_xyxy=box) for name, box in boxes.items()]
        whole = ", all that is in sight" if len(boxes) < how_many else ""
        print(f"3/4 a box around each of {', '.join(boxes)}{whole}")
        answer = audience.call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=prompts))
        if answer.code == Code.OK:
            return boxes, stamp_ns(truth.header.stamp)
        if answer.code != Code.STALE:
            break
        print(f"    again in a newer image: {answer.sentence}")
        truth = audience.newest_image
        if not choose_boxes(truth, 1):
            break
    raise sam2.Sam2Error(f"the tracker refused the prompts: {Code(answer.code).name}: {answer.sentence}")


def choose_boxes(truth: TrackArray, how_many: int) -> dict[str, tuple[float, float, float, float]]:
    """(x0, y0, x1, y1) pixels by id, around each of the largest objects in view."""
    largest = sorted((track for track in truth.tracks if track.area), key=lambda track: -track.area)[:how_many]
    boxes = {}
    for track in sorted(largest, key=lambda track: track.label):
        box = track.mask
        boxes[track.object_id] = float(box.x), float(box.y), float(box.x + box.width), float(box.y + box.height)
    return boxes


def _draw(
    args: argparse.Namespace, audience: Audience, results: list, run: demo_score.Score, prompted: tuple[dict, int]
) -> list[str]:
    """Makes PICTURES; returns those that could be written."""
    with Film.open(args.out / "camera.mp4", args.rate) as seen:  # what the camera saw
        for picture in audience.images():
            check_signals()
            seen.write_picture(picture)
    rate = max(0.1, round(args.rate * len(results) / args.frames, 1))  # so that the film plays in real time
    with Film.open(args.out / "demo.mp4", rate) as film:
        for picture in demo_picture.film(results, audience.image, args.width):
            check_signals()
            film.write_picture(picture)
    sheet = args.out / "demo.png"
    with part_of(sheet) as part:
        picture = demo_picture.sheet(results, run, audience.image, *prompted)  # (H, W, 3)
        is_there = put_in_place(part, sheet, write_picture(part, picture), "sheet")
    written = film.is_written, is_there, seen.is_written
    return [name for name, is_written in zip(PICTURES, written, strict=True) if is_written]


if __name__ == "__main__":
    sys.exit(main())
