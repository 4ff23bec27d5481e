"""A replay as a video of a data set: what was tracked is what the reader of such data sets finds."""

import fcntl
import os
import shutil
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import SIZE_HW, image_message, picture, write_bag
from fakes import FakeTracker
from test_replay_full_disk import room_for

import sam2
from sam2.training.datasets import open_dataset
from sam2_ros import overlay, replay
from sam2_ros.replay_davis import LIST, DavisVideo
from sam2_ros.replay_source import Shot

pytestmark = pytest.mark.ros

PROMPTS = "[{object_id: cup, frame: 1, points: [[20, 24]]}, {object_id: pot, frame: 2, points: [[50, 10]]}]"


@pytest.fixture
def tracker(monkeypatch):
    tracker = FakeTracker(absent_on=[3])
    monkeypatch.setattr(replay, "make_tracker", lambda args, entries: tracker)
    return tracker


def run(tmp_path, *more, name="kitchen", root="data", out="tracks.mcap", refused=False):
    bag = tmp_path / name
    if not bag.exists():
        messages = [image_message(number) for number in range(5)]
        if refused:
            messages[0] = image_message(0, encoding="bayer_unknown")
        write_bag(bag, {"/image": messages})
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    words = ["--prompts", str(tmp_path / "prompts.yaml"), "--out", str(tmp_path / out), "--davis", str(tmp_path / root)]
    return replay.main([str(bag), *words, *more])


@contextmanager
def open_folder(path):
    opened = os.open(path, os.O_RDONLY)
    try:
        yield opened
    finally:
        os.close(opened)


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_was_tracked_is_read_back(tmp_path, tracker):
    seen = []
    step = tracker.step
    tracker.step = lambda frame, prompts: seen.append(step(frame, prompts)) or seen[-1]
    assert run(tmp_path) == 0
    (video,) = open_dataset("davis", tmp_path / "data")
    assert video.name == "kitchen" and len(video.masks) == 3 and len(seen) == 5
    for number, (rgb, tracks) in enumerate(zip(video.frames(), seen[2:], strict=True)):
        assert np.abs(rgb.astype(int) - picture(2 + number)).max() <= 3, "JPEG"
        labels = sam2.label_mask(tracks, SIZE_HW)
        masks = video.masks[number]
        assert set(masks) == set(np.unique(labels)) - {0}
        assert all(np.array_equal(mask, labels == label) for label, mask in masks.items())
    assert [len(video.masks[number]) for number in range(3)] == [2, 0, 2], "both are prompted by image 2, away in 3"


def test_pictures_have_the_colours_of_the_overlay(tmp_path, tracker):
    assert run(tmp_path) == 0
    with Image.open(tmp_path / "data/Annotations/480p/kitchen/00004.png") as image:
        labels, colours = np.array(image), np.array(image.convert("RGB"))
    assert image.mode == "P" and set(np.unique(labels)) == {0, 1, 2}
    for label in (1, 2):
        assert (colours[labels == label] == overlay.colour_of(label)).all()
    assert not colours[labels == 0].any()


def test_files_have_the_numbers_of_their_images(tmp_path, tracker):
    """Those that the prompts file knows them by. Before the last object is prompted there are none, nor where the image
    or an answer is no good."""
    tracker.nan_on = 2
    assert run(tmp_path, refused=True) == 0
    for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
        assert left(tmp_path / "data" / folder / "480p/kitchen") == [f"0000{number}.{ending}" for number in (2, 4)]


def test_recordings_gather_in_one_data_set(tmp_path, tracker):
    (tmp_path / "data/ImageSets/2017").mkdir(parents=True)
    (tmp_path / "data" / LIST).write_text("older")  # by hand, its last line not ended
    for name in ("kitchen", "garage"):
        assert run(tmp_path, name=name, out=f"{name}.mcap") == 0
    assert (tmp_path / "data" / LIST).read_text() == "older\nkitchen\ngarage\n"
    for folder in ("JPEGImages", "Annotations"):
        shutil.rmtree(tmp_path / "data" / folder / "480p/kitchen")
    assert run(tmp_path, out="again.mcap") == 0
    assert (tmp_path / "data" / LIST).read_text() == "older\nkitchen\ngarage\n"


