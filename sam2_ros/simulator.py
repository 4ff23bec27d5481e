"""`sam2_ros simulate`: a camera node that shows the synthetic world and publishes its ground truth.

Publishes image, depth/image and camera_info like a camera driver, and the truth on ~/ground_truth. Knows `sam2.World`
and messages. Does not know the tracker.
"""

import argparse
import signal
import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

import sam2
from sam2_ros import fast_dds
from sam2_ros.image_out import image_message
from sam2_ros.log_files import log_arguments
from sam2_ros.msg import Track, TrackArray
from sam2_ros.params import Settings
from sam2_ros.track_out import set_place

FRAME_ID = "camera_optical_frame"
SLOWEST, FASTEST = 0.001, 1000  # images per second
LONGEST_STILL_S = 3600
MOST_PIXELS = Settings.max_pixels  # the node refuses more
DESCRIPTION = """\
A camera that publishes a synthetic world with ground truth.

topics: /image (rgb8), /depth/image (32FC1, metres), /camera_info, and the truth about each object:
/camera/ground_truth (sam2_ros/TrackArray), /camera/ground_truth/label_mask (mono8).
"""


class Simulator(Node):
    """Publishes one frame of `world` per period; frame t depends only on t, not on the rate.

    world: has `frame(t)`. frames: how many to publish, 0 = for ever. wait: how many subscribers of the image to wait
    for, so that none misses frame 0. still: how many images repeat frame 0 before things move. kwargs: for `Node`.
    In the ground truth the object with label 1 has the id "object_1", and so on. `DESCRIPTION` has the topics.
    """

    def __init__(
        self, world: "sam2.World", rate: float, frames: int = 0, wait: int = 0, still: int = 0, **kwargs: Any
    ) -> None:
        super().__init__("camera", **kwargs)
        self.done = False
        self._world, self._frames, self._wait, self._still, self._t = world, frames, wait, still, 0
        self._last_seen: dict[int, tuple[int, Header]] = {}  # frame and header in which a label was last visible
        qos = QoSProfile(depth=2)  # reliable: best effort loses large images on default transports
        self._image = self.create_publisher(Image, "image", qos)
        self._depth = self.create_publisher(Image, "depth/image", qos)
        self._info = self.create_publisher(CameraInfo, "camera_info", qos)
        self._truth = self.create_publisher(TrackArray, "~/ground_truth", QoSProfile(depth=100))
        self._labels = self.create_publisher(Image, "~/ground_truth/label_mask", QoSProfile(depth=100))
        self.create_timer(1 / rate, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_timer(self) -> None:
        if self.done or self._image.get_subscription_count() < self._wait:
            return
        self._wait = 0
        self._publish(self._world.frame(max(0, self._t - self._still)))
        self._t += 1
        self.done = self._t == self._frames

    def flush(self, timeout_s: float) -> None:
        """Waits until the subscribers have the last messages; timeout_s: for all of them together."""
        end = time.monotonic() + timeout_s
        for publisher in (self._image, self._depth, self._info, self._truth, self._labels):
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))

    def _publish(self, frame: "sam2.WorldFrame") -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=FRAME_ID)
        height, width = frame.rgb.shape[:2]
        self._image.publish(image_message(header, frame.rgb, "rgb8"))
        self._info.publish(camera_info(header, frame.intrinsics, (height, width)))
        if self._depth.get_subscription_count():
            depth = image_message(header, frame.depth_m.view(np.uint8).reshape(height, 4 * width), "32FC1")
            depth.width = width
            self._depth.publish(depth)
        if self._labels.get_subscription_count():
            numbers = np.arange(1, len(frame.masks) + 1, dtype=np.uint8)[:, None, None]
            labels = (frame.masks * numbers).sum(axis=0, dtype=np.uint8)  # (H, W); the masks are disjoint
            self._labels.publish(image_message(header, labels, "mono8"))
        self._truth.publish(TrackArray(header=header, tracks=self._tracks(header, frame)))

    def _tracks(self, header: Header, frame: "sam2.WorldFrame") -> list[Track]:
        tracks = []
        for label, (mask, visible) in enumerate(zip(frame.masks, frame.visible, strict=True), start=1):
            if visible:
                self._last_seen[label] = self._t, header
            seen_at, seen = self._last_seen.get(label, (-1, Header()))  # -1: never in view
            track = Track(
                object_id=f"object_{label}", label=label, state=Track.VISIBLE if visible else Track.OCCLUDED,
                object_score=10.0 if visible else -10.0, presence=float(visible), predicted_iou=1.0,
                last_seen=seen.stamp, frames_since_seen=self._t - seen_at,
            )  # fmt: skip
            track.mask.image_height, track.mask.image_width = mask.shape
            box = sam2.bounding_box(mask)
            if box:
                set_place(track, mask, box)
            tracks.append(track)
        return tracks


