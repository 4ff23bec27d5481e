"""`sam2_ros demo`: a simulated camera, the tracking node and prompts by service, as processes that talk over DDS.

Starts the other two processes, draws a box around each thing in the camera's first image, collects what the node says
until the camera ends, and writes a table, demo.mp4, demo.png and camera.mp4. Knows topics and services like any user of
the node.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

import sam2
from sam2_ros import demo_picture, demo_score, fast_dds, image_in
from sam2_ros.children import Children
from sam2_ros.demo_score import Seen
from sam2_ros.handshake import Handshake
from sam2_ros.health import Level
from sam2_ros.msg import Prompt, TrackArray
from sam2_ros.replay_sink import Film
from sam2_ros.requests import Code
from sam2_ros.ros_time import stamp_ns
from sam2_ros.simulator import check_camera
from sam2_ros.srv import AddObjects, ListObjects

READY_S, ANSWER_S, LAST_RESULT_S = 180.0, 30.0, 5.0  # how long to wait before giving up
DISCOVERY_S = 2.0  # in which others are heard of, if there are any
ENOUGH_IOU, ENOUGH_VISIBILITY = 0.75, 0.9  # what the demonstration must reach to be one
PICTURES = "demo.mp4", "demo.png", "camera.mp4"

_signals: list[int] = []  # that came


class Interrupted(Exception):
    """A signal asked for the end."""


class Audience:
    """A node that sees what any user of the camera and the tracker can see, and keeps it.

    spool: an open file for the images, which would fill the memory.
    """

    def __init__(self, node: Node, executor: SingleThreadedExecutor, children: Children, spool) -> None:
        self.answers: list[tuple[TrackArray, int]] = []  # with the times (ns) they arrived at
        self.truths: list[TrackArray] = []
        self._node, self._executor, self._children, self._spool = node, executor, children, spool
        self._places: dict[int, tuple[int, tuple[int, int]]] = {}  # offset in the spool and (H, W), by stamp
        self._trouble = ""
        keep_all = QoSProfile(depth=100)
        node.create_subscription(TrackArray, "/sam2/tracks", self._on_tracks, keep_all)
        node.create_subscription(TrackArray, "/camera/ground_truth", self.truths.append, keep_all)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, keep_all)

    def find_rivals(self) -> None:
        """Raises sam2.Sam2Error if there is a tracker already: its objects are somebody's."""
        self.until(_in(DISCOVERY_S), READY_S, "the network")
        self._look_for_trackers(allowed=0)
        if self._trouble:
            raise sam2.Sam2Error(self._trouble)

    def _look_for_trackers(self, allowed: int) -> None:
        if self._node.count_publishers("/sam2/tracks") > allowed:  # its objects would be taken for those of the demo
            domain = os.environ["ROS_DOMAIN_ID"]
            self._trouble = f"another tracker publishes /sam2/tracks in ROS_DOMAIN_ID={domain}; choose another domain"

    def watch(self) -> None:
        """Looks at the images too."""
        self._node.create_subscription(Image, "/image", self._on_image, QoSProfile(depth=20))

    def until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Spins until it is true. Raises sam2.Sam2Error if that takes too long, or a process or the tracker fails."""
        deadline = time.monotonic() + within_s
        while not condition():
            _check_signals()
            self._children.check()
            if self._trouble:
                raise sam2.Sam2Error(self._trouble)
            if time.monotonic() > deadline:
                raise sam2.Sam2Error(f"waited {within_s:.0f} s for {what} in vain; see the *.log files")
            self._executor.spin_once(timeout_sec=0.1)

    def call(self, kind, name: str, request):
        """The response of a service."""
        client = self._node.create_client(kind, name)
        handshake = Handshake(self._node, client)
        self.until(lambda: client.service_is_ready() and handshake.done(), READY_S, f"the service {name}")
        handshake.close()
        future = client.call_async(request)
        self.until(future.done, ANSWER_S, f"an answer of {name}")
        self._node.destroy_client(client)
        return future.result()

    @property
    def first_image(self) -> TrackArray | None:
        """The truth about the first image that was received."""
        return next((truth for truth in self.truths if stamp_ns(truth.header.stamp) in self._places), None)

    def image(self, stamp: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB; grey if the image itself did not get here."""
        offset, (height, width) = self._places.get(stamp, next(iter(self._places.values())))
        if stamp not in self._places:
            return np.full((height, width, 3), 96, np.uint8)
        self._spool.seek(offset)
        return np.frombuffer(self._spool.read(height * width * 3), np.uint8).reshape(height, width, 3)

    def images(self) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB: all that got here, as the camera sent them."""
        return map(self.image, sorted(self._places))

    def _on_image(self, msg: Image) -> None:
        rgb = image_in.to_rgb(msg)  # (H, W, 3)
        self._places[stamp_ns(msg.header.stamp)] = self._spool.seek(0, os.SEEK_END), rgb.shape[:2]
        self._spool.write(np.ascontiguousarray(rgb))

    def _on_tracks(self, msg: TrackArray) -> None:
        self.answers.append((msg, time.time_ns()))

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        self._look_for_trackers(allowed=1)
        for status in msg.status:
            if status.name.endswith(": tracking") and status.level == bytes([Level.ERROR]):
                self._trouble = status.message


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises SystemExit, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="sam2_ros demo",
        description="A simulated camera, the tracker and prompts by service, as separate processes over ROS 2. Puts "
        "a box around each thing in the first image; ends with a table, demo.mp4, demo.png and camera.mp4.",
        epilog="Exit code 0: the tracker was as good as it must be. 1: it was not, or something failed. While it runs, "
        "`ros2 topic echo /sam2/visibility` works with the ROS_DOMAIN_ID that it prints.",
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results (%(default)s)")
    parser.add_argument("--frames", type=int, default=240, help="images to look at (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=12.0, help="images per second (default: %(default)s)")
    parser.add_argument("--width", type=int, default=640, help="pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, default=480, help="pixels (default: %(default)s)")
    parser.add_argument(
        "--seed",
        type=int,
        default=1000036,
        help="which world; 1000000 and above were never trained on (default: %(default)s)",
    )
    parser.add_argument("--full", action="store_true", help="the world of training and evaluation, not a gentle one")
    parser.add_argument(
        "--objects", type=int, default=3, help="how many of the largest to track (default: %(default)s)"
    )
    parser.add_argument("--model", default="nano", help="nano, tiny, small, base_plus, large (default: %(default)s)")
    parser.add_argument("--checkpoint", default="", help="weights file; without it the model's own")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.frames < 20 or args.objects < 1:
        parser.error("expected --frames of at least 20 and --objects of at least 1")
    check_camera(parser, args)
    return args


def main(argv: list[str] | None = None) -> int:
    """0 if it went well, 1 if the tracker was not good enough, 130 if interrupted; raises sam2.Sam2Error otherwise."""
    args = parse(argv)
    _signals.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Only noted: raised in the middle of a callback, the exception would be swallowed.
        signal.signal(number, lambda number, frame: _signals.append(number))
    try:
        _surroundings()
        args.out.mkdir(parents=True, exist_ok=True)
        for name in PICTURES:  # of an earlier demo: nobody must take them for this one's
            (args.out / name).unlink(missing_ok=True)
        return _run(args)
    except Interrupted:
        print("sam2_ros demo: interrupted", file=sys.stderr)
        return 130


def _check_signals() -> None:
    """Raises Interrupted once a signal came."""
    if _signals:
        raise Interrupted


def _surroundings() -> None:
    """Sets what this process and its children inherit: a domain of its own, this machine only, room for images."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    fast_dds.make_room()


