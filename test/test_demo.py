"""The demo: a whole run leaves files and no process behind, and what goes wrong is a sentence."""

import contextlib
import glob
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image
from test_demo_score import PERIOD_NS, array_of, results_of, square
from test_replay_full_disk import room_for

import sam2
from sam2_ros import demo, demo_score
from sam2_ros.children import Children
from sam2_ros.msg import TrackArray
from sam2_ros.requests import Code
from sam2_ros.ros_time import stamp_ns

pytestmark = pytest.mark.ros


def test_boxes_are_around_the_largest():
    truth = array_of(0, {"small": square(0, 6), "large": square(30, 25), "away": None, "middle": square(60, 15)})
    boxes = demo.choose_boxes(truth, 2)
    assert list(boxes) == ["large", "middle"]
    rows, columns = np.nonzero(square(30, 25))
    assert boxes["large"] == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize(("room", "drawn"), [(1 << 26, list(demo.PICTURES)), (100, [])])
def test_pictures_that_find_no_room_are_not_said_to_be_there(room, drawn, tmp_path, capsys):
    true = [{"a": square(2)} for _ in range(4)]
    results, grey = results_of(true, true), np.full((60, 80, 3), 96, np.uint8)
    run = demo_score.score(results, images=4, answers=4, prompted_ns=PERIOD_NS)
    audience = SimpleNamespace(images=lambda: iter([grey] * 4), image=lambda stamp: grey)
    args = SimpleNamespace(out=tmp_path, rate=10.0, frames=4, width=80)
    with room_for(room):
        assert demo._draw(args, audience, results, run, ({}, PERIOD_NS)) == drawn
    assert demo._exit_code(run, drawn) == (0 if drawn else 1), "the tracker was good"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(drawn)
    assert capsys.readouterr().err.count("could not be written") == 3 - len(drawn)


