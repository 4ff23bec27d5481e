"""Files whose names are not UTF-8, over which OpenCV ends the process, and pictures of impossible sizes: read, or
refused in a sentence, with nothing left behind."""

import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import STORE, image_message, shots_of, stamp, write_bag
from fakes import FakeTracker
from rosbags.rosbag2 import StoragePlugin, Writer
from test_dataset_faults import write_film

import sam2
from sam2.training.dataset_files import find_files, read_film, read_indices, read_rgb
from sam2.video_frames import load_frames
from sam2_ros import prompt, prompt_file, replay
from sam2_ros.pictures import read_mask, read_picture
from sam2_ros.replay_davis import LIST
from sam2_ros.replay_files import video_name
from sam2_ros.replay_source import open_source, until_damage

pytestmark = pytest.mark.ros
LATIN = os.fsdecode(b"k\xfcche")
GREY = np.full((48, 64), 90, np.uint8)


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, GREY)[1].tobytes())
    return path


def endless(path: Path) -> Path:
    """A whole PNG, whose header says that it is of 2**31 pixels."""
    raw = bytearray(write(path).read_bytes())
    raw[16:24] = (46341).to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    path.write_bytes(raw)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that replays `source`, with more arguments."""
    monkeypatch.setattr(replay, "make_tracker", lambda args, entries: FakeTracker())
    (tmp_path / "p.yaml").write_text("- {object_id: cup, points: [[1, 2]]}")
    (tmp_path / "out").mkdir()

    def run(source, *more):
        out = tmp_path / "out" / "o.mcap"
        return replay.main([str(source), "--prompts", str(tmp_path / "p.yaml"), "--out", str(out), *map(str, more)])

    return run


def test_pictures_in_a_folder_of_any_name_are_read(tmp_path, run):
    for number, suffix in enumerate((".png", ".jpg", ".bmp", ".tif", ".webp")):
        write(tmp_path / LATIN / f"{number}{suffix}")
    _, shots = shots_of(tmp_path / LATIN)
    assert len(shots) == 5 and all(abs(int(shot.rgb[9, 9, 0]) - 90) < 3 for shot in shots)
    sheet = tmp_path / "out" / f"{LATIN}.png"
    assert run(tmp_path / LATIN, "--sheet", sheet) == 0
    assert read_picture(sheet, cv2.IMREAD_COLOR).shape[2] == 3


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_of_a_mask_nothing_that_is_not_black_is_lost(kind, tmp_path):
    """As of labels in 16 bits, of which 8 would keep those above 255 alone, or of colours too dark to be a grey."""
    labels = np.zeros((48, 64, 3), kind)
    labels[10:20, 10:20], labels[30:32, 5:9] = np.iinfo(kind).max, (1, 0, 0)
    cv2.imwrite(str(tmp_path / "m.png"), labels)
    assert np.array_equal(read_mask(tmp_path / "m.png"), labels.any(axis=2))
    cv2.imwrite(str(tmp_path / "m.png"), labels[..., 0])
    assert np.array_equal(read_mask(tmp_path / "m.png"), labels.any(axis=2))


@pytest.mark.parametrize("name", ["m.jpg", "m.JPEG"])
@pytest.mark.parametrize("white", [255, 90])
def test_the_grey_that_a_jpeg_puts_around_a_mask_is_not_of_it(name, white, tmp_path):
    mask = cv2.circle(np.zeros((48, 64), np.uint8), (33, 21), 12, 1, -1)
    file = cv2.imencode(".jpg", mask * white, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    (tmp_path / name).write_bytes(file.tobytes())
    assert np.count_nonzero(read_picture(tmp_path / name, cv2.IMREAD_GRAYSCALE)) > 1.1 * mask.sum()
    assert np.array_equal(read_mask(tmp_path / name), mask > 0)
    (tmp_path / name).write_bytes(cv2.imencode(".jpg", np.zeros_like(mask))[1].tobytes())
    assert not read_mask(tmp_path / name).any()


def test_masks_of_any_name_are_read(tmp_path, capsys):
    mask = write(tmp_path / f"{LATIN}.png")
    assert prompt_file._mask(mask, "entry 1").all()
    assert set(prompt.message(prompt.parse(["--mask", str(mask)])).mask.data) == {255}
    with pytest.raises(SystemExit, match="got another"):
        prompt.message(prompt.parse(["--mask", str(endless(tmp_path / "e.png"))]))


def test_videos_need_a_name_that_can_be_said(tmp_path, run):
    film = write_film(tmp_path, []).with_name("film.mp4")
    other = film.rename(tmp_path / f"{LATIN}.mp4")
    write(tmp_path / "in" / "0.png")
    for refused in (
        lambda: shots_of(other), lambda: load_frames(other, 64, torch.device("cpu")), lambda: next(read_film(other)),
        lambda: run(tmp_path / "in", "--overlay", tmp_path / "out" / f"{LATIN}.mp4"),
    ):  # fmt: skip
        with pytest.raises(sam2.BadInput, match="expected a name in UTF-8, as OpenCV needs it for a video; rename it"):
            refused()
    assert video_name(tmp_path / "küche.mp4") == str(tmp_path / "küche.mp4") and not [*(tmp_path / "out").iterdir()]


def test_a_colon_in_a_films_name_is_no_protocol(tmp_path, monkeypatch):
    """As in the time that it was recorded at."""
    film = Path("2026-01-01T12:30:00.mp4")
    write_film(tmp_path, []).with_name("film.mp4").rename(tmp_path / film)
    monkeypatch.chdir(tmp_path)
    assert len(shots_of(film)[1]) == len(list(read_film(film))) == 2


def test_a_picture_of_no_possible_size_is_damage_and_what_came_before_is_kept(tmp_path, run, capsys):
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png")
    endless(tmp_path / "in" / "3.png")
    assert run(tmp_path / "in") == replay.DAMAGED and (tmp_path / "out" / "o.mcap").exists()
    assert "3.png: expected an image file" in capsys.readouterr().err
    with pytest.raises(sam2.BadInput, match=r"3\.png: expected a palette PNG"):
        read_indices(tmp_path / "in" / "3.png")
    with pytest.raises(sam2.BadInput, match=r"3\.png: expected a JPEG or PNG image"):
        read_rgb(tmp_path / "in" / "3.png")


def test_a_message_recorded_before_1970_costs_itself_alone(tmp_path, run):
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/image", (kind := "sensor_msgs/msg/Image"), typestore=STORE)
        for number in range(3):
            raw = STORE.serialize_cdr(image_message(number), kind)
            writer.write(connection, -5 if number == 0 else stamp(number), raw)
    source, shots = shots_of(tmp_path / "bag")
    assert [shot.index for shot in shots] == [1, 2] and source.refused == {"negative_stamp": 1}
    assert run(tmp_path / "bag") == 0


@pytest.mark.parametrize("field", ["header", "log"])
def test_a_message_from_after_the_end_of_time_costs_itself_alone(field, tmp_path, run):
    """Of which the bag that is written could not have the time."""
    late = image_message(1)
    late.header.stamp.sec, late.header.stamp.nanosec = (2**31 - 1, 2**32 - 1) if field == "header" else (0, 0)
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/image", (kind := "sensor_msgs/msg/Image"), typestore=STORE)
        for number, message in enumerate((image_message(0), late, image_message(2))):
            raw = STORE.serialize_cdr(message, kind)
            writer.write(connection, 2**61 if (field, number) == ("log", 1) else stamp(number), raw)
    source, shots = shots_of(tmp_path / "bag")
    assert len(shots) == 2 and source.refused == {"stamp": 1}
    assert run(tmp_path / "bag") == 0


def test_links_in_a_circle_are_no_source_and_no_folder(tmp_path, run):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(sam2.BadInput, match="found nothing"):
        run(loop)
    assert not [*find_files(loop, (".png",))]


def test_a_list_or_a_name_that_is_no_utf8_is_refused_before_the_first_image(tmp_path, run, monkeypatch):
    monkeypatch.setattr(replay, "make_tracker", lambda args, entries: pytest.fail("too late"))
    bag = write_bag(tmp_path / "bag", {"/image": [image_message(0)]})
    names = tmp_path / "data" / LIST
    names.parent.mkdir(parents=True)
    with pytest.raises(sam2.BadInput, match="expected a video's name that is one line .*choose another --name"):
        run(bag, "--davis", tmp_path / "data", "--name", LATIN)
    names.write_bytes(b"k\xfcche\n")
    with pytest.raises(sam2.BadInput, match=r"train\.txt: expected a list of videos in UTF-8"):
        run(bag, "--davis", tmp_path / "data")


def test_what_this_user_may_not_read_is_not_called_damaged(tmp_path, monkeypatch, run):
    """Of a recording that root made in a container."""
    film, mask, picture = tmp_path / "film.mp4", tmp_path / "mask.png", write(tmp_path / "in" / "0.png")
    film.write_bytes(b"film")
    write(mask)
    closed = {film, mask, picture}
    monkeypatch.setattr(os, "access", lambda path, mode: path not in closed)
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(sam2.BadInput, match=r"film\.mp4: expected a recording that this user may read"):
        run(film)
    with pytest.raises(sam2.BadInput, match=r"0\.png: expected an image file; this user may not read it"):
        with open_source(tmp_path / "in") as source:
            list(until_damage(source))
    with pytest.raises(SystemExit, match=r"mask\.png: expected an image file, this user may not read it"):
        prompt.message(prompt.parse(["--mask", str(mask)]))
    (tmp_path / "p.yaml").write_text("- {object_id: cup, mask: mask.png}")
    with pytest.raises(sam2.BadInput, match="mask: expected an image file, this user may not read"):
        prompt_file.read(tmp_path / "p.yaml")