def _run(args: argparse.Namespace) -> int:
    print(f"results go to {args.out}/, ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}")
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        with tempfile.TemporaryFile() as spool:
            node, executor = rclpy.create_node("demo"), SingleThreadedExecutor()
            executor.add_node(node)
            with Children(args.out) as children:
                audience = Audience(node, executor, children, spool)
                boxes, prompted_ns = _perform(args, audience, children)
            executor.shutdown()
            node.destroy_node()
            results = demo_score.pair_up(audience.answers, audience.truths)
            run = demo_score.score(results, args.frames, len(audience.answers), prompted_ns)
            print(f"\n{demo_score.table(run)}\n")
            _draw(args, audience, results, run, (boxes, prompted_ns))
    finally:
        rclpy.shutdown()
    print(f"wrote {args.out}/demo.mp4, demo.png, and camera.mp4, what the camera saw")
    if run.mean_iou < ENOUGH_IOU or run.visibility < ENOUGH_VISIBILITY:
        print(
            f"sam2_ros demo: expected a mean IoU of {ENOUGH_IOU} and a visibility accuracy of {ENOUGH_VISIBILITY:.0%} "
            f"at least, got {run.mean_iou:.3f} and {run.visibility:.1%}", file=sys.stderr,
        )  # fmt: skip
        return 1
    return 0


