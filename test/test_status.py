"""`sam2_ros status`: what the node says of itself, nothing of others, and an exit code to go by."""

import contextlib
import itertools
import re
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import ClockType
from ros_rig import PATIENCE_S, NodeProcess, start_tracking

from sam2_ros import node_client, status

pytestmark = pytest.mark.ros


def said(name, message="fine", level=b"\x00", **values):
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(name=name, message=message, level=level, values=pairs)


MESSAGE = DiagnosticArray(
    status=[
        said("/sam2: front: images", "9.9 images/s", received="50"),
        said("/sam2: wrist: images", "no image for 3.1 s", b"\x02"),
        said("/sam2x: images"), said("camera: temperature"), said("/robot/sam2: images"),
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"), [("/sam2", [0, 1]), ("/sam2/wrist", [1]), ("/sam2x", [2]), ("/robot/sam2", [4]), ("/sam", [])]
)
def test_of_a_node_or_of_one_of_its_cameras(name, found):
    assert status.of_node(MESSAGE, name) == [MESSAGE.status[index] for index in found]


def test_a_line_says_how_what_and_why():
    front, wrist = (MESSAGE.status[index] for index in (0, 1))
    assert status.lines(front, "/sam2", False) == ["OK     front images       9.9 images/s"]
    assert status.lines(front, "/sam2", True)[1:] == ["         received: 50"]
    assert status.lines(wrist, "/sam2/wrist", False) == ["ERROR  wrist images       no image for 3.1 s"]
    assert status.lines(said("/sam2: images"), "/sam2", False) == ["OK     images             fine"]
    assert status.level_of(said("x", level=b"\x03")) is status.Level.ERROR


def test_a_node_that_is_not_active_is_not_well(monkeypatch):
    for state, code in (("active", 0), ("inactive", 1)):
        monkeypatch.setattr(status, "hear", lambda asked, state=state: [said("/sam2: tracking", state=state)])
        assert status.main([]) == code


@pytest.mark.parametrize(("worst", "code"), [(b"\x00", 0), (b"\x01", 1), (b"\x02", 1)])
def test_one_thing_that_is_not_well_is_enough_and_everything_is_printed(monkeypatch, capsys, worst, code):
    found = [said("/sam2: images", state="active", received="50"), said("/sam2: tracking", "slow", worst)]
    monkeypatch.setattr(status, "hear", lambda asked: found)
    assert status.main([]) == code
    printed = capsys.readouterr().out
    assert "images             fine" in printed and "tracking           slow" in printed and "received" not in printed
    assert status.main(["--values"]) == code and "received: 50" in capsys.readouterr().out


def test_whoever_falls_silent_is_told_once_and_told_anew_when_it_is_heard_again(monkeypatch, capsys):
    now, node, made = SimpleNamespace(s=100.0), SimpleNamespace(), {}
    node.create_subscription = lambda kind, topic, hear, depth: made.update(hear=hear)
    node.create_timer = lambda period_s, listen, clock: made.update(listen=listen, clock=clock)
    monkeypatch.setattr(node_client.time, "monotonic", lambda: now.s)
    monkeypatch.setattr(status, "hear", lambda client: MESSAGE.status[:2])
    monkeypatch.setattr(status, "topic_of", lambda client: status.TOPIC)
    steps = []

    def spin(_):
        for passed_s in (node_client.SILENT_S, 0.1, 5.0):
            now.s += passed_s
            made["hear"](DiagnosticArray(status=MESSAGE.status[2:]))  # of others
            made["listen"]()
            steps.append(capsys.readouterr().out.splitlines())
        for _ in range(2):
            made["hear"](MESSAGE)
            steps.append(capsys.readouterr().out.splitlines())
        now.s += 1.0
        made["listen"]()
        steps.append(capsys.readouterr().out.splitlines())
        raise KeyboardInterrupt

    monkeypatch.setattr(node_client.rclpy, "spin", spin)
    client = node_client.NodeClient(node, "/sam2", timeout_s=1.0)
    assert status.watch(client) == 0 and made["clock"].clock_type is ClockType.STEADY_TIME
    assert [len(lines) for lines in steps] == [2, 1, 0, 2, 0, 0] and steps[1] == ["nothing of /sam2 for 3 s"]


def test_a_number_that_changes_is_no_news():
    known = {}
    assert len(status.changes(known, MESSAGE.status[:2], "/sam2")) == 2
    assert status.changes(known, [said("/sam2: front: images", "10.1 images/s")], "/sam2") == []
    worse = said("/sam2: front: images", "10.1 images/s", b"\x01")
    assert status.changes(known, [worse], "/sam2") == ["WARN   front images       10.1 images/s"]
    assert len(status.changes(known, [said("/sam2: wrist: images", "no publisher", b"\x02")], "/sam2")) == 1


@contextlib.contextmanager
def images_come(camera, first):
    """Beside what the test does."""
    is_over = threading.Event()

    def publish():
        for number in itertools.count(first):
            camera.publish(number)
            if is_over.wait(0.05):
                return

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def until(capsys, code, pattern, *words):
    """Asks until the exit code and the output are as expected; returns the output."""
    end = time.monotonic() + PATIENCE_S
    while True:
        got, heard = status.main([*words]), capsys.readouterr().out
        if got == code and re.search(pattern, heard):
            return heard
        assert time.monotonic() < end, heard


def test_a_running_node_says_what_it_lacks_and_then_that_all_is_well(rig, capsys):
    with NodeProcess() as node:
        whole = r"(?m)^ERROR +images .*nobody publishes /image(?s:.*)^OK +tracking (?s:.*)^OK +requests "
        until(capsys, 1, whole, "--values")  # once it has loaded
        camera = rig.camera()
        with images_come(camera, start_tracking(rig, camera, "a")):
            assert "         received: " in until(capsys, 0, r"1 object\(s\)", "--values")
        node.end()


def test_diagnostics_are_heard_wherever_they_are_published(capsys):
    """As where every robot of a fleet has a topic of its own for them."""
    with NodeProcess(remap={"__ns": "/r1", "/diagnostics": "diagnostics"}, parameters={"cameras": "[front]"}) as node:
        for name in ("/r1/sam2", "/r1/sam2/front"):
            until(capsys, 1, "nobody publishes /r1/front/image", "--node", name)  # once it has loaded
        node.end()


def test_nobody_there_is_told(capsys):
    assert status.main(["--timeout", "0.2", "--node", "robot/sam2"]) == 2
    assert "nothing of /robot/sam2 on /diagnostics within 0.2 s" in capsys.readouterr().err
