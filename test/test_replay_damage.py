"""A recording that is damaged in its midst: what was tracked up to there is kept, and the exit code says it."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import SIZE_HW, STORE, image_message, picture, shots_of, stamp, write_bag
from fakes import FakeTracker
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from test_replay import read_bag

import sam2
from sam2_ros import replay
from sam2_ros.replay_davis import LIST

pytestmark = pytest.mark.ros

COUNT, WHOLE = 8, 4  # images, those before the damage
CUP = "- {object_id: cup, points: [[32, 24]]}\n"
ZSTD_FRAME = b"\x28\xb5\x2f\xfd"  # RFC 8878


@pytest.fixture(autouse=True)
def tracker(monkeypatch):
    made = FakeTracker()
    monkeypatch.setattr(replay, "make_tracker", lambda args, entries: made)
    return made


def large_message(number):
    """More than a mebibyte, so that in an MCAP file it has a chunk of its own."""
    side = 600
    return image_message(
        number, height=side, width=side, step=side * 3, data=np.full(side * side * 3, number, np.uint8)
    )


def damaged_sqlite3(folder):
    """A part of one image is lost, and with it where the rest is, as where a disk lost sectors."""
    write_bag(folder / "bag", {"/image": [large_message(n) for n in range(COUNT)]}, StoragePlugin.SQLITE3)
    file = folder / "bag" / "bag.db3"
    raw = bytearray(file.read_bytes())
    at = raw.index(bytes([WHOLE]) * 4000) + 10_000
    raw[at : at + 10_000] = b"?" * 10_000
    file.write_bytes(raw)
    return folder / "bag"


def damaged_mcap(folder):
    """Compressed, each image in a chunk of its own."""
    kind = "sensor_msgs/msg/Image"
    writer = Writer(folder / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", kind, typestore=STORE)
        for number in range(COUNT):
            writer.write(connection, stamp(number) + 7, STORE.serialize_cdr(large_message(number), kind))
    file = folder / "bag" / "bag.mcap"
    before, *chunks = file.read_bytes().split(ZSTD_FRAME)
    assert len(chunks) == COUNT
    chunks[WHOLE] = b"?" * 20 + chunks[WHOLE][20:]
    file.write_bytes(ZSTD_FRAME.join([before, *chunks]))
    return folder / "bag"


def damaged_video(folder):
    writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE_HW[::-1])
    noise = np.random.default_rng(0)
    for _ in range(COUNT):
        writer.write(noise.integers(0, 256, (*SIZE_HW, 3), np.uint8))
    writer.release()
    raw = (folder / "v.avi").read_bytes()
    starts = [at for at in range(len(raw)) if raw.startswith(b"00dc", at)]  # of each image
    (folder / "v.avi").write_bytes(raw[: starts[WHOLE] + 999])
    return folder / "v.avi"


def damaged_folder(folder):
    (folder / "in").mkdir()
    for number in range(COUNT):
        cv2.imwrite(str(folder / "in" / f"{number}.png"), picture(number))
    (folder / "in" / f"{WHOLE}.png").write_bytes(b"broken")
    return folder / "in"


DAMAGED = {
    damaged_sqlite3: "bag: its messages cannot be read: ",
    damaged_mcap: "bag: its messages cannot be read: ",
    damaged_video: f"v.avi: is it damaged? {COUNT - WHOLE} more images were announced than are in it",
    damaged_folder: f"{WHOLE}.png: expected an image file",
}


def run(source, tmp_path, text=CUP):
    (tmp_path / "p.yaml").write_text(text)
    out = {"out": "o.mcap", "overlay": "o.mp4", "sheet": "o.png", "report": "o.json", "davis": "data"}
    words = [word for option, name in out.items() for word in (f"--{option}", str(tmp_path / name))]
    return replay.main([str(source), "--prompts", str(tmp_path / "p.yaml"), *words, "--fps", "10"])


@pytest.mark.parametrize("damaged", DAMAGED)
def test_what_was_tracked_before_the_damage_is_kept_and_told(tmp_path, damaged, capsys):
    assert run(damaged(tmp_path), tmp_path) == replay.DAMAGED == 3
    assert {len(messages) for messages in read_bag(tmp_path / "o.mcap").values()} == {WHOLE}
    assert len(shots_of(tmp_path / "o.mp4")[1]) == WHOLE and cv2.imread(str(tmp_path / "o.png")) is not None
    assert len([*(tmp_path / "data").rglob("*.jpg")]) == WHOLE and (tmp_path / "data" / LIST).is_file()
    source = json.loads((tmp_path / "o.json").read_text())["source"]
    assert source["frames"] == WHOLE and DAMAGED[damaged] in source["damage"]
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"sam2_ros replay: {source['damage']}"
    kept = f"; {WHOLE} images could be read, the last of them 0.3 s after the first: what was tracked in them is kept"
    assert said.endswith(kept)
    assert not [*tmp_path.glob(".replay_*")]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_prompt_for_an_image_behind_the_damage_costs_nothing_else(tmp_path, damaged, capsys):
    """But no data set: in that, an object without a mask would count as absent."""
    text = f"{CUP}- {{object_id: mug, frame: {COUNT - 1}, points: [[1, 2]]}}"
    assert run(damaged(tmp_path), tmp_path, text) == replay.DAMAGED
    assert {len(messages) for messages in read_bag(tmp_path / "o.mcap").values()} == {WHOLE}
    said = capsys.readouterr()
    assert f", entry 2 ('mug'): frame {COUNT - 1} never came" in said.err.splitlines()[-1]
    assert "data: " in said.err and "not one of its images has all 2 objects" in said.err
    assert not (tmp_path / "data").exists() and str(tmp_path / "data") not in said.out


def test_a_prompt_whose_image_is_not_in_the_recording_costs_nothing_else(tmp_path, capsys):
    """As where one of many stamps is mistyped: hours of tracking are not lost."""
    bag = write_bag(tmp_path / "bag", {"/image": [image_message(n) for n in range(3)]})
    text = f"{CUP}- {{object_id: mug, stamp: 9999999999, points: [[1, 2]]}}\n"
    assert run(bag, tmp_path, text) == replay.DAMAGED
    assert {len(messages) for messages in read_bag(tmp_path / "o.mcap").values()} == {3}
    damage = json.loads((tmp_path / "o.json").read_text())["source"]["damage"]
    ended = "bag: it ended after 3 images: what was tracked in them is kept"
    assert damage == f"{ended}; {tmp_path / 'p.yaml'}, entry 2 ('mug'): stamp 9999999999 never came"
    assert f"sam2_ros replay: {damage}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("early_s", "warnings"), [(0.9, 0), (1.1, 1), (1e9, 1)])
def test_a_stamp_of_another_recording_is_told(tmp_path, capsys, early_s, warnings):
    bag = write_bag(tmp_path / "bag", {"/image": [image_message(0)]})
    text = f"- {{object_id: cup, stamp: {stamp(0) / 1e9 - early_s:.1f}, points: [[32, 24]]}}"
    (tmp_path / "p.yaml").write_text(text)
    assert replay.main([str(bag), "--prompts", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "o.mcap")]) == 0
    said = capsys.readouterr().err
    assert said.count(f" is {early_s:.1f} s before the first image, {stamp(0) / 1e9:.3f}, to which it") == warnings
    assert said.count("warning") == warnings


def test_damage_before_the_first_image_leaves_nothing(tmp_path, monkeypatch):
    (folder := tmp_path / "in").mkdir()
    (folder / "0.png").write_bytes(b"broken")
    with pytest.raises(sam2.BadInput, match=r"0\.png: expected an image file"):
        run(folder, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "p.yaml"]


def test_a_recording_that_is_whole_has_no_damage(tmp_path, capsys):
    assert run(write_bag(tmp_path / "bag", {"/image": [image_message(n) for n in range(3)]}), tmp_path) == 0
    assert json.loads((tmp_path / "o.json").read_text())["source"]["damage"] == "" and not capsys.readouterr().err
