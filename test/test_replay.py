"""Replay: every image in, a bag that others read out; the same bytes twice; mistakes are named."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import SIZE_HW, image_message, picture, shots_of, stamp, write_bag
from fakes import FakeTracker
from rosbags.highlevel import AnyReader

import sam2
from sam2_ros import replay, replay_bag
from sam2_ros.film import Film

pytestmark = pytest.mark.ros


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / "bag", {"/front/image": [image_message(number) for number in range(6)]})


@pytest.fixture(autouse=True)
def fake_tracker(monkeypatch):
    """In place of the network; the test may change how it is made."""
    made = SimpleNamespace(options={}, tracker=None)

    def load(args, entries):
        made.tracker = FakeTracker(**made.options)
        return made.tracker

    monkeypatch.setattr(replay, "make_tracker", load)
    return made


def prompts(tmp_path, text="- {object_id: cup, class_name: mug, points: [[32, 24]]}"):
    path = tmp_path / "prompts.yaml"
    path.write_text(text)
    return path


def run(source, tmp_path, *words, out="tracks.mcap", text=None):
    file = prompts(tmp_path, text) if text else prompts(tmp_path)
    return replay.main([str(source), "--prompts", str(file), "--out", str(tmp_path / out), *words])


def read_bag(path):
    """{topic: [(time, message)]}."""
    got = {}
    with AnyReader([path]) as reader:
        for connection, time_ns, raw in reader.messages():
            got.setdefault(connection.topic, []).append((time_ns, reader.deserialize(raw, connection.msgtype)))
    return got


def decoded(mask):
    """(H, W) bool of a Mask message that was read from a bag."""
    full = np.zeros((mask.image_height, mask.image_width), bool)
    crop = sam2.rle_decode(np.array(mask.counts), (mask.height, mask.width))
    full[mask.y : mask.y + mask.height, mask.x : mask.x + mask.width] = crop
    return full


@pytest.mark.parametrize("out", ["tracks.mcap", "a_folder"])
def test_what_is_written_is_read_back(bag, tmp_path, out, fake_tracker):
    fake_tracker.options["absent_on"] = [3, 4]
    assert run(bag, tmp_path, out=out, text="- {object_id: cup, class_name: mug, frame: 1, points: [[32, 24]]}") == 0
    assert (tmp_path / out / "metadata.yaml").is_file() == (out == "a_folder")
    got = read_bag(tmp_path / out)
    assert {topic: len(messages) for topic, messages in got.items()} == dict.fromkeys(replay_bag.TOPICS, 6)
    expected_states = [None, 0, 0, 1, 1, 0]
    for number in range(6):
        tracks, visibility, labels = (got[topic][number][1] for topic in replay_bag.TOPICS)
        assert {got[topic][number][0] for topic in got} == {stamp(number) + 7}
        for message in (tracks, visibility, labels):
            seconds, nanoseconds = divmod(stamp(number), 10**9)
            assert (message.header.stamp.sec, message.header.stamp.nanosec) == (seconds, nanoseconds)
            assert message.header.frame_id == "front_optical"
        assert [track.state for track in tracks.tracks] == [s for s in [expected_states[number]] if s is not None]
        assert [seen.state for seen in visibility.objects] == [track.state for track in tracks.tracks]
        pixels = np.asarray(labels.data).reshape(SIZE_HW)
        for track in tracks.tracks:
            assert (track.object_id, track.class_name, track.label) == ("cup", "mug", 1)
            assert np.array_equal(decoded(track.mask), pixels == 1) and (pixels == 1).any() == (track.state == 0)
        assert number or not pixels.any()
    assert got["/sam2/visibility"][4][1].objects[0].seconds_since_seen == pytest.approx(0.2)


def test_definitions_in_the_bag_are_those_of_the_running_system():
    """The type hashes that rosidl computed when the interfaces were built."""
    store = replay_bag.typestore()
    prefixes = os.environ.get("AMENT_PREFIX_PATH", sys.prefix).split(os.pathsep)
    folder = next(path for prefix in prefixes if (path := Path(prefix) / "share" / "sam2_ros" / "msg").is_dir())
    for name in replay_bag.INTERFACES:
        hashes = json.loads((folder / f"{name}.json").read_text())["type_hashes"]
        built = {entry["type_name"]: entry["hash_string"] for entry in hashes}
        assert store.hash_rihs01(f"sam2_ros/msg/{name}") == built[f"sam2_ros/msg/{name}"]


def test_the_same_bag_twice_gives_the_same_bytes(bag, tmp_path, fake_tracker):
    fake_tracker.options["absent_on"] = [2]
    for name in ("first", "second"):
        words = ["--overlay", str(tmp_path / f"{name}.mp4"), "--report", str(tmp_path / f"{name}.json")]
        assert run(bag, tmp_path, *words, out=f"{name}.mcap") == 0
        assert run(bag, tmp_path, out=name) == 0
    for ending in (".mcap", ".mp4", ".json", "/metadata.yaml", "/tracks.mcap"):
        first, second = ((tmp_path / f"{name}{ending}").read_bytes() for name in ("first", "second"))
        assert first == second and len(first) > 100
    fake_tracker.options["absent_on"] = [1]
    assert run(bag, tmp_path, out="other.mcap") == 0
    assert (tmp_path / "other.mcap").read_bytes() != (tmp_path / "first.mcap").read_bytes()


def test_the_network_too_gives_the_same_bytes(tmp_path, monkeypatch):
    """nano with whatever weights it starts with, twice in one process."""
    monkeypatch.undo()
    torch = pytest.importorskip("torch")
    from sam2.config import find_config
    from sam2.model import SAM2

    torch.manual_seed(1)
    network = SAM2(find_config("nano")).eval()
    monkeypatch.setattr(sam2, "load_model", lambda *args, **kwargs: network)
    noise = np.random.default_rng(0)
    messages = [image_message(n, data=noise.integers(0, 256, 48 * 64 * 3, np.uint8)) for n in range(3)]
    noisy = write_bag(tmp_path / "noisy", {"/image": messages})
    for name in ("first.mcap", "second.mcap"):
        assert run(noisy, tmp_path, out=name) == 0
    assert (tmp_path / "first.mcap").read_bytes() == (tmp_path / "second.mcap").read_bytes()
    scores = [message.tracks[0].object_score for _, message in read_bag(tmp_path / "first.mcap")["/sam2/tracks"]]
    assert len(set(scores)) == 3  # it did look at the images


def test_images_that_are_none_are_counted_and_skipped(tmp_path, capsys):
    messages = [image_message(0), image_message(1, encoding="32FC1"), image_message(2)]
    path = write_bag(tmp_path / "bag", {"/image": messages})
    source, shots = shots_of(path)
    assert [shot.index for shot in shots] == [0, 2] and source.refused == {"encoding": 1}
    assert run(path, tmp_path, "--report", str(tmp_path / "report.json")) == 0
    assert "image 1 of /image" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["source"]["refused"] == {"encoding": 1}
    nothing = write_bag(tmp_path / "nothing", {"/image": messages[1:2]})
    with pytest.raises(sam2.BadInput, match="not one usable image: .*32FC1"):
        run(nothing, tmp_path, out="none.mcap")


def test_prompts_reach_their_frames(bag, tmp_path, fake_tracker):
    cv2.imwrite(str(tmp_path / "mask.png"), np.pad(np.full((8, 8), 1, np.uint8), ((0, 40), (0, 56))))
    text = f"""
