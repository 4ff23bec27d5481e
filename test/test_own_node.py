"""The programs of docs/own_node.md do what the page says, run as they stand there."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from bags import image_message, stamp, write_bag
from fakes import FakeTracker
from ros_rig import NodeProcess, children_path, click
from sensor_msgs.msg import CameraInfo, Image
from test_depth import depth_message
from test_replay import read_bag

from sam2_ros import replay
from sam2_ros.msg import PromptResult, Track, TrackArray, Visibility, VisibilityArray
from sam2_ros.requests import Code
from sam2_ros.srv import AddObjects, ListObjects

pytestmark = pytest.mark.ros
ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "own_node.md").read_text()
PROGRAMS = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
PAGE_SIZE_HW = (410, 470)  # the page's click lies in its corner, so that a mask which is misplaced does not fit
AWAY = 60  # steps without the object


@contextmanager
def running(name: str, folder: Path):
    """The program under that heading as a process in `folder`. said(): what it wrote, to both outputs."""
    code, out = folder / f"{name}.py", folder / f"{name}.txt"
    code.write_text(PROGRAMS[name])
    with out.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-u", str(code)], stdout=written, stderr=subprocess.STDOUT, cwd=folder,
            env={**os.environ, "PYTHONPATH": children_path()},
        )  # fmt: skip
    try:
        yield SimpleNamespace(process=process, said=out.read_text, ended=lambda: process.poll() is not None)
    finally:
        process.kill()
        process.wait()


def start_tracking(rig, camera, prompt) -> int:
    """As few images as can be; returns the number of the next."""
    camera.wait_for_subscriber()
    rig.until(lambda: rig.call(ListObjects, "/sam2/list_objects").code == Code.OK)
    future = rig.start_call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[prompt]))
    number = camera.publish_until(future.done, first=camera.newest + 1, period_s=0.1)
    assert future.result().code == Code.OK, future.result().sentence
    return number


class DepthCamera:
    """Images with depth, 1.5 m everywhere. stamps: of all that were published."""

    def __init__(self, rig) -> None:
        self.camera, self.stamps = rig.camera(), set()
        self._depth = rig.node.create_publisher(Image, "depth/image", 10)
        self._info = rig.node.create_publisher(CameraInfo, "camera_info", 10)
        self._publish_image, self.camera.publish = self.camera.publish, self._publish

    def publish_until(self, condition, first: int, size_hw: tuple[int, int]) -> int:
        return self.camera.publish_until(condition, first=first, period_s=0.1, size_hw=size_hw)

    def _publish(self, number: int, size_hw: tuple[int, int]) -> None:
        image, (height, width) = self._publish_image(number, size_hw=size_hw), size_hw
        metres = depth_message(np.full(size_hw, 1.5))
        metres.header = image.header
        self._depth.publish(metres)
        k = [300.0, 0, width / 2, 0, 300.0, height / 2, 0, 0, 1]
        self._info.publish(CameraInfo(header=image.header, width=width, height=height, k=k))
        self.stamps.add(stamp_of(image))


def stamp_of(message) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


def test_every_program_of_the_page_is_run_here():
    assert len(PROGRAMS) == PAGE.count("```python")
    assert all(f'running("{name}", ' in Path(__file__).read_text() for name in PROGRAMS)


def test_prompting_masks_and_positions(rig, tmp_path):
    loaded = tmp_path / "loaded"
    with (
        NodeProcess(tracker={"load_until": str(loaded)}, parameters={"depth.enabled": True}) as node,
        running("Prompting", tmp_path) as prompting,
        running("Masks", tmp_path) as masks,
        running("Positions", tmp_path) as positions,
    ):
        camera = DepthCamera(rig)
        camera.camera.wait_for_subscriber()
        results = rig.collect(PromptResult, "/sam2/prompt_result")
        tracks, placed = rig.collect(TrackArray, "/sam2/tracks"), rig.collect(TrackArray, "/sam2/objects/tracks")

        # While the model is loaded it asks again, each time with the header of an image.
        number = camera.publish_until(lambda: results or prompting.ended(), 0, PAGE_SIZE_HW)
        loaded.touch()
        number = camera.publish_until(prompting.ended, number, PAGE_SIZE_HW)
        assert (prompting.process.returncode, prompting.said()) == (0, "tracking cup\n")
        rig.until(lambda: results[-1].code == Code.OK)
        assert results[0].code == Code.LOADING and results[0].header.frame_id == "camera_optical"
        assert set(map(stamp_of, results)) <= camera.stamps

        def all_said():
            heard = ("\n" in program.said() or program.ended() for program in (masks, positions))
            return tracks and tracks[-1].tracks and placed and placed[-1].tracks and all(heard)

        number = camera.publish_until(all_said, number, PAGE_SIZE_HW)
        track, (at, size) = tracks[-1].tracks[0], (placed[-1].tracks[0].position, placed[-1].tracks[0].box_size)
        assert track.area > 0 and masks.said().startswith(f"cup VISIBLE {PAGE_SIZE_HW} {track.area}\n")
        assert len({f"{value:.2f}" for value in (at.x, at.y, at.z, size.x, size.y)}) == 5
        assert positions.said().startswith(f"cup: x {at.x:.2f} y {at.y:.2f} z 1.50 m, {size.x:.2f} m long\n")

        with running("Prompting", tmp_path) as refused:
            camera.publish_until(refused.ended, number, (48, 64))  # in such an image the click is nowhere
        assert refused.process.returncode == 1 and "64x48" in refused.said() and "Traceback" not in refused.said()
        node.end()


def test_waiting_goes_on_while_the_object_is_away_and_ends_when_it_is_back(rig, tmp_path):
    with NodeProcess(tracker={"absent_on": list(range(AWAY))}) as node:
        camera, seen = rig.camera(), rig.collect(VisibilityArray, "/sam2/visibility")
        start_tracking(rig, camera, click("cup"))
        with running("Waiting for an object", tmp_path) as program:
            rig.until(lambda: rig.node.count_subscribers("/sam2/visibility") == 2 or program.ended())
            del seen[:]
            number = camera.publish_until(lambda: len(seen) > 5, first=camera.newest + 1)
            assert not program.ended(), program.said()
            assert {thing.state for message in seen for thing in message.objects} == {Track.OCCLUDED}
            camera.publish_until(program.ended, first=number, period_s=0.01)
        assert program.said() == "cup: SUCCESS\n"
        assert Track.VISIBLE in {thing.state for message in seen for thing in message.objects}
        node.end()


def test_waiting_gives_up_where_there_is_no_hope(rig):
    names = {}
    exec(PROGRAMS["Waiting for an object"].partition("\nrclpy.init()")[0], names)
    publisher = rig.node.create_publisher(VisibilityArray, "/sam2/visibility", 10)
    clock = names["time"] = SimpleNamespace(s=0.0, monotonic=lambda: clock.s)  # a busy machine is no silence
    cup = names["InView"](rig.node, "cup", patience_s=3.0)
    rig.until(lambda: publisher.get_subscription_count() > 0)

    def ticks_after(*objects):
        cup.objects = None
        publisher.publish(VisibilityArray(objects=objects))
        rig.until(lambda: cup.objects is not None)
        return cup.tick()

    assert cup.tick() == "RUNNING"
    assert ticks_after(Visibility(object_id="another")) == "FAILURE"
    for state, seconds, said in (
        (Visibility.VISIBLE, 0.0, "SUCCESS"), (Visibility.OCCLUDED, 2.0, "RUNNING"), (Visibility.LOST, 2.9, "RUNNING"),
        (Visibility.INVALID, 0.1, "RUNNING"), (Visibility.LOST, 3.1, "FAILURE"),
    ):  # fmt: skip
        thing = Visibility(object_id="cup", state=state, seconds_since_seen=seconds)
        assert ticks_after(Visibility(object_id="another"), thing) == said
    assert ticks_after(Visibility(object_id="cup")) == "SUCCESS"
    for passed_s, said in ((names["SILENCE_S"], "SUCCESS"), (0.1, "FAILURE")):
        clock.s += passed_s
        assert cup.tick() == said


def test_a_recording_is_read_without_what_made_it(tmp_path, monkeypatch):
    bag = write_bag(tmp_path / "bag", {"/front/image": [image_message(number) for number in range(3)]})
    prompts, out = tmp_path / "prompts.yaml", tmp_path / "out" / "tracks.mcap"
    prompts.write_text("- {object_id: cup, points: [[60, 44]]}")
    out.parent.mkdir()
    monkeypatch.setattr(replay, "make_tracker", lambda args, entries: FakeTracker(absent_on=[1]))
    assert replay.main([str(bag), "--prompts", str(prompts), "--out", str(out)]) == 0
    with running("Recordings", tmp_path) as program:
        program.process.wait()
    pixels = [np.count_nonzero(message.data) for _, message in read_bag(out)["/sam2/label_mask"]]
    expected = [
        f"{stamp(number) // 10**9}.{stamp(number) % 10**9:09} cup {state} (48, 64) {pixels[number]}\n"
        for number, state in enumerate(("VISIBLE", "OCCLUDED", "VISIBLE"))
    ]
    assert program.said() == "".join(expected) and pixels[0] > 0
    imported = set(re.findall(r"^(?:from|import) (\w+)", PROGRAMS["Recordings"], re.MULTILINE))
    assert imported == {"pathlib", "typing", "numpy", "rosbags"}
