"""Three cameras, one model: is every camera served, how old are its results, and what does a stalled one change?

`python benchmarks/cameras.py` starts the node with three cameras, one object each, at 10 images per second each, stops
one of them for a while, and writes benchmarks/results/cameras.md. Ages are the node's own, from an image's arrival to
its published results, over the last 100 images.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "cameras.md"
NAMES = ("front", "left", "right")
STALLED = "right"
SIZE_HW = (480, 640)


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "test")]
    from benchmarks.arguments import model_name, positive

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=model_name, default="nano", help="a model (default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=10.0, help="images per second of each camera")
    parser.add_argument("--seconds", type=positive, default=15.0, help="of each phase (default: %(default)s)")
    args = parser.parse_args()
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    from sam2_ros import fast_dds

    os.environ.setdefault(fast_dds.PROFILES, str(ROOT / "config" / "fastdds_shm.xml"))
    cameras = "[" + ", ".join(NAMES) + "]"
    ros = ["--ros-args", "-p", f"model:={args.model}", "-p", f"cameras:={cameras}"]
    node = subprocess.Popen([sys.executable, "-m", "sam2_ros.main", *ros], cwd=ROOT)
    try:
        phases = measure(args)
    finally:
        node.send_signal(signal.SIGINT)
        node.wait(timeout=30)
    text = report(args, phases)
    RESULTS.write_text(text)
    print(text, end="")


def measure(args: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """By phase and camera: results per second; age p50 and p95, and network time p50, in milliseconds."""
    from ros_rig import FakeCamera, Rig, click

    from sam2_ros.srv import AddObjects

    rig = Rig()
    cameras = {name: FakeCamera(rig, True, f"{name}/image") for name in NAMES}
    said = rig.diagnostics()
    stream = Stream(rig, cameras, args.rate)
    for name, camera in cameras.items():
        camera.wait_for_subscriber()
        code = None
        while code != 0:
            request = AddObjects.Request(prompts=[click("thing", x=320.0, y=240.0)])
            answer = rig.start_call(AddObjects, f"/sam2/{name}/add_objects", request)
            stream.run(answer.done, NAMES)
            code = answer.result().code
    phases = {}
    for phase, running in (
        ("all three", NAMES), (f"{STALLED} stalled", [n for n in NAMES if n != STALLED]), ("all three again", NAMES),
    ):  # fmt: skip
        end = time.monotonic() + args.seconds
        stream.run(lambda end=end: time.monotonic() > end, running)
        said.clear()
        rig.until(lambda: said)
        phases[phase] = {name: figures(said[-1].status, name) for name in running}
    rig.close()
    return phases


class Stream:
    """Publishes for every camera at its rate, a third of a period apart."""

    def __init__(self, rig, cameras: dict, rate: float) -> None:
        self.rig, self.cameras, self.period_s = rig, cameras, 1 / rate
        self.messages = {name: camera.message(1, size_hw=SIZE_HW) for name, camera in cameras.items()}
        start = time.monotonic()
        self.due = {name: start + index * self.period_s / len(cameras) for index, name in enumerate(cameras)}

    def run(self, until, running) -> None:
        from sam2_ros.ros_time import time_message

        while not until():
            for name in running:
                if time.monotonic() >= self.due[name]:
                    self.due[name] = max(self.due[name] + self.period_s, time.monotonic() - self.period_s)
                    self.messages[name].header.stamp = time_message(time.time_ns())
                    self.cameras[name].publish_message(self.messages[name])
            self.rig.executor.spin_once(timeout_sec=0.002)


def figures(statuses, name: str) -> dict[str, float]:
    status = next(s for s in statuses if s.name.endswith(f"{name}: tracking"))
    values = {pair.key: pair.value for pair in status.values}
    return {
        "rate": float(values["published per second"]),
        "p50": 1000 * float(values["age p50 s"]),
        "p95": 1000 * float(values["age p95 s"]),
        "network": 1000 * float(values["network p50 s"]),
    }


def report(args: argparse.Namespace, phases: dict) -> str:
    lines = [
        "# Three cameras, one model",
        "",
        f"`python benchmarks/cameras.py --model {args.model} --rate {args.rate:g} --seconds {args.seconds:g}` on "
        f"{os.cpu_count()} cores that other work shares: 640x480, one object for each camera, a third of a period "
        "apart. Rates are over the last 100 results, so after the pause they count it.",
        "",
        "| phase | camera | results/s | age p50 | age p95 | network p50 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for phase, cameras in phases.items():
        for name, f in cameras.items():
            cells = f"{f['rate']:.1f}", f"{f['p50']:.0f} ms", f"{f['p95']:.0f} ms", f"{f['network']:.0f} ms"
            lines.append(f"| {phase} | {name} | {' | '.join(cells)} |")
    full, stalled, again = phases.values()
    for name in stalled:
        reference = (full[name]["p95"] + again[name]["p95"]) / 2
        change = stalled[name]["p95"] / reference - 1
        lines += ["", f"{name}: p95 age changes by {change:+.0%} while {STALLED} is stalled."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