- {{object_id: 007, points: [[1, 2], [3.5, 4]], labels: [1, 0]}}
- {{object_id: b, frame: 2, box: [1, 2, 30, 40], class_name: mug}}
- {{object_id: c, stamp: {stamp(3) // 10**9}.{stamp(3) % 10**9:09d}, mask: mask.png, mode: replace}}
- {{object_id: d, stamp: {(stamp(4) + 1) // 10**9}.{(stamp(4) + 1) % 10**9:09d}, points: [[5, 5]]}}
"""
    assert run(bag, tmp_path, "--report", str(tmp_path / "report.json"), text=text) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    got = {name: summary["prompted_frames"] for name, summary in report["objects"].items()}
    assert got == {"007": [0], "b": [2], "c": [3], "d": [5]}
    a, b, c, d = fake_tracker.tracker.prompted
    assert (a.points_xy, a.labels, a.mode) == ([[1, 2], [3.5, 4]], [1, 0], sam2.PromptMode.ADD)
    assert (b.box_xyxy, b.class_name) == ([1, 2, 30, 40], "mug") and c.mode is sam2.PromptMode.REPLACE
    assert c.mask.shape == SIZE_HW and c.mask.sum() == 64 and c.mask[:8, :8].all() and d.labels == [1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense: 1", "expected a list"),
        ("[", "expected a YAML file"),
        ("- {points: [[1, 2]]}", "entry 1: .*object_id"),
        (
            "- {object_id: a, points: [[1, 2]]}\n- {object_id: b, point: [1, 2]}",
            r"entry 2 \('b'\): 'point' is no field",
        ),
        ("- {object_id: a, points: [[1, x]]}", r"entry 1 \('a'\): points"),
        ("- {object_id: a, points: [1, 2]}", r"points: expected pairs, as \[\[320, 240\]\], got \['1', '2'\]"),
        ("- {object_id: a, points: [[1, 2]], frame: -1}", "frame: expected the number"),
        ("- {object_id: a, points: [[1, 2]], stamp: now}", "stamp: expected seconds"),
        ("- {object_id: a, points: [[1, 2]], stamp: 0}", "stamp: expected seconds"),
        ("- {object_id: a, points: [[1, 2]], stamp: 1e999999}", "stamp: expected seconds"),
        ("- {object_id: [a], points: [[1, 2]]}", r"object_id: expected one text, got \['a'\]"),
        ("- {object_id: a, mask: [m.png]}", "mask: expected one text"),
        ("- {object_id: a, points: [[1, 2]], mode: [add]}", "mode: expected one text"),
        ("- {object_id: a, points: [[1, 2]], stamp: 1, frame: 1}", "frame and stamp"),
        ("- {object_id: a, points: [[1, 2]], mode: merge}", "mode: expected one of add, replace"),
        ("- {object_id: a, points: [[1, 2]], object_id: b}", "'object_id' comes twice in .* line 1, column 36"),
        ("- {object_id: a, mask: none.png}", "mask: .*none.png"),
        ("- {object_id: a, points: [[1, 2]], frame: 6}", "frame 6: the source has 6 images, the last is 5"),
        ("- {object_id: a, points: [[1, 2]], stamp: 9999999999}", "stamp 9999999999 never came"),
    ],
)
def test_mistakes_in_the_prompts_are_named(bag, tmp_path, text, says):
    with pytest.raises(sam2.BadInput, match=says):
        run(bag, tmp_path, text=text)
    assert not (tmp_path / "tracks.mcap").exists() and not list(tmp_path.glob(".replay*"))


def test_what_the_tracker_refuses_names_the_entry(bag, tmp_path, fake_tracker):
    fake_tracker.options["raise_on"] = {"check": [None, sam2.BadInput("outside the image")]}
    with pytest.raises(sam2.BadInput, match=r"entry 1 \('cup'\), frame 0: outside the image"):
        run(bag, tmp_path)


def test_a_later_place_that_is_in_no_image_is_said_at_the_first(bag, tmp_path, fake_tracker, capsys):
    """In a video it is refused; a bag's images may grow."""
    later = "- {object_id: cup, points: [[32, 24]]}\n- {object_id: mug, frame: 3, points: [[640, 2]]}"
    with Film.open(clip := tmp_path / "clip.mp4", 10.0) as film:
        for _ in range(6):
            film.write_picture(np.zeros((*SIZE_HW, 3), np.uint8))
    correction = later.replace("mug", "cup").replace("2]]}", "2]], labels: [0]}")
    for source, text, steps, warnings in ((clip, later, 0, 0), (bag, later, 3, 1), (bag, correction, 3, 1)):
        with pytest.raises(sam2.BadInput, match=r"entry 2 \('\w+'\), frame 3: .*outside the image of 64x48"):
            run(source, tmp_path, text=text)
        said = capsys.readouterr().err.count(
            "; the replay will fail there, unless that image is larger than the first\n"
        )
        assert (fake_tracker.tracker.steps, said) == (steps, warnings)


@pytest.mark.parametrize("frame", [0, 3])
def test_what_an_object_is_not_may_be_said_of_the_same_image_or_a_later_one(bag, tmp_path, fake_tracker, frame):
    first, not_it = "- {object_id: cup, points: [[32, 24]]}\n", "{object_id: cup, points: [[6, 2]], labels: [0]"
    assert run(bag, tmp_path, text=f"{first}- {not_it}, frame: {frame}}}") == 0
    with pytest.raises(sam2.BadInput, match=r"entry 1 \('cup'\).*an object begins with a point that is on it"):
        run(bag, tmp_path, text=f"- {not_it}}}", out="other.mcap")


def test_the_report_says_when_an_object_was_away(bag, tmp_path, fake_tracker):
    fake_tracker.options["absent_on"] = [1, 2, 5]
    assert run(bag, tmp_path, "--report", str(tmp_path / "report.json")) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["model"] == "sam2.1_hiera_nano" and report["source"]["frames"] == 6
    assert (report["source"]["first_stamp_ns"], report["source"]["last_stamp_ns"]) == (stamp(0), stamp(5))
    cup = report["objects"]["cup"]
    assert cup["frames"] == {"visible": 3, "occluded": 3, "lost": 0, "invalid": 0} and cup["visible_share"] == 0.5
    assert cup["absences"] == [
        {"gone_frame": 1, "gone_stamp_ns": stamp(1), "back_frame": 3, "back_stamp_ns": stamp(3)},
        {"gone_frame": 5, "gone_stamp_ns": stamp(5), "back_frame": None, "back_stamp_ns": None},
    ]


def test_the_overlay_shows_every_image(bag, tmp_path):
    assert run(bag, tmp_path, "--overlay", str(tmp_path / "seen.mp4")) == 0
    _, shots = shots_of(tmp_path / "seen.mp4")
    assert len(shots) == 6 and shots[0].rgb.shape == (*SIZE_HW, 3)
    assert np.abs(shots[0].rgb[24, 32].astype(int) - picture(0)[24, 32]).max() > 40  # the mask's colour
    assert np.abs(shots[0].rgb[40, 60].astype(int) - picture(0)[40, 60]).max() < 25


def test_the_sheet_shows_every_image_of_a_short_recording(bag, tmp_path):
    assert run(bag, tmp_path, "--sheet", str(tmp_path / "seen.png")) == 0
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "seen.png")), cv2.COLOR_BGR2RGB)
    assert sheet.shape == (2 * (390 + 34), 4 * 540, 3)
    for number in range(6):
        panel = sheet[number // 4 * 424 :, number % 4 * 540 + 10 :][:390, :520]
        beside, masked = (panel[round(8.125 * y), round(8.125 * x)].astype(int) for x, y in ((60, 40), (32, 24)))
        assert np.abs(beside - picture(number)[40, 60]).max() < 25
        assert np.abs(masked - picture(number)[24, 32]).max() > 40, "the mask's colour"
    assert (sheet[424:, 2 * 540 :] == (24, 26, 30)).all(), "two places empty"


@pytest.mark.parametrize("words", ["--sheet x.xyz", "--overlay no/x.mp4", "--report prompts.yaml", "--overlay x.xyz"])
def test_what_cannot_be_written_is_refused_before_the_first_image(bag, tmp_path, words, fake_tracker):
    option, name = words.split()
    said = "no folder" if "/" in name else "ending in" if "xyz" in name else f"{option} .* a file of its own"
    with pytest.raises(sam2.BadInput, match=said):
        run(bag, tmp_path, option, str(tmp_path / name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "prompts.yaml"]


def test_a_sheet_that_fails_in_the_end_does_not_cost_the_bag(bag, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        assert run(bag, tmp_path, "--sheet", str(tmp_path / "seen.png")) == 0
    assert (tmp_path / "tracks.mcap").is_file() and not (tmp_path / "seen.png").exists()
    said = capsys.readouterr()
    assert "seen.png: the sheet could not be written" in said.err and "seen.png" not in said.out


def test_nothing_is_overwritten(bag, tmp_path):
    (tmp_path / "tracks.mcap").write_text("mine")
    with pytest.raises(sam2.BadInput, match="already exists"):
        run(bag, tmp_path)
    assert (tmp_path / "tracks.mcap").read_text() == "mine"


def test_mistakes_from_the_command_line_have_no_traceback(tmp_path):
    words = ["replay", str(tmp_path / "none"), "--prompts", str(prompts(tmp_path)), "--out", str(tmp_path / "o.mcap")]
    done = subprocess.run([sys.executable, "-m", "sam2_ros.cli", *words], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "found nothing" in done.stderr