def test_a_recording_that_was_moved_to_another_list_stays_there(tmp_path, tracker):
    """It is replayed again with more corrections; in both lists it would be evaluated on after training on it."""
    assert run(tmp_path) == 0
    (tmp_path / "data" / LIST).rename(held_out := (tmp_path / "data" / LIST).with_name("val.txt"))
    for folder in ("JPEGImages", "Annotations"):
        shutil.rmtree(tmp_path / "data" / folder / "480p/kitchen")
    assert run(tmp_path, out="again.mcap") == 0
    assert held_out.read_text() == "kitchen\n" and not (tmp_path / "data" / LIST).exists()


def test_a_picture_too_large_for_a_jpeg_is_named(tmp_path):
    with (
        DavisVideo.open(tmp_path, "line", 0) as video,
        pytest.raises(sam2.BadInput, match="at most 65500 .* 3 is 70000x16"),
    ):
        video.write(Shot(3, np.zeros((16, 70000, 3), np.uint8), 1, 1, "camera"), [])


def test_a_video_that_is_there_is_kept(tmp_path, tracker):
    assert run(tmp_path) == 0
    before = left(tmp_path)
    with pytest.raises(sam2.BadInput, match=r"JPEGImages/480p/kitchen and .*Annotations/480p/kitchen: there already"):
        run(tmp_path, out="again.mcap")
    assert left(tmp_path) == before
    assert run(tmp_path, "--name", "again", out="again.mcap") == 0
    assert [video.name for video in open_dataset("davis", tmp_path / "data")] == ["again", "kitchen"]


def test_a_video_that_came_meanwhile_is_kept(tmp_path):
    """Of another replay of the same name that was faster."""
    with pytest.raises(sam2.BadInput, match="kitchen: there already"):
        with DavisVideo.open(tmp_path, "kitchen", 0) as slower, DavisVideo.open(tmp_path, "kitchen", 0) as faster:
            for video in (slower, faster):
                video.write(Shot(0, np.zeros((2, 2, 3), np.uint8), 1, 1, ""), [])
    assert [video.name for video in open_dataset("davis", tmp_path)] == ["kitchen"]
    assert not list(tmp_path.glob(".replay_*"))


SHOT = Shot(0, np.zeros((2, 2, 3), np.uint8), 1, 1, "")


def test_a_replay_that_fails_takes_no_folder_from_another(tmp_path):
    """It made them, and they are still empty; but another is going to fill them."""
    failing = ExitStack()
    failing.enter_context(DavisVideo.open(tmp_path / "data", "failing", 0))
    with DavisVideo.open(tmp_path / "data", "kitchen", 0) as video:
        failing.close()
        video.write(SHOT, [])
    assert [video.name for video in open_dataset("davis", tmp_path / "data")] == ["kitchen"]