def camera_info(header: Header, intrinsics: np.ndarray, size_hw: tuple[int, int]) -> CameraInfo:
    """An ideal pinhole. intrinsics: (3, 3) pixels."""
    projection = np.hstack([intrinsics, np.zeros((3, 1))])  # (3, 4)
    return CameraInfo(
        header=header, height=size_hw[0], width=size_hw[1], distortion_model="plumb_bob", d=[0.0] * 5,
        k=intrinsics.ravel(), r=np.eye(3).ravel(), p=projection.ravel(),
    )  # fmt: skip


def check_camera(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raises SystemExit, as argparse does, for a camera that is impossible or would exhaust the machine."""
    if not SLOWEST <= args.rate <= FASTEST:
        parser.error(f"--rate: expected images per second, {SLOWEST} to {FASTEST}, got {args.rate:g}")
    for name in ("frames", "seed", "wait"):
        if getattr(args, name, 0) < 0:
            parser.error(f"--{name}: expected 0 or more, got {getattr(args, name)}")
    if min(args.width, args.height) < 32 or args.width * args.height > MOST_PIXELS:
        parser.error(
            f"--width, --height: expected at least 32 pixels each and at most {MOST_PIXELS} together, got "
            f"{args.width}x{args.height}"
        )


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and those of ROS. Raises SystemExit, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="sam2_ros simulate", formatter_class=argparse.RawDescriptionHelpFormatter, description=DESCRIPTION,
        epilog="ROS arguments go last: --ros-args -r image:=/front/image",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=7, help="seed of the world (default: %(default)s)")
    parser.add_argument("--width", type=int, default=640, help="pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, default=480, help="pixels (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=10.0, help="images per second (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=0, help="stop after this many; 0 = never (default: %(default)s)")
    parser.add_argument(
        "--wait", type=int, nargs="?", const=1, default=0, metavar="N", help="begin once N (1) subscribe to the image"
    )
    parser.add_argument(
        "--gentle", action="store_true", help="a friendlier world: nothing small, fast, alike or camouflaged"
    )
    parser.add_argument(
        "--still",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds at the start in which nothing moves (default: %(default)s)",
    )
    args, ros_args = parser.parse_known_args(argv)
    check_camera(parser, args)
    if not 0 <= args.still <= LONGEST_STILL_S:
        parser.error(f"--still: expected seconds, 0 to {LONGEST_STILL_S}, got {args.still:g}")
    if ros_args and ros_args[0] != "--ros-args":
        parser.error(f"unknown argument {ros_args[0]!r}; those of ROS come after --ros-args")
    return args, ros_args


def main(argv: list[str] | None = None) -> int:
    """Publishes until the frames are used up or a signal comes; returns 0."""
    args, ros_args = parse(argv)
    signals = []
    is_kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup ignores it
    for number in (signal.SIGINT, signal.SIGTERM, *(() if is_kept else (signal.SIGHUP,))):
        signal.signal(number, lambda number, frame: signals.append(number))
    fast_dds.make_room()
    rclpy.init(args=[*ros_args, *log_arguments()], signal_handler_options=SignalHandlerOptions.NO)
    world = (sam2.World.gentle if args.gentle else sam2.World)(args.seed, (args.height, args.width))
    node = Simulator(world, args.rate, args.frames, args.wait, round(args.still * args.rate))
    what = f"{args.width}x{args.height}, {args.rate:g} images/s, ROS_DOMAIN_ID {node.context.get_domain_id()}"
    print(f"publishing {node.resolve_topic_name('image')}: {what}", flush=True)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not (signals or node.done):
        executor.spin_once(timeout_sec=0.2)
    node.flush(timeout_s=5.0 if node.done else 0.0)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
