"""`sam2_ros objects`: lists, watches, removes, saves and restores the objects that a running node tracks.

Knows the node's services and its visibility topic, and nothing behind them.
"""

import argparse
import sys

from rclpy.time import Time
from std_srvs.srv import Trigger

from sam2_ros.msg import Track, Visibility, VisibilityArray
from sam2_ros.node_client import SILENT_S, NoAnswer, NodeClient, NodeRefused, add_arguments, agreed, connect
from sam2_ros.readable import readable
from sam2_ros.requests import Code
from sam2_ros.srv import ListObjects, RemoveObjects, RestoreObjects, SaveObjects, SetTarget

STATES = {Track.VISIBLE: "visible", Track.OCCLUDED: "occluded", Track.LOST: "lost", Track.INVALID: "invalid"}
OLD_S = 2.0  # a result older than this is out of date, unless the camera is very slow
ROW = "{:>5}  {:<16} {:<12} {:<9} {:>8}  {:<24} {:>8}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises SystemExit, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="sam2_ros objects", description="Lists, watches, removes, saves or restores what a running node tracks.",
        epilog="examples: sam2_ros objects;  sam2_ros objects --watch;  sam2_ros objects --remove cup",
    )  # fmt: skip
    parser.add_argument("ids", nargs="*", metavar="ID", help="which objects; none = all of them")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--watch", action="store_true", help="a line per object added, removed or changed, until Ctrl-C")
    what.add_argument("--remove", action="store_true", help="forget the named objects")
    what.add_argument("--reset", action="store_true", help="forget all objects")
    what.add_argument("--target", action="store_true", help="show this object on ~/target_mask; no ID = lowest label")
    what.add_argument(
        "--save", metavar="NAME", help="save the objects' memories on the node's disk; replaces an older NAME"
    )
    what.add_argument("--restore", metavar="NAME", help="track again what was saved under this name")
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.remove and not args.ids:
        parser.error("--remove: expected the ids of the objects; --reset forgets all of them")
    if args.reset and args.ids:
        parser.error("--reset forgets all objects and takes no ids; --remove forgets those named")
    if args.target and len(args.ids) > 1:
        parser.error(f"--target: expected one id, got {len(args.ids)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 = done, 1 = the node refused, 2 = it did not answer."""
    args = parse(argv)
    try:
        with connect(args.node, args.timeout) as client:
            if args.watch:
                return watch(client, set(args.ids))
            print(do(client, args))
    except (NodeRefused, NoAnswer) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def do(client: NodeClient, args: argparse.Namespace) -> str:
    """Carries out the command and returns the text to print. Raises NodeRefused, NoAnswer."""
    ids = args.ids
    if args.remove:
        answer = client.call(RemoveObjects, "remove_objects", RemoveObjects.Request(object_ids=ids))
        removed = ", ".join(readable(name) for name in dict.fromkeys(ids) if name not in answer.unknown_ids)
        if answer.code == Code.UNKNOWN_OBJECT and removed:
            raise NodeRefused(f"removed {removed}; {answer.sentence}")
        agreed(answer)
        return f"removed {removed}"
    if args.reset:
        answer = client.call(Trigger, "reset", Trigger.Request())
        if not answer.success:
            raise NodeRefused(answer.message)
        return "all objects are forgotten"
    if args.target:
        agreed(client.call(SetTarget, "set_target", SetTarget.Request(object_id="".join(ids))))
        return f"the target is {readable(ids[0]) if ids else 'the object with the lowest label'}"
    if args.save is not None:
        kept = agreed(client.call(SaveObjects, "save", SaveObjects.Request(name=args.save, object_ids=ids)))
        return f"saved {', '.join(map(readable, kept.object_ids))} in {kept.path}"
    if args.restore is not None:
        request = RestoreObjects.Request(name=args.restore, object_ids=ids)
        back = agreed(client.call(RestoreObjects, "restore", request)).object_ids
        return f"tracking {', '.join(map(readable, back))} again, from the next image on"
    answer = agreed(client.call(ListObjects, "list_objects", ListObjects.Request()))
    listed = answer.objects
    if unknown := sorted(set(ids) - {track.object_id for track in listed}):
        said = f"UNKNOWN_OBJECT: not tracked: {', '.join(map(readable, unknown))}"
        raise NodeRefused(with_waiting(said, answer, "; "))
    shown = [track for track in listed if not ids or track.object_id in ids]
    said = table(shown) if shown or not answer.sentence else ""
    if listed and answer.age > OLD_S:
        said += f"\nthat is {answer.age:.1f} s old, and no newer result came: `sam2_ros status` says why"
    return with_waiting(said, answer, "\n")


def with_waiting(said: str, answer: ListObjects.Response, between: str) -> str:
    """Appends the sentence about restored objects that wait for an image, if there are any."""
    return between.join(filter(None, (said, answer.sentence)))


def table(tracks: list[Track]) -> str:
    """A header line and one line for each track."""
    if not tracks:
        return "nothing is tracked"
    lines = [ROW.format("label", "object", "class", "state", "presence", "box x, y, width x height", "pixels")]
    for track in tracks:
        box = track.box
        place = f"{box.x_offset}, {box.y_offset}, {box.width} x {box.height}" if track.area else "-"
        state, presence = STATES[track.state], f"{track.presence:.2f}"
        name, kind = readable(track.object_id), readable(track.class_name)
        lines.append(ROW.format(track.label, name, kind, state, presence, place, track.area))
    return "\n".join(line.rstrip() for line in lines)


def watch(client: NodeClient, ids: set[str]) -> int:
    """Prints changes until Ctrl-C. Raises NoAnswer if there is no node to watch."""
    answer = client.call(ListObjects, "list_objects", ListObjects.Request())
    listed = {track.object_id for track in answer.objects}
    if not (listed & ids if ids else listed):
        missing = f"not tracked yet: {', '.join(sorted(ids)) or 'anything'}; waiting"
        print(with_waiting(missing, answer, "; "), flush=True)
    known: dict[str, int] = {}  # state by object id

    def fall_silent() -> str:
        known.clear()  # everything is printed again when results are back
        return f"no result of {client.name} for {SILENT_S:g} s; `sam2_ros status` says why"

    topic = f"{client.name}/visibility"
    client.watch(VisibilityArray, topic, lambda message: changes(known, message, ids), fall_silent)
    return 0


def changes(known: dict[str, int], message: VisibilityArray, ids: set[str]) -> list[str]:
    """A line for each change since `known` (state by object id), which is updated. ids: of the objects, none = all."""
    at = f"{Time.from_msg(message.header.stamp).nanoseconds / 1e9:.3f}"
    now: dict[str, Visibility] = {one.object_id: one for one in message.objects if not ids or one.object_id in ids}
    lines = [f"{at}  {readable(name)}: removed" for name in known if name not in now]
    for name, one in now.items():
        if known.get(name) != one.state:
            lines.append(f"{at}  {readable(name)}: {STATES[one.state]}, presence {one.presence:.2f}")
    known.clear()
    known.update({name: one.state for name, one in now.items()})
    return lines


if __name__ == "__main__":
    sys.exit(main())
