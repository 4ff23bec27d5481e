"""A disk that is full: what a replay leaves is whole or not there, and it is said in a sentence."""

import errno
import os
import resource
import signal
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import image_message, picture, write_bag
from fakes import FakeTracker
from rosbags.rosbag2 import CompressionMode

import sam2
from sam2_ros import cli, replay
from sam2_ros.contact_sheet import ContactSheet
from sam2_ros.film import Film
from sam2_ros.replay_report import Report
from sam2_ros.replay_source import Shot, Source

pytestmark = pytest.mark.ros

PLACES = {"out": "o.mcap", "overlay": "o.mp4", "sheet": "o.png", "report": "o.json", "davis": "d"}


@contextmanager
def room_for(bytes_a_file):
    """No file may become larger, whoever writes it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def report():
    made = Report(Source("v.mp4", "", 1, 20.0, iter(()), refused=Counter()), "nano")
    made.note(Shot(0, picture(0), 1, 1, ""), [], set())
    return made


@pytest.mark.parametrize("room", [100, 1 << 26])
@pytest.mark.parametrize("name", ["seen.mp4", "seen.png", "seen.json"])
def test_what_goes_with_the_bag_is_whole_or_what_was_there_before(name, room, tmp_path, capsys):
    """OpenCV's video writer says nothing of a full disk."""
    out, noise = tmp_path / name, np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    out.write_bytes(b"older")
    with room_for(room):
        if name == "seen.json":
            is_written = report().write(out)
        else:
            with Film.open(out, 10.0) if name == "seen.mp4" else ContactSheet.open(out) as sink:
                for number in range(9):
                    sink.write(Shot(number, noise, number, number, ""), [])
            is_written = sink.is_written
    assert is_written == (room > 100) == (out.read_bytes() != b"older")
    assert (f"{out}: the " in capsys.readouterr().err) != is_written and [*tmp_path.iterdir()] == [out]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Replays three images with these outputs, and says what files there are afterwards that were not before."""
    monkeypatch.setattr(replay, "make_tracker", lambda args, entries: FakeTracker())
    bag = write_bag(tmp_path / "bag", {"/image": [image_message(number) for number in range(3)]})
    (tmp_path / "p.yaml").write_text("- {object_id: cup, points: [[1, 2]]}")
    before = set(tmp_path.rglob("*"))

    def run(*words):
        code = cli.main(["replay", str(bag), "--prompts", str(tmp_path / "p.yaml"), *words])
        return code, {*tmp_path.rglob("*")} - before

    return run


@pytest.mark.parametrize("out", ["o.mcap", "o"])
@pytest.mark.parametrize("room", [10, 2000])
def test_a_bag_that_finds_no_room_is_a_sentence_and_nothing_is_left(out, room, run, tmp_path, capsys):
    with room_for(room):
        assert run("--out", str(tmp_path / out)) == (1, set())
    assert capsys.readouterr().err == f"sam2_ros replay: {tmp_path / out}: File too large\n"


def test_a_bag_that_is_unpacked_first_and_finds_no_room_for_that_says_where(run, tmp_path, monkeypatch, capsys):
    """Recorders with `--compression-mode file` make such; unpacked, they may be larger than all of /tmp."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    packed = write_bag(tmp_path / "packed", {"/image": [image_message(0)]}, packed=CompressionMode.FILE)
    before = {*tmp_path.rglob("*")}
    with room_for(2000), pytest.raises(sam2.BadInput, match=f"in {tmp_path}, where .* unpacked first; let TMPDIR name"):
        replay.main([str(packed), "--prompts", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "o.mcap")])
    assert {*tmp_path.rglob("*")} == before
    assert replay.main([str(packed), "--prompts", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "o.mcap")]) == 0


@pytest.mark.parametrize(
    ("last", "named"), [("rosbags.rosbag2.Writer.close", "o.mcap"), ("sam2_ros.replay_davis._add_line", "d")]
)
def test_a_replay_that_finds_no_room_for_its_end_leaves_nothing(last, named, run, tmp_path, monkeypatch, capsys):
    """All of a short bag is written then, because it is compressed; the data set's list is, too."""
    words = [f"--{name}={tmp_path / place}" for name, place in PLACES.items()]
    with monkeypatch.context() as full:
        full.setattr(last, lambda *what: Path("/dev/full").write_bytes(b"1"))
        assert run(*words) == (1, set())
    assert capsys.readouterr().err == f"sam2_ros replay: {tmp_path / named}: No space left on device\n"
    code, made = run(*words)
    assert code == 0 and made >= {tmp_path / place for place in PLACES.values()}, "and nothing is in its way"


def test_pictures_of_a_data_set_that_find_no_room_are_a_sentence_and_nothing_is_left(run, tmp_path, capsys):
    with room_for(300):
        assert run("--out", str(tmp_path / "o.mcap"), "--davis", str(tmp_path / "d")) == (1, set())
    assert capsys.readouterr().err == f"sam2_ros replay: {tmp_path / 'd'}: File too large\n"


def test_a_picture_that_cannot_be_moved_into_place_does_not_cost_the_bag(run, tmp_path, monkeypatch, capsys):
    """In /tmp nobody may replace a file of somebody else's."""

    def is_of_another_user(part, out, move=os.replace):
        if Path(out).suffix in (".mp4", ".png"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(part), str(out))
        move(part, out)

    monkeypatch.setattr(os, "replace", is_of_another_user)
    code, made = run(*(f"--{name}={tmp_path / place}" for name, place in PLACES.items()))
    lost = {tmp_path / "o.mp4", tmp_path / "o.png"}
    assert code == 0 and made >= {tmp_path / place for place in PLACES.values()} - lost and not made & lost
    said = capsys.readouterr()
    assert f"{tmp_path}/o.mp4: the video could not be written; Operation not permitted\n" in said.err
    assert "o.png: the sheet" in said.err and "o.png" not in said.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_outputs_are_moved_into_place_leaves_all_of_them(number, run, tmp_path, monkeypatch):
    def picture(sheet, draw=ContactSheet.picture):  # after the data set's video was moved, before the bag
        os.kill(os.getpid(), number)
        return draw(sheet)

    monkeypatch.setattr(ContactSheet, "picture", picture)
    before = signal.signal(number, signal.default_int_handler)  # a shell's background processes ignore SIGINT
    try:
        code, made = run(*(f"--{name}={tmp_path / place}" for name, place in PLACES.items()))
        assert code == 0 and made >= {tmp_path / place for place in PLACES.values()}
        assert signal.getsignal(number) is not signal.SIG_IGN, "only meanwhile"
    finally:
        signal.signal(number, before)


def test_a_working_folder_that_cannot_be_removed_does_not_make_a_whole_replay_a_failed_one(run, tmp_path, monkeypatch):
    """NFS keeps a file that somebody has open, and so its folder."""

    def is_not_empty(path, **_):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)

    with monkeypatch.context() as nfs:
        nfs.setattr(os, "rmdir", is_not_empty)
        code, made = run(*(f"--{name}={tmp_path / place}" for name, place in PLACES.items()))
    assert code == 0 and made >= {tmp_path / place for place in PLACES.values()}
