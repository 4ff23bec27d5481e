"""`make soak`: runs the real node with nano for a long time, with faults every 30 s, and checks the gates.

Half the faults are the camera's (`FaultSchedule`), half are attacks on the node (`soak_attacks.py`). The network also
fails at random (`soak_node.py`), and the clip loops like a bag, so that the clock jumps back. In the first tenth the
attacks come eight times as often, and one more object is tracked: memory is flat from the busiest moment on, so that
must come first. Writes samples.csv, node.log and the files of `soak_report.py` into a folder; exits with 1 if a gate is
broken.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import conftest  # noqa: F401  isolation: a domain of our own
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from fakes import FaultSchedule
from proc_watch import Watch
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import QoSProfile
from ros_rig import Rig, children_path
from sensor_msgs.msg import Image
from soak_attacks import OBJECTS, Attacks
from soak_report import FIELDS, report
from std_msgs.msg import Header

import sam2
from sam2_ros.image_out import image_message
from sam2_ros.msg import PromptResult, TrackArray
from sam2_ros.ros_time import time_message

HERE = Path(__file__).parent
SIZE_HW = (240, 320)
CLIP = 100  # rendered images, played forwards and backwards
LOOP = 600  # images in the bag, which then begins again with its first stamp
SAMPLE_S = 5.0
SETTLING, HASTE = 0.1, 8  # share of the run with more frequent attacks, and how much more frequent
SETTLE_S = 5.0  # after the last image, for the node to finish with what it has


class Soak:
    """The ROS side: camera, listener, and the samples."""

    def __init__(self, options: argparse.Namespace, out: Path) -> None:
        self.rig, self.options, self.out = Rig(), options, out
        world = sam2.World(options.seed, SIZE_HW)
        self.clip = [world.frame(t) for t in range(CLIP)]
        images = int(options.minutes * 60 * options.rate) + 1
        every = int(options.every * options.rate)
        self.schedule = FaultSchedule.drawn(options.seed, images, every, every // 2)
        self.index = self.sent = self.results = self.prompt_results = self.disorder = 0
        self.repeats = self.prompts_done = 0
        self.ages: list[float] = []
        self.tracked: list[str] = []
        self.counts: dict[str, str] = {}  # newest values of the diagnostics
        self._sent_at: dict[int, float] = {}  # by stamp, of the newest loop
        self._newest_ns, self._last = 0, {"processed": 0, "cpu_s": 0.0}
        self.publisher = None
        self.offer(reliable=True)
        self.node = self._start_node()
        self.watch = Watch(self.node.pid)
        node = self.rig.node
        node.create_subscription(TrackArray, "/sam2/tracks", self._on_tracks, QoSProfile(depth=100))
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=10))
        node.create_subscription(PromptResult, "/sam2/prompt_result", self._on_prompt_result, QoSProfile(depth=100))
        self.attacks = Attacks(self)

    def _start_node(self) -> subprocess.Popen:
        tracker = {"seed": self.options.seed, "one_in": 300, "every_s": 15, "fake": self.options.fake}
        tracker["memory"] = str(self.out / "memory.csv")
        command = [sys.executable, str(HERE / "soak_node.py"), json.dumps(tracker), "--ros-args", "-p", "device:=cpu"]
        environment = {**os.environ, "PYTHONPATH": children_path()}
        self._log = open(self.out / "node.log", "w")
        return subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)

    def offer(self, reliable: bool) -> None:
        """Creates the camera's publisher, in place of the one before."""
        if self.publisher is not None:
            self.rig.node.destroy_publisher(self.publisher)
        qos = QoSProfile(depth=5, reliability=1 if reliable else 2)
        events = PublisherEventCallbacks(use_default_callbacks=False)
        self.publisher = self.rig.node.create_publisher(Image, "image", qos, event_callbacks=events)

    def truth(self):
        """The current clean frame; the clip plays forwards and backwards, so that it does not jump."""
        at = self.index % (2 * CLIP)
        return self.clip[at if at < CLIP else 2 * CLIP - 1 - at]

    def _on_tracks(self, msg: TrackArray) -> None:
        stamp_ns = msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec
        sent_at = self._sent_at.get(stamp_ns)
        if sent_at is None:  # it was never sent
            self.disorder += 1
            return
        if stamp_ns == self._newest_ns:  # a second result, which a prompt may have if no further image comes
            self.repeats += 1
            return
        if stamp_ns < self._newest_ns and self._newest_ns - stamp_ns < LOOP // 2 * 10**9 / self.options.rate:
            self.disorder += 1
        self._newest_ns = stamp_ns
        self.results += 1
        self.ages.append(time.monotonic() - sent_at)
        self.tracked = [track.object_id for track in msg.tracks]

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            self.counts.update({pair.key: pair.value for pair in status.values})

    def _on_prompt_result(self, msg: PromptResult) -> None:
        self.prompt_results += 1
        self.prompts_done += msg.code == PromptResult.OK

    def publish(self) -> None:
        """Publishes the next image, or the images by which the schedule replaces it."""
        stamp_ns = 10**12 + int((self.index % LOOP) * 1e9 / self.options.rate)
        for frame in self.schedule.apply(self.index, sam2.Frame(self.truth().rgb, stamp_ns)):
            msg = image_message(Header(frame_id="camera"), frame.rgb, "rgb8")
            msg.header.stamp = time_message(frame.stamp_ns)
            self._sent_at[frame.stamp_ns] = time.monotonic()
            self.publisher.publish(self.attacks.spoil(msg))
            self.sent += 1
        self.index += 1

    def sample(self, began: float) -> dict:
        now, processed = self.watch.read(), int(self.counts.get("processed", 0))
        images = processed - self._last["processed"]
        cpu_ms = 1000 * (now["cpu_s"] - self._last["cpu_s"]) / images if images > 0 else np.nan
        self._last = {"processed": processed, "cpu_s": now.pop("cpu_s")}
        ages, self.ages = self.ages, []
        memory = self.out / "memory.csv"
        counted = memory.read_text().split()[-1].split(",") if memory.exists() else ["nan"] * 4
        faults = [self.schedule.kind(self.index), self.attacks.name]
        return now | {
            "t_s": time.monotonic() - began, "tensors": counted[0], "tensor_bytes": counted[1], "in_use_mb": counted[2],
            "blocks": counted[3], "age_p50_s": np.percentile(ages, 50) if ages else np.nan, "results": len(ages),
            "age_p99_s": np.percentile(ages, 99) if ages else np.nan, "cpu_ms_per_image": cpu_ms,
            "sent": self.sent, "received": self.counts.get("received", 0), "processed": processed,
            "dropped": self.counts.get("dropped for a newer one", 0), "objects": len(self.tracked),
            "load": os.getloadavg()[0], "fault": "+".join(filter(None, faults)),
        }  # fmt: skip

    def run(self) -> list[dict]:
        """Runs until the time is over or the node ends; returns the samples."""
        self.rig.until(lambda: self.publisher.get_subscription_count() > 0)
        self.attacks.connect()
        began, samples = time.monotonic(), []
        due_image = due_sample = began
        due_attack = began + self.options.every / 2
        settled = began + 60 * self.options.minutes * SETTLING
        self.attacks.objects += 1
        with open(self.out / "samples.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            while (now := time.monotonic()) < began + 60 * self.options.minutes and self.node.poll() is None:
                self.rig.executor.spin_once(timeout_sec=max(min(due_image - now, 0.05), 0))
                if now >= due_image:
                    self.publish()
                    due_image = max(due_image + 1 / self.options.rate, now - 0.5)
                if now >= due_attack:
                    self.attacks.next()
                    is_settling = due_attack < settled
                    due_attack += self.options.every / HASTE if is_settling else self.options.every
                    self.attacks.objects = OBJECTS + is_settling
                self.attacks.tick()
                if now >= due_sample:
                    samples.append(self.sample(began))
                    writer.writerow(samples[-1])
                    file.flush()
                    due_sample += SAMPLE_S
        return samples

    def finish(self) -> dict:
        """Lets the node finish its work, ends it, and returns the final counts."""
        self.attacks.restore()
        end = time.monotonic() + SETTLE_S
        while self.node.poll() is None and (time.monotonic() < end or self.attacks.unanswered):
            self.rig.executor.spin_once(timeout_sec=0.05)
            if time.monotonic() > end + 30:
                break
        self.counts.clear()
        if self.node.poll() is None:
            self.rig.until(lambda: "received" in self.counts)
        self.node.send_signal(signal.SIGINT)
        try:
            code = self.node.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.node.kill()
            code = -9
        self.rig.close()
        return {
            "exit code": code, "counts": self.counts, "unanswered": self.attacks.unanswered,
            "disorder": self.disorder + max(self.repeats - self.prompts_done, 0), "second results": self.repeats,
            "prompts done": self.prompts_done, "sent": self.sent, "results": self.results,
            "prompt results": self.prompt_results, "calls": self.attacks.calls, "attacks": dict(self.attacks.done),
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0, help="images per second")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between faults of the camera, and of others")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--fake", action="store_true", help="without the network")
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    parser.add_argument("--docs", action="store_true", help="write plot and figures into docs/, too")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the node must not outlive it
    (options.out / "memory.csv").unlink(missing_ok=True)
    soak = Soak(options, options.out)
    try:
        soak.run()
        end = soak.finish()
    finally:
        if soak.node.poll() is None:
            soak.node.kill()
    end |= {
        "minutes": options.minutes,
        "rate": options.rate,
        "seed": options.seed,
        "every": options.every,
        "size_hw": SIZE_HW,
    }
    (options.out / "end.json").write_text(json.dumps(end, indent=1))
    return report(options.out, HERE.parent / "docs" if options.docs else None)


if __name__ == "__main__":
    sys.exit(main())
