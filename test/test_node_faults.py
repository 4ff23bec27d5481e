"""Faults of the process and its neighbours, each with the node as a process of its own over real DDS."""

import os
import signal
import subprocess
import sys
from itertools import groupby

import numpy as np
import pytest

pytest.importorskip("rclpy")

from fakes import Fault, FaultSchedule
from ros_rig import HERE, NodeProcess, click, start_tracking
from test_node_stream import stamp, values

import sam2
from sam2_ros.image_out import image_message
from sam2_ros.msg import PromptResult, TrackArray
from sam2_ros.requests import Code
from sam2_ros.ros_time import time_message
from sam2_ros.srv import AddObjects

pytestmark = pytest.mark.ros


def newest(rig, said, name):
    """The values of one diagnostics status, from a message that is still to come."""
    said.clear()
    rig.until(lambda: said)
    return values(said, name)


def hears(said, *words, level=b"\x02"):
    return lambda: any(s.level == level and all(w in s.message for w in words) for m in said for s in m.status)


def test_stamps_of_every_kind_are_counted_and_none_resets_the_objects(rig):
    """Duplicate, late, negative and absent stamps, and one of tomorrow would be a jump."""
    with NodeProcess() as node:
        camera, said = rig.camera(), rig.diagnostics()
        number = start_tracking(rig, camera, "a")
        got = rig.collect(TrackArray, "/sam2/tracks")
        camera.publish_until(lambda: got, first=number, period_s=0.03)
        last = stamp(got[-1]) + 10**9
        for reason, stamp_ns in (("duplicate", last), ("stale", last - 10**9), ("negative_stamp", -(10**9))):
            before = int(newest(rig, said, "images").get(f"refused: {reason}", 0))
            # Again and again: of two images at once only the second may be heard.
            camera.publish_until(
                lambda b=before, r=reason: int(newest(rig, said, "images").get(f"refused: {r}", 0)) > b,
                stamp_ns=stamp_ns,
            )
        got.clear()
        camera.publish(0, stamp_ns=0)
        rig.until(lambda: got)
        assert stamp(got[-1]) == 0 and [t.object_id for t in got[-1].tracks] == ["a"]
        assert newest(rig, said, "images")["without stamp"] == "1"
        assert not [key for key in newest(rig, said, "tracking") if key.startswith(("reset", "failed"))]
        node.end()


def test_a_frame_id_that_keeps_changing_is_copied_and_warned_about_once(rig):
    with NodeProcess() as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a")
        got = rig.collect(TrackArray, "/sam2/tracks", 1000)
        names = ["camera_optical", *(f"camera_{turn % 2}" for turn in range(30))]
        for name in names:
            number = camera.publish_until(
                lambda name=name: got and got[-1].header.frame_id == name, first=number, frame_id=name
            )
        assert [name for name, _ in groupby(m.header.frame_id for m in got)] == names
        node.end()
        # Once in five seconds: on a busy machine all this takes a while.
        assert 1 <= node.output.count("frame_id changed") < len(names) - 1


def test_a_camera_that_is_off_is_said_and_its_first_image_is_processed(rig):
    with NodeProcess(parameters={"image_timeout_s": 1.0}) as node:
        camera, said = rig.camera(), rig.diagnostics()
        number = start_tracking(rig, camera, "a")
        got = rig.collect(TrackArray, "/sam2/tracks")
        number = camera.publish_until(lambda: got, first=number)
        said.clear()  # it was silent before the first image, too
        rig.until(hears(said, "no image for"))
        got.clear()
        camera.publish(number)
        rig.until(lambda: got)
        assert [t.object_id for t in got[0].tracks] == ["a"]
        node.end()


def test_every_fault_of_a_camera_in_a_row(rig):
    """The schedule of the soak on real messages: order is kept, every image has a fate, the object stays."""
    kinds = ("stuck", "garbage", "wrong", "slow", "delayed", "intermittent", "off")
    schedule = FaultSchedule(1, [Fault(20 * n, 20 * n + 10, kind) for n, kind in enumerate(kinds)])
    with NodeProcess() as node:
        camera, said = rig.camera(), rig.diagnostics()
        number = start_tracking(rig, camera, "a")
        got = rig.collect(TrackArray, "/sam2/tracks", 1000)
        for index in range(20 * len(kinds)):
            message = camera.message(number + index)
            frame = sam2.Frame(image_of(message), stamp(message))
            for bad in schedule.apply(index, frame):  # several at once where they were held back
                picture = image_message(message.header, bad.rgb, "rgb8")
                picture.header.stamp = time_message(bad.stamp_ns)
                camera.publish_message(picture)
            rig.executor.spin_once(timeout_sec=0.02)
        last = stamp(camera.message(number + 20 * len(kinds)))
        camera.publish(0, stamp_ns=last)
        rig.until(lambda: got and stamp(got[-1]) == last)
        stamps = [stamp(message) for message in got]
        assert stamps == sorted(set(stamps)) and all([t.object_id for t in m.tracks] == ["a"] for m in got)
        images, tracking = newest(rig, said, "images"), newest(rig, said, "tracking")
        assert int(images["received"]) == int(tracking["processed"]) + int(images["dropped for a newer one"])
        node.end()


