"""`sam2_ros prompt`: sends one click, box or mask to a running node and prints its answer.

Knows the node's services and nothing behind them.
"""

import argparse
import os
import sys
from contextlib import suppress
from functools import partial

import numpy as np
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from sam2_ros.arguments import path_argument
from sam2_ros.image_out import image_message
from sam2_ros.msg import Prompt, Track
from sam2_ros.node_client import NoAnswer, NodeClient, NodeRefused, add_arguments, agreed, connect
from sam2_ros.pictures import may_be_read, read_mask
from sam2_ros.readable import readable
from sam2_ros.requests import Code
from sam2_ros.ros_time import LAST_NS, time_message
from sam2_ros.srv import AddObjects, ListObjects


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises SystemExit, as argparse does, for a line that says nothing to track."""
    parser = argparse.ArgumentParser(
        prog="sam2_ros prompt",
        description="Tell a running node what to track. Coordinates are pixels of the camera image, from the top left.",
        epilog="examples: sam2_ros prompt --click 320 240 --id cup;  sam2_ros prompt --box 100 80 220 300;  "
        "sam2_ros prompt --id cup --not 400 250  (corrects a tracked cup: this pixel is not on it)",
    )
    add_pixels = partial(parser.add_argument, action="append", nargs=2, type=float, metavar=("X", "Y"), default=[])
    add_pixels("--click", help="a pixel on the object; may be given more than once")
    add_pixels("--not", dest="not_on", help="a pixel that is not on it")
    box = ("X0", "Y0", "X1", "Y1")
    parser.add_argument("--box", nargs=4, type=float, metavar=box, default=[], help="a box around it")
    parser.add_argument(
        "--mask", type=path_argument, help="image file of the camera image's size; not black = the object"
    )
    parser.add_argument("--id", default="", help="id of the object; left out or unknown = a new object")
    parser.add_argument("--class", default="", dest="class_name", help="class name of the object")
    parser.add_argument("--replace", action="store_true", help="forget the object's memory, start from this prompt")
    parser.add_argument(
        "--stamp", type=_stamp, default=0, metavar="NANOSECONDS", help="stamp of the prompted image; 0 = the next image"
    )
    parser.add_argument(
        "--newest", action="store_true", help="prompt the newest image so far: for a paused camera or bag"
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    if not (args.click or args.box or args.mask or (args.not_on and args.id)):
        parser.error("nothing to track: give --click, --box or --mask; --not alone corrects the object that --id names")
    if args.stamp and args.newest:
        parser.error("--stamp and --newest both say which image it was made on: give one of them")
    return args


def _stamp(given: str) -> int:
    with suppress(ValueError):
        if 0 <= int(given) <= LAST_NS:
            return int(given)
    raise argparse.ArgumentTypeError(f"expected nanoseconds, 0 to {LAST_NS}, got {given!r}")


def message(args: argparse.Namespace) -> Prompt:
    """The arguments as a message. Raises SystemExit if the mask's file cannot be read."""
    prompt = Prompt(
        object_id=args.id, class_name=args.class_name, box_xyxy=args.box,
        points_xy=[value for xy in [*args.click, *args.not_on] for value in xy],
        point_labels=[1] * len(args.click) + [0] * len(args.not_on),
        mode=Prompt.REPLACE if args.replace else Prompt.ADD,
    )  # fmt: skip
    prompt.header.stamp = time_message(args.stamp)
    if args.mask:
        mask = read_mask(args.mask)  # (H, W) bool
        if mask is None:
            problem = "got another" if os.path.isfile(args.mask) else "found none"
            problem = problem if may_be_read(args.mask) else "this user may not read it"
            sys.exit(f"sam2_ros prompt: {args.mask}: expected an image file, {problem}")
        prompt.mask = image_message(Header(), np.where(mask, 255, 0).astype(np.uint8), "mono8")
    return prompt


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 = the object is tracked now, 1 = the node refused, 2 = it did not answer."""
    args = parse(argv)
    prompt = message(args)
    try:
        with connect(args.node, args.timeout) as client:
            if args.newest:
                prompt.header.stamp = newest_stamp(client)
            request = AddObjects.Request(prompts=[prompt])
            camera_too = (Code.LOADING, Code.NO_IMAGE)  # asks again: node and camera may have just been started
            answer = agreed(client.call(AddObjects, "add_objects", request, camera_too))
            listed = []
            with suppress(NoAnswer):  # the object is tracked, whether or not it is heard how well
                listed = client.call(ListObjects, "list_objects", ListObjects.Request()).objects
    except (NodeRefused, NoAnswer) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    tracks = {track.object_id: track for track in listed}
    for name in answer.object_ids:
        print(f"tracking {readable(name)}{_how(tracks[name]) if name in tracks else ''}")
    return 0


def newest_stamp(client: NodeClient) -> Time:
    """Stamp of the newest image that the node has processed; 0, which means the next image, if there was none. Raises
    SystemExit if that image has no stamp."""
    newest = agreed(client.call(ListObjects, "list_objects", ListObjects.Request()))
    if newest.age >= 0 and newest.header.stamp == Time():
        sys.exit("sam2_ros prompt: --newest: expected images with a stamp, got one without; click on ~/click_point")
    return newest.header.stamp


def _how(track: Track) -> str:
    """What a track says of its object, for people."""
    if not track.area:
        lack = "no pixel is marked" if track.state == Track.VISIBLE else "it is not seen in the image"
        return f", but {lack} (presence {track.presence:.2f}): is that where it is?"
    box = track.box
    return (
        f": {track.area} pixels in {box.width}x{box.height} at ({box.x_offset}, {box.y_offset}), "
        f"presence {track.presence:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
