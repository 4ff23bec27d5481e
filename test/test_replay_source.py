"""Every image of a bag, a video or a folder, in order, with its stamp; what is none of these is one sentence."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import SIZE_HW, STORE, image_message, jpeg_message, picture, shots_of, stamp, write_bag
from fakes import FakeTracker
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

import sam2
from sam2.limits import MAX_LABEL
from sam2_ros import prompt_file, replay
from sam2_ros.replay_bag import TrackBag, typestore
from sam2_ros.replay_files import check_folder
from sam2_ros.replay_report import Report
from sam2_ros.replay_source import Shot, Source, open_source, until_damage

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("make", [image_message, jpeg_message])
def test_every_image_of_a_bag_with_its_stamp(tmp_path, storage, make):
    path = write_bag(tmp_path / "bag", {"/image": [make(number) for number in range(5)]}, storage)
    single = next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
    for where in (path, single):
        source, shots = shots_of(where)
        assert source.total == 5 and source.fps == pytest.approx(10, rel=0.01) and source.topic == "/image"
        assert [(shot.index, shot.stamp_ns, shot.logged_ns) for shot in shots] == [
            (number, stamp(number), stamp(number) + 7) for number in range(5)
        ]
        assert all(np.array_equal(shot.rgb, picture(shot.index)) for shot in shots)


def test_several_image_topics_need_a_choice(tmp_path):
    images = {"/left": [image_message(0)], "/right": [image_message(9), image_message(8)]}
    path = write_bag(tmp_path / "bag", images)
    with pytest.raises(sam2.BadInput, match="--topic: /left, /right"):
        shots_of(path)
    assert [int(shot.rgb[0, 0, 0]) for shot in shots_of(path, topic="/right")[1]] == [9, 8]
    with pytest.raises(sam2.BadInput, match="'/up'"):
        shots_of(path, topic="/up")


def test_what_a_tracker_drew_is_no_camera(tmp_path):
    """Of a recording with a camera's images and a tracker's, the camera's are meant; with the tracker's alone, none."""
    camera = write_bag(tmp_path / "camera", {"/front/image": [image_message(number) for number in range(3)]})
    with TrackBag.open(tmp_path / "tracks.mcap") as sink:
        for shot in shots_of(camera)[1]:
            sink.write(shot, [])
    with pytest.raises(sam2.BadInput, match=r"drew.*/sam2/label_mask.*--topic"):
        shots_of(tmp_path / "tracks.mcap")
    assert len(shots_of(tmp_path / "tracks.mcap", topic="/sam2/label_mask")[1]) == 3
    with Writer(tmp_path / "both", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for part in (tmp_path / "tracks.mcap", camera):
            with AnyReader([part]) as reader:
                made = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=typestore())
                        for c in reader.connections}  # fmt: skip
                for connection, time_ns, raw in reader.messages():
                    writer.write(made[connection.topic], time_ns, raw)
    assert shots_of(tmp_path / "both")[0].topic == "/front/image"


def test_a_camera_beside_a_simulation_s_truth_is_one(tmp_path):
    camera = write_bag(tmp_path / "camera", {"/camera/image_raw": [image_message(number) for number in range(3)]})
    with (
        Writer(tmp_path / "both", version=9, storage_plugin=StoragePlugin.MCAP) as writer,
        AnyReader([camera]) as reader,
    ):
        writer.add_connection("/camera/ground_truth", "sam2_ros/msg/TrackArray", typestore=typestore())
        writer.add_connection("/camera/tracks", "sam2_ros/msg/TrackArray", typestore=typestore())
        images = writer.add_connection("/camera/image_raw", "sensor_msgs/msg/Image", typestore=typestore())
        mask = writer.add_connection("/camera/ground_truth/label_mask", "sensor_msgs/msg/Image", typestore=typestore())
        for _, time_ns, raw in reader.messages():
            writer.write(images, time_ns, raw)
            writer.write(mask, time_ns, raw)
    assert shots_of(tmp_path / "both")[0].total == 3


def test_a_folder_goes_by_the_numbers_in_its_names(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (10, 9, 1):
        cv2.imwrite(str(folder / f"img{number}.png"), cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR))
    (folder / "notes.txt").write_text("no image")
    (folder / "._img9.png").write_text("of macOS")
    source, shots = shots_of(folder, fps=4)
    assert [int(shot.rgb[0, 0, 0]) for shot in shots] == [1, 9, 10] and source.total == 3
    assert [shot.stamp_ns for shot in shots] == [250_000_000, 500_000_000, 750_000_000]
    (folder / "img11.png").write_bytes(b"broken")
    with pytest.raises(sam2.BadInput, match=r"img11\.png"):
        shots_of(folder)


def test_a_folder_goes_by_the_times_that_are_its_names(tmp_path):
    """As whoever takes images out of a bag names them: the fraction has as many digits as it needs."""
    names = ("7.25", "7.5", "8.125", "8.2")
    for level, name in enumerate(names):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full(SIZE_HW, level, np.uint8))
    assert [int(shot.rgb[0, 0, 0]) for shot in shots_of(tmp_path)[1]] == [0, 1, 2, 3]


def test_pictures_of_a_folder_may_be_grey_deep_in_capitals_and_of_equal_numbers(tmp_path, monkeypatch):
    """In one order, whatever that of the folder is."""
    for level, name in enumerate(("01.png", "1.png", "2.PNG")):
        cv2.imwrite(str(tmp_path / name), np.full(SIZE_HW, 257 * level, np.uint16))
    there = sorted(tmp_path.iterdir())
    for files in (there, there[::-1]):
        monkeypatch.setattr(Path, "iterdir", lambda folder, files=files: iter(files))
        assert [shot.rgb[0, 0].tolist() for shot in shots_of(tmp_path)[1]] == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    with pytest.raises(sam2.BadInput, match="topic '/image' was asked for, and this is no bag"):
        shots_of(tmp_path, topic="/image")


def test_an_image_without_a_stamp_is_of_when_it_was_recorded(tmp_path):
    header = image_message(0).header
    header.stamp.sec = header.stamp.nanosec = 0
    path = write_bag(tmp_path / "bag", {"/image": [image_message(0, header=header), image_message(1)]})
    assert [shot.time_ns for shot in shots_of(path)[1]] == [stamp(0) + 7, stamp(1)]


def test_a_bag_of_a_burst_beside_a_silent_camera_and_without_definitions(tmp_path):
    """As rosbag2 wrote them before Iron; the film of it must have a rate that a video can have."""
    kind = "sensor_msgs/msg/Image"
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        writer.add_connection("/silent", kind, typestore=STORE)
        connection = writer.add_connection("/image", kind, typestore=STORE)
        for number in range(3):
            writer.write(connection, stamp(0) + number, STORE.serialize_cdr(image_message(number), kind))
    with closing(sqlite3.connect(tmp_path / "bag" / "bag.db3")) as database, database:  # left open warns
        database.execute("DROP TABLE message_definitions")
        database.execute("UPDATE schema SET schema_version = 3")
    source, shots = shots_of(tmp_path / "bag")
    assert source.topic == "/image" and source.fps == 120 and len(shots) == 3


@pytest.mark.parametrize(
    "name",
    ["list.ans", "list.ASC", "list.nfo", "list.txt", "missing", "broken.mcap", "broken.db3", "broken.mp4", "empty"],
)
def test_what_is_no_source_is_one_sentence(tmp_path, name):
    if name == "empty":
        (tmp_path / name).mkdir()
    elif name != "missing":
        (tmp_path / name).write_bytes(b"no bag, no video" * 200)
    with pytest.raises(sam2.BadInput, match=name):
        shots_of(tmp_path / name)


def test_a_recording_that_ends_before_its_time_is_told():
    for frames, said in ((3, "v.mp4: is it damaged? 1 more images were announced than are in it"), (4, "")):
        shots = [Shot(index, picture(1), index, index, "") for index in range(frames)]
        source = Source("v.mp4", "", 5, 20.0, iter(shots), refused=Counter(encoding=1))
        assert [*until_damage(source)] == shots and source.damage.partition(";")[0] == said
    source = Source("v.mp4", "", 5, 20.0, iter(()))
    with pytest.raises(sam2.BadInput, match="v.mp4: not one usable image: it ends before the first"):
        replay.replay(source, [], SimpleNamespace(check=lambda prompt: None), [], Report(source, "nano"))


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1e-12"])
def test_no_images_per_second_are_refused(given, capsys):
    with pytest.raises(SystemExit):
        replay.parse(["there", "--prompts", "p", "--out", "o", "--fps", given])
    assert f"0.001 to 1000, got {given}" in capsys.readouterr().err


def test_a_name_without_a_data_set_is_refused(capsys):
    with pytest.raises(SystemExit):
        replay.parse(["there", "--prompts", "p", "--out", "o", "--name", "kitchen"])
    assert "--name: expected --davis FOLDER" in capsys.readouterr().err


def test_more_objects_than_a_label_mask_has_are_refused_with_the_name_of_the_file(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("".join(f"- {{object_id: cup_{n}, points: [[1, 2]]}}\n" for n in range(255)))
    with pytest.raises(sam2.BadInput, match=r"p\.yaml: expected at most 254 objects, got 255"):
        prompt_file.read(file)
    assert prompt_file.MOST_OBJECTS == MAX_LABEL


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--report o.txt", r"ending in \.json"),
        ("--sheet in/o.png", "outside of SOURCE"),
        ("--out in/o", "outside of"),
        ("--davis o/data", "outside of --out"),
        ("--report in.json", "the name of a file, found a folder"),
    ],
)
def test_what_would_spoil_something_else_is_refused_before_the_work(tmp_path, words, said):
    (tmp_path / "in").mkdir()
    (tmp_path / "in.json").mkdir()
    (tmp_path / "p.yaml").write_text("- {object_id: cup, points: [[1, 2]]}")
    option, name = words.split()
    given = [str(tmp_path / "in"), "--prompts", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "o")]
    with pytest.raises(sam2.BadInput, match=said):
        replay.main([*given, option, str(tmp_path / name)])


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    check_folder(tmp_path / "o")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere but there
    with pytest.raises(sam2.BadInput, match=r"o: the folder .* cannot be written"):
        check_folder(tmp_path / "o")


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_bag_that_is_damaged_after_its_beginning_is_one_sentence(tmp_path, storage):
    """Written over once it was opened, so that its names and counts were whole wherever a format keeps them."""
    bag = write_bag(tmp_path / "bag", {"/image": [image_message(number) for number in range(9)]}, storage)
    (file,) = (path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    with open_source(bag) as source, pytest.raises(sam2.BadInput, match=rf"bag {bag}: its messages cannot be read: "):
        with file.open("r+b") as opened:
            opened.write(b"?" * file.stat().st_size)
        list(source.shots)


def test_a_message_that_is_damaged_costs_itself_alone(tmp_path):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/image", (kind := "sensor_msgs/msg/Image"), typestore=STORE)
        for number in range(3):
            raw = bytes(STORE.serialize_cdr(image_message(number), kind))
            writer.write(connection, stamp(number), raw[:40] if number == 1 else raw)
    source, shots = shots_of(tmp_path / "bag")
    assert [shot.index for shot in shots] == [0, 2] and source.refused == {"damaged": 1}
    assert source.last_refusal.startswith(f"image 1 of /image: its bytes are no {kind}: ")


def test_an_image_from_before_1970_costs_itself_alone(tmp_path):
    images = [image_message(number) for number in range(3)]
    images[1].header.stamp.sec = -1
    source, shots = shots_of(write_bag(tmp_path / "bag", {"/image": images}))
    assert [shot.index for shot in shots] == [0, 2] and source.refused == {"negative_stamp": 1}
    assert source.last_refusal.startswith("image 1 of /image: its stamp is -")


def test_images_of_several_sizes_are_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(replay, "make_tracker", lambda *_: FakeTracker())
    (tmp_path / "mixed").mkdir()
    for number, size_hw in enumerate([(48, 64), (48, 64), (24, 32)]):
        cv2.imwrite(str(tmp_path / "mixed" / f"{number}.png"), np.zeros((*size_hw, 3), np.uint8))
    (tmp_path / "p.yaml").write_text("- {object_id: cup, points: [[1, 2]]}")
    words = [str(tmp_path / "mixed"), "--prompts", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "o.mcap")]
    report = tmp_path / "r.json"
    assert replay.main([*words, "--report", str(report)]) == 0
    assert "images of several sizes: 2 of 64x48, 1 of 32x24; objects were kept" in capsys.readouterr().out
    assert (source := json.loads(report.read_text())["source"])["width"] == 64 and source["height"] == 48
    (tmp_path / "mixed" / "2.png").unlink()
    (tmp_path / "o.mcap").unlink()
    assert replay.main(words) == 0 and "several sizes" not in capsys.readouterr().out


def test_a_clock_that_was_set_back_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(replay, "make_tracker", lambda *_: FakeTracker())
    (tmp_path / "p.yaml").write_text("- {object_id: cup, points: [[1, 2]]}")
    for numbers, is_told in (([0, 1, 2, 0, 1, 2, 0], True), ([0, 1, 2], False)):
        name = f"{len(numbers)}"
        bag = write_bag(tmp_path / name, {"/image": [image_message(number) for number in numbers]})
        assert (
            replay.main([str(bag), "--prompts", str(tmp_path / "p.yaml"), "--out", str(tmp_path / f"{name}.mcap")]) == 0
        )
        assert ("stamps went back 2 times; objects were kept" in capsys.readouterr().out) == is_told


def test_help_documents_the_prompts_file(capsys):
    with pytest.raises(SystemExit) as caught:
        replay.main(["--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0 and all(f"{field}:" in said for field in prompt_file.FIELDS)