def image_of(message):
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


def test_a_network_that_gets_slow_is_a_warning_then_an_error_then_forgiven(rig):
    with NodeProcess(tracker={"slow_on": [20, 60, 0.2]}, parameters={"max_age_s": 0.15}) as node:
        camera, said = rig.camera(), rig.diagnostics()
        number = start_tracking(rig, camera, "a")
        number = camera.publish_until(hears(said, "results are late", level=b"\x01"), first=number, period_s=0.02)
        number = camera.publish_until(hears(said, "results are late"), first=number, period_s=0.02)
        said.clear()
        camera.publish_until(hears(said, "object(s)", level=b"\x00"), first=number, period_s=0.02)
        node.end()


def test_a_flood_of_prompts_is_answered_and_images_go_on(rig):
    with NodeProcess(tracker={"delay": 0.02}, parameters={"prompt_queue": 8}) as node:
        camera, results = rig.camera(), rig.collect(PromptResult, "/sam2/prompt_result", 5000)
        number = start_tracking(rig, camera, "a")
        publisher = rig.node.create_publisher(type(click()), "/sam2/prompts", 10)
        rig.until(lambda: publisher.get_subscription_count() > 0)
        got = rig.collect(TrackArray, "/sam2/tracks")

        def flood():
            for _ in range(50):
                publisher.publish(click("a"))
            return len(got) > 50

        camera.publish_until(flood, first=number)
        rig.until(lambda: any(r.code == Code.BUSY for r in results) and any(r.code == Code.OK for r in results))
        assert {Code(r.code).name for r in results} == {"OK", "BUSY"}
        node.end()


def test_a_listener_that_stands_still_holds_nobody_up(rig):
    """Its process is stopped while it is subscribed, reliably, to everything large."""
    with NodeProcess() as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a")
        listener = subprocess.Popen(
            [sys.executable, str(HERE / "listener.py"), "/sam2/overlay", "/sam2/label_mask"], stdout=subprocess.PIPE
        )
        try:
            assert listener.stdout.readline() == b"ready\n"
            got = rig.collect(TrackArray, "/sam2/tracks")
            number = camera.publish_until(lambda: got, first=number, size_hw=(240, 320))
            os.kill(listener.pid, signal.SIGSTOP)
            got.clear()
            camera.publish_until(lambda: len(got) > 100, first=number, size_hw=(240, 320), period_s=0.01)
        finally:
            listener.kill()
            listener.communicate()
        node.end()


def test_kill_9_and_restart_needs_no_cleaning(rig):
    with NodeProcess() as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a")
        node.signal(signal.SIGKILL)
        assert node.exit_code() == -signal.SIGKILL
    for client in rig.clients.values():  # they remember the dead server
        rig.node.destroy_client(client)
    rig.clients.clear()
    with NodeProcess() as node:
        number = camera.publish_until(lambda: rig.node.count_subscribers("/image") > 0, first=number)
        future = rig.start_call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[click("a")]))
        got = rig.collect(TrackArray, "/sam2/tracks")
        camera.publish_until(lambda: got and future.done(), first=number)
        node.end()


def test_two_nodes_in_two_namespaces_know_nothing_of_each_other(rig):
    with (
        NodeProcess(remap={"__ns": "/left"}, parameters={"max_objects": 1}) as left,
        NodeProcess(remap={"__ns": "/right"}) as right,
    ):
        cameras = {side: rig.camera(topic=f"/{side}/image") for side in ("left", "right")}
        got = {side: rig.collect(TrackArray, f"/{side}/sam2/tracks") for side in cameras}
        for number in range(10_000):
            cameras["left"].publish(number)
            cameras["right"].publish(number, size_hw=(32, 32))
            rig.executor.spin_once(timeout_sec=0.02)
            if all(got.values()):
                break
        added = rig.start_call(AddObjects, "/left/sam2/add_objects", AddObjects.Request(prompts=[click("a")]))
        cameras["left"].publish_until(lambda: added.done() and got["left"][-1].tracks, first=number + 1)
        assert not got["right"][-1].tracks
        absolute = {"/diagnostics", "/rosout", "/parameter_events"}

        def has_end_of_ours(topic):
            ends = rig.node.get_publishers_info_by_topic(topic) + rig.node.get_subscriptions_info_by_topic(topic)
            return any(end.node_namespace in ("/left", "/right") for end in ends)

        def names_of_ours():
            return [name for name, _ in rig.node.get_topic_names_and_types() if has_end_of_ours(name)]

        rig.until(lambda: len(names_of_ours()) > 10)  # whose an end is comes after the end itself
        names = names_of_ours()
        assert not [n for n in names if n not in absolute and not n.startswith(("/left/", "/right/"))]
        left.end()
        right.end()


def test_without_a_place_for_its_log_it_runs_all_the_same(rig):
    with NodeProcess(environment={"ROS_LOG_DIR": "/proc/no/such/place"}) as node:
        start_tracking(rig, rig.camera(), "a")
        node.signal(signal.SIGINT)
        assert node.exit_code() == 0, node.output
        assert "no log files: /proc/no/such/place: " in node.output