def test_signals_that_are_ignored_while_children_end_are_heard_afterwards(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Children(tmp_path) as children:
        stop, children._stop = children._stop, lambda: (os.kill(os.getpid(), signal.SIGINT), stop())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_children_end_with_their_block_and_a_failed_one_is_told(tmp_path):
    with pytest.raises(sam2.Sam2Error, match="the bad ended with exit code 2: .*no command 'nonsense'"):
        with Children(tmp_path) as children:
            good = children.start("good", "simulate", "--wait")
            bad = children.start("bad", "nonsense")
            bad.wait()
            with open(tmp_path / "bad.log", "ab") as log:
                log.write(b"\xff\n")  # as a library may write a path
            children.check()
    assert good.poll() is not None


@pytest.mark.parametrize("name", ["sam2", "sam2_ros", "yaml"])
def test_children_import_nothing_from_the_working_directory(name, tmp_path, monkeypatch):
    """Such as Meta's clone, which is a folder `sam2`: the demo itself did not look there, its processes did."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with Children(tmp_path) as children:
        assert children.start("one", "simulate", "--help").wait() == 0


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """nano as it starts, so sure of itself that there is always something to draw."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from sam2.config import find_config
    from sam2.model import SAM2

    torch.manual_seed(0)
    state = SAM2(find_config("nano")).state_dict()
    state["sam_mask_decoder.pred_obj_score_head.layers.2.bias"] += 3.0
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def start_demo(out, *words):
    command = [sys.executable, "-m", "sam2_ros.cli", "demo", "--out", str(out), "--width", "160", "--height", "120"]
    return subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def processes_of(out):
    """Ids of living processes with a file in this folder open: each child has its log."""
    found = set()
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if os.readlink(link).startswith(str(out)):
                found.add(int(link.split("/")[2]))
    return found


def test_the_click_of_the_readme_follows_one_thing_in_the_demos_world():
    """On what the camera sees; in a film with masks painted on it, the click would follow paint."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    places = [r'Prompt\("cup", points_xy=\[\((\d+), (\d+)\)\]', r"points: \[\[(\d+), (\d+)\]\]"]  # library, replay
    (xy,) = {tuple(map(int, re.search(place, text).groups())) for place in places}
    args = demo.parse([])
    world, tracker = sam2.World.gentle(args.seed, (args.height, args.width)), sam2.Tracker(sam2.load_model("nano"))
    first = world.frame(0)
    mine = next(i for i, mask in enumerate(first.masks) if mask[xy[1], xy[0]])
    for index in range(0, 12, 2):
        shot = world.frame(index)
        prompts = [sam2.Prompt("cup", points_xy=[xy], labels=[1])] if index == 0 else []
        (track,) = tracker.step(sam2.Frame(shot.rgb, 1 + index), prompts)
        true = shot.masks[mine]
        assert np.count_nonzero(track.mask & true) > 0.75 * np.count_nonzero(track.mask | true), index


@pytest.mark.slow
def test_a_whole_run_with_untrained_weights_fails_honestly(tmp_path, weights):
    process = start_demo(tmp_path, "--frames", "20", "--rate", "4", "--objects", "50", "--checkpoint", str(weights))
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 1 and "expected a mean IoU of 0.75" in said and "Traceback" not in said
    assert ", all that is in sight\n" in said
    assert int(re.search(r"images from the camera +(\d+)", said)[1]) == 20
    assert cv2.imread(str(tmp_path / "demo.png")) is not None
    video = cv2.VideoCapture(str(tmp_path / "demo.mp4"))
    assert 1 < video.get(cv2.CAP_PROP_FRAME_COUNT) <= int(re.search(r"results +(\d+)", said)[1])
    video.release()
    clean = cv2.VideoCapture(str(tmp_path / "camera.mp4"))
    assert clean.get(cv2.CAP_PROP_FRAME_COUNT) == 20 and clean.get(cv2.CAP_PROP_FRAME_HEIGHT) == 120
    clean.release()
    assert not processes_of(tmp_path)


def test_a_folder_that_no_video_can_be_in_is_refused_before_anything_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_surroundings", lambda: None)
    monkeypatch.setattr(demo, "_run", lambda args: pytest.fail("it was started"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(sam2.BadInput, match="expected a name in UTF-8"):
            demo.main(["--out", str(tmp_path / os.fsdecode(b"\xff"))])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow  # imports torch in several processes
def test_weights_that_are_not_there_are_one_sentence_and_leave_no_pictures_of_an_earlier_demo(tmp_path):
    (tmp_path / "demo.png").touch()
    process = start_demo(tmp_path, "--checkpoint", str(tmp_path / "none.safetensors"))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "none.safetensors" in said.splitlines()[-1] and "Traceback" not in said
    assert not processes_of(tmp_path) and not (tmp_path / "demo.png").exists()


@pytest.mark.slow  # imports torch in several processes
def test_another_tracker_in_the_domain_is_told(rig, tmp_path, weights):
    rig.node.create_publisher(TrackArray, "/sam2/tracks", 1)
    process = start_demo(tmp_path, "--frames", "20", "--checkpoint", str(weights))
    said, _ = process.communicate(timeout=240)
    last = said.splitlines()[-1]
    assert process.returncode == 1 and "another tracker publishes /sam2/tracks" in last and "Traceback" not in said
    assert not processes_of(tmp_path)


@pytest.mark.parametrize(
    ("codes", "prompted", "error"),
    [
        ([Code.STALE, Code.STALE, Code.OK], 7, None),  # the tracker was busy when the first image came
        ([Code.STALE, Code.BAD_INPUT], None, "BAD_INPUT: told so"),
        ([Code.STALE] * demo.ATTEMPTS, None, "STALE: told so"),
    ],
)
def test_boxes_are_drawn_anew_in_a_newer_image_if_the_tracker_has_not_got_the_first(codes, prompted, error):
    asked, first, newest = [], array_of(0, {"a": square(2)}), array_of(7, {"a": square(40)})

    def call(kind, name, request):
        asked.extend(request.prompts)
        return kind.Response(code=int(codes[len(asked) - 1]), sentence="told so")

    audience = SimpleNamespace(first_image=first, newest_image=newest, call=call)
    if error:
        with pytest.raises(sam2.Sam2Error, match=error):
            demo._prompt(audience, 3)
    else:
        boxes, stamp = demo._prompt(audience, 3)
        assert stamp == stamp_ns(asked[-1].header.stamp) == (prompted + 1) * PERIOD_NS
        assert boxes == {"a": tuple(asked[-1].box_xyxy)}
    assert [prompt.header for prompt in asked] == [first.header, *[newest.header] * (len(codes) - 1)]


@pytest.mark.parametrize(
    ("kind", "topic", "who"), [(TrackArray, "/sam2/tracks", "tracker"), (Image, "/image", "camera")]
)
def test_another_tracker_or_camera_is_told_before_anything_is_started(rig, kind, topic, who):
    audience = demo.Audience(rig.node, rig.executor, SimpleNamespace(check=lambda: None), spool=None)
    audience.find_rivals()
    rig.node.create_publisher(kind, topic, 1)
    rig.until(lambda: rig.node.count_publishers(topic))
    with pytest.raises(sam2.Sam2Error, match=f"another {who} publishes {topic}"):
        audience.find_rivals()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_signal_ends_every_process(tmp_path, weights, number, code):
    process = start_demo(tmp_path, "--frames", "1000", "--checkpoint", str(weights))
    for line in process.stdout:
        if line.startswith("1/4"):
            break
    while not processes_of(tmp_path):  # the tracker has its log open
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    end = time.monotonic() + 30
    while processes_of(tmp_path):
        assert time.monotonic() < end, "a process was left behind"
