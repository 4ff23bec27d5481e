"""A disk that is full: what a replay leaves is whole or not there, and it is said in a sentence."""

import resource
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import image_message, picture, write_bag
from fakes import FakeTracker

from sam2_ros import cli, replay
from sam2_ros.contact_sheet import ContactSheet
from sam2_ros.film import Film
from sam2_ros.replay_report import Report
from sam2_ros.replay_source import Shot, Source

pytestmark = pytest.mark.ros


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


def test_a_bag_that_finds_no_room_is_a_sentence_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(replay, "load_tracker", lambda args, entries: FakeTracker())
    bag = write_bag(tmp_path / "bag", {"/image": [image_message(number) for number in range(3)]})
    (tmp_path / "p.yaml").write_text("- {object_id: cup, points: [[1, 2]]}")
    before = sorted(tmp_path.rglob("*"))
    with room_for(2000):
        code = cli.main(["replay", str(bag), "--prompts", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "o.mcap")])
    assert code == 1 and sorted(tmp_path.rglob("*")) == before
    assert capsys.readouterr().err == "sam2_ros replay: a file that it writes: File too large\n"
