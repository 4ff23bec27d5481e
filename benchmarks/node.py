"""The node's overhead: the time from an image's callback to its published results, minus the tracker's step.

    python benchmarks/node.py [--model nano] [--images 200] [--rate 5] [--outputs tracks visibility label_mask]

Starts the node in its own process, feeds it images over DDS and reads the node's own counters from /diagnostics.
`--model fake` uses the tests' tracker, whose squares cost nothing. Prints one line per image size and writes them to
`benchmarks/results/node_<model>.md`; with another number of images than the default, only to `--out`.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = 200
SIZES_HW = ((480, 640), (720, 1280))
TARGET_MS = {480: 4.0, 720: 10.0}
KINDS = {"tracks": "TrackArray", "visibility": "VisibilityArray"}


def main() -> int:
    sys.path[:0] = [str(ROOT), str(ROOT / "test")]
    args = parse()
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    from sam2_ros import fast_dds

    os.environ.setdefault(fast_dds.PROFILES, str(ROOT / "config" / "fastdds_shm.xml"))
    results = [measure(args, size_hw) for size_hw in SIZES_HW]
    lines = "".join(f"    {line}\n" for line, _ in results)
    if out := args.out or (RESULTS / f"node_{args.model}.md" if args.images == IMAGES else None):
        head = f"{args.model}, three objects, {args.rate:g} images per second, {os.cpu_count()} cores; medians."
        out.write_text(f"{head}\n\n{lines}")
    return 0 if all(ok for _, ok in results) else 1


def parse() -> argparse.Namespace:
    from benchmarks.arguments import model_name, positive, whole

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model",
        type=lambda name: name if name == "fake" else model_name(name),
        default="nano",
        help="a model, or 'fake'",
    )
    parser.add_argument("--images", type=whole, default=IMAGES, help="images per size")
    parser.add_argument(
        "--rate", type=positive, default=5.0, help="images per second; too many for the node make images wait"
    )
    parser.add_argument("--outputs", nargs="*", default=["tracks", "visibility", "label_mask"])
    parser.add_argument("--out", type=Path, help=f"a file for the results (default: none, unless of {IMAGES} images)")
    return parser.parse_args()


def measure(args: argparse.Namespace, size_hw: tuple[int, int]) -> tuple[str, bool]:
    """Measures one image size; returns a line of results, and whether the overhead is within its target."""
    from ros_rig import children_path

    environment = {**os.environ, "PYTHONPATH": children_path()}
    fake = args.model == "fake"
    script = [str(ROOT / "test" / "fake_node.py"), "{}"] if fake else ["-m", "sam2_ros.main"]
    ros = [] if fake else ["--ros-args", "-p", f"model:={args.model}"]
    node = subprocess.Popen([sys.executable, *script, *ros], env=environment)
    try:
        values = feed(args, size_hw)
    finally:
        node.send_signal(signal.SIGINT)
        node.wait(timeout=30)
    age_ms, step_ms = (1000 * float(values[key]) for key in ("age p50 s", "network p50 s"))
    overhead_ms, target_ms = age_ms - step_ms, TARGET_MS[size_hw[0]]
    line = (
        f"{size_hw[1]}x{size_hw[0]}  {values['processed']} images  age {age_ms:.1f} ms  network {step_ms:.1f} ms  "
        f"overhead {overhead_ms:.1f} ms (target {target_ms:g} ms)"
    )
    print(line, flush=True)
    return line, overhead_ms <= target_ms


def feed(args: argparse.Namespace, size_hw: tuple[int, int]) -> dict[str, str]:
    """Publishes images with three prompted objects; returns the values of the node's "tracking" status."""
    from ros_rig import Rig
    from sensor_msgs.msg import Image

    import sam2_ros.msg
    from sam2_ros.msg import Prompt
    from sam2_ros.srv import AddObjects

    rig = Rig()
    camera, said = rig.camera(), rig.diagnostics()
    camera.wait_for_subscriber()
    heard = [rig.collect(getattr(sam2_ros.msg, KINDS.get(o, ""), Image), f"/sam2/{o}", 5) for o in args.outputs]
    places = [(size_hw[1] * x, size_hw[0] * 0.5) for x in (0.2, 0.5, 0.8)]
    request = AddObjects.Request(prompts=[Prompt(points_xy=list(xy), point_labels=[1]) for xy in places])
    number, code = 0, None
    while code != 0:
        answer = rig.start_call(AddObjects, "/sam2/add_objects", request)
        number = camera.publish_until(answer.done, first=number, period_s=1 / args.rate, size_hw=size_hw)
        code = answer.result().code
    last = number + args.images
    message = camera.message(number, size_hw=size_hw)  # made once: the camera's own cost is not the node's
    for n in range(number, last):
        due = time.monotonic() + 1 / args.rate
        message.header.stamp = camera.message(n, size_hw=(16, 16)).header.stamp
        camera.publish_message(message)
        while time.monotonic() < due:
            rig.executor.spin_once(timeout_sec=max(due - time.monotonic(), 0))
    for messages in (said, *heard):
        messages.clear()
    rig.until(lambda: said)
    status = next(s for s in said[-1].status if s.name.endswith("tracking"))
    rig.close()
    return {pair.key: pair.value for pair in status.values}


if __name__ == "__main__":
    sys.exit(main())