def add(root):
    """A thread that adds a video to a data set."""

    def run():
        with DavisVideo.open(root, "kitchen", 0) as video:
            video.write(SHOT, [])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_replays_that_end_at_the_same_moment_are_both_in_the_list(tmp_path):
    (tmp_path / LIST).parent.mkdir(parents=True)
    with open_folder(tmp_path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = add(tmp_path)
        thread.join(0.5)
        assert thread.is_alive()
        (tmp_path / LIST).write_text("hall\n")
    thread.join()
    assert (tmp_path / LIST).read_text() == "hall\nkitchen\n"


def test_who_holds_a_data_set_for_long_keeps_no_replay_from_it(tmp_path, monkeypatch):
    """As a training does whose results are in its folder."""
    monkeypatch.setattr("sam2_ros.replay_davis.LOCK_S", 0.1)
    with open_folder(tmp_path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        add(tmp_path).join()
        assert (tmp_path / LIST).read_text() == "kitchen\n"


@pytest.mark.parametrize("folder", ["JPEGImages", "Annotations"])
def test_what_another_replay_puts_there_at_the_last_moment_is_kept(tmp_path, monkeypatch, folder):
    theirs = tmp_path / folder / "480p" / "kitchen" / "00000.png"

    def rename(ours, place, move=os.rename):
        if place == theirs.parent:
            place.mkdir()
            theirs.touch()
        move(ours, place)

    monkeypatch.setattr("sam2_ros.replay_davis.os.rename", rename)
    with pytest.raises(OSError), DavisVideo.open(tmp_path, "kitchen", 0) as video:
        video.write(Shot(0, np.zeros((2, 2, 3), np.uint8), 1, 1, ""), [])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]


def test_a_disk_that_is_full_does_not_cost_the_list(tmp_path):
    shot = Shot(0, np.zeros((2, 2, 3), np.uint8), 1, 1, "")
    with DavisVideo.open(tmp_path, "older", 0) as video:
        video.write(shot, [])
    with ExitStack() as full, pytest.raises(OSError), DavisVideo.open(tmp_path, "newer", 0) as video:
        video.write(shot, [])
        full.enter_context(room_for(5))
    assert (tmp_path / LIST).read_text() == "older\n" and not list(tmp_path.rglob("newer"))


@pytest.mark.parametrize("name", ["", "a/b", "..", "/abs"])
def test_a_name_is_one_folder(tmp_path, name, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--name", name)
    assert "expected the name of a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["kitchen\n", "two\u2028lines", " kitchen", "k" * 256])
def test_a_name_that_a_list_or_a_disk_does_not_take_is_refused_before_the_first_image(tmp_path, tracker, name):
    """What is split, or stripped, when the list is read names a video that is not there: nothing could be opened."""
    with pytest.raises(sam2.BadInput, match="expected a video's name that is one line .* choose another --name"):
        run(tmp_path, "--name", name)
    assert tracker.steps == 0 and not (tmp_path / "data").exists()


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_of_a_failed_replay(tmp_path, tracker, there):
    if there:
        (tmp_path / "data").mkdir()
    tracker.step = lambda frame, prompts: (_ for _ in ()).throw(sam2.BadInput("no more"))
    with pytest.raises(sam2.BadInput, match="no more"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name == "data"] == ["data"] * there
    assert not there or left(tmp_path / "data") == []


def test_a_file_is_no_data_set(tmp_path, tracker):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(sam2.BadInput, match="data: expected a folder, or nothing, found a file"):
        run(tmp_path)
    assert (tmp_path / "data").read_text() == "mine" and not (tmp_path / "tracks.mcap").exists()


@pytest.mark.parametrize("taken", ["Annotations", "ImageSets"])
def test_what_cannot_be_whole_is_refused_before_the_first_image(tmp_path, tracker, taken):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / taken).write_text("mine")
    with pytest.raises(sam2.BadInput, match=f"{taken}: expected a folder, or nothing, found a file"):
        run(tmp_path)
    assert left(tmp_path / "data") == [taken] and not tracker.calls


@pytest.mark.parametrize(("shut", "root"), [(".", "data"), ("Annotations/480p", ".")])
def test_a_data_set_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch, shut, root):
    (tmp_path / shut).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path / shut)  # root may write anywhere
    with pytest.raises(sam2.BadInput, match="cannot be written"), DavisVideo.open(tmp_path / root, "v", 0):
        pytest.fail("it was opened")


def test_a_list_that_cannot_be_written_leaves_no_video(tmp_path, tracker):
    def step(*given, **more):
        (tmp_path / "data" / LIST).mkdir(exist_ok=True)  # a folder, meanwhile
        return FakeTracker.step(tracker, *given, **more)

    tracker.step = step
    with pytest.raises(sam2.BadInput, match=r"train\.txt: expected a list of videos"):
        run(tmp_path)
    assert not list((tmp_path / "data").rglob("*.jpg")) and not list((tmp_path / "data").rglob("kitchen"))


def test_a_folder_is_named_whole(tmp_path, tracker):
    assert run(tmp_path, name="run_2026.11.27") == 0
    assert [video.name for video in open_dataset("davis", tmp_path / "data")] == ["run_2026.11.27"]


def test_every_label_has_a_colour_of_its_own(tmp_path):
    """And 255, which no object has, is no colour of one: it means "not to be scored"."""
    with DavisVideo.open(tmp_path / "data", "v", 0) as video:
        video.write(Shot(0, np.zeros((2, 2, 3), np.uint8), 1, 1, ""), [])
    with Image.open(tmp_path / "data/Annotations/480p/v/00000.png") as image:
        palette = np.array(image.getpalette()).reshape(256, 3)
    assert (palette[255] == 255).all() and not palette[0].any()
    assert len(np.unique(palette, axis=0)) > 200