def _perform(args: argparse.Namespace, audience: Audience, children: Children) -> tuple[dict, int]:
    """Everything that happens live; returns the boxes, and the stamp of the image they were made on."""
    audience.find_rivals()
    print(f"1/4 starting the tracker with {args.model}")
    settings = {"model": args.model, "checkpoint": args.checkpoint, "device": args.device}
    given = [word for name, value in settings.items() if value for word in ("-p", f"{name}:={value}")]
    children.start("tracker", "track", "--ros-args", *given)
    ready = (Code.OK, Code.NO_IMAGE)
    while (answer := audience.call(ListObjects, "/sam2/list_objects", ListObjects.Request())).code not in ready:
        audience.until(_in(0.2), READY_S, f"the tracker ({answer.sentence})")
    world = "the full world" if args.full else "a gentle world: nothing small, fast, alike or camouflaged"
    print(f"2/4 starting the camera: {args.frames} images of {args.width}x{args.height}, {args.rate:g} per second")
    print(f"    it shows {world}")
    audience.watch()
    options = {"seed": args.seed, "width": args.width, "height": args.height, "rate": args.rate, "frames": args.frames}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words += [] if args.full else ["--gentle"]
    camera = children.start("camera", "simulate", "--wait", "2", *words)  # for the tracker and for us
    audience.until(lambda: audience.first_image is not None, READY_S, "the first image")
    truth = audience.first_image
    boxes = choose_boxes(truth, args.objects)
    prompts = [Prompt(header=truth.header, object_id=name, box_xyxy=box) for name, box in boxes.items()]
    whole = ", all that is in sight" if len(boxes) < args.objects else ""
    print(f"3/4 a box around each of {', '.join(boxes)}{whole}")
    answer = audience.call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=prompts))
    if answer.code != Code.OK:
        raise sam2.Sam2Error(f"the tracker refused the prompts: {Code(answer.code).name}: {answer.sentence}")
    print("4/4 tracking")
    audience.until(lambda: camera.poll() == 0, args.frames / args.rate * 3 + READY_S, "the last image")
    last = _in(LAST_RESULT_S)
    newest = audience.truths[-1].header
    audience.until(lambda: last() or audience.answers[-1][0].header == newest, ANSWER_S, "the last result")
    return boxes, stamp_ns(truth.header.stamp)


def _in(seconds: float) -> Callable[[], bool]:
    """A condition that becomes true so much later."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def choose_boxes(truth: TrackArray, how_many: int) -> dict[str, tuple[float, float, float, float]]:
    """(x0, y0, x1, y1) pixels by id, around each of the largest objects in view."""
    largest = sorted((track for track in truth.tracks if track.area), key=lambda track: -track.area)[:how_many]
    boxes = {}
    for track in sorted(largest, key=lambda track: track.label):
        x, y, width, height = Seen(track).box_xywh
        boxes[track.object_id] = float(x), float(y), float(x + width), float(y + height)
    return boxes


def _draw(args: argparse.Namespace, audience: Audience, results: list, run, prompted: tuple[dict, int]) -> None:
    """camera.mp4, demo.mp4 and demo.png."""
    with Film.open(args.out / "camera.mp4", args.rate) as film:
        for picture in audience.images():
            _check_signals()
            film.write_picture(picture)
    rate = max(0.1, round(args.rate * len(results) / args.frames, 1))  # it lasts as long as what it shows
    with Film.open(args.out / "demo.mp4", rate) as film:
        for picture in demo_picture.film(results, audience.image, args.width):
            _check_signals()
            film.write_picture(picture)
    sheet = demo_picture.sheet(results, run, audience.image, *prompted)  # (H, W, 3)
    cv2.imwrite(str(args.out / "demo.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    sys.exit(main())
