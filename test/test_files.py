"""Files are written whole or not at all, and what cannot be written is said before the work."""

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from sam2 import evaluation_files, evaluation_report, files, weights_cache
from sam2.errors import BadInput
from sam2.training import dataset_files, dataset_masks, report


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.pt"
    files.write_whole(path, b"old")

    def is_full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", is_full)
    with pytest.raises(OSError) as caught:
        files.write_whole(path, b"new, but half")
    assert str(caught.value) == f"{path}: cannot be written (No space left on device); make room, or name another place"
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path], "nothing of the new one"

    def is_interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", is_interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, b"new, but half")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path], "nor after Ctrl-C"


def test_a_folder_is_held_by_one_at_a_time(tmp_path, monkeypatch):
    folder = tmp_path / "new"
    for _ in range(2):  # let go when it is left, and when it is left by an error
        with pytest.raises(KeyError), files.alone_in(folder):
            with pytest.raises(BadInput, match=f"{folder}: .* or name another --out"), files.alone_in(folder):
                pass
            raise KeyError

    def knows_no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", knows_no_locks)
    with files.alone_in(folder), files.alone_in(folder):
        assert not list(folder.iterdir())


def test_whoever_comes_second_is_told_waits_and_has_the_folder_afterwards(tmp_path, monkeypatch, capsys):
    waits = []

    def has_waited(opened, operation, lock=files.fcntl.flock):
        if operation == files.fcntl.LOCK_EX:
            waits.append(opened)
            first.close()
        lock(opened, operation)

    monkeypatch.setattr(files.fcntl, "flock", has_waited)
    first = ExitStack()
    first.enter_context(files.in_turn(tmp_path / "new", "not this"))
    with files.in_turn(tmp_path / "new", "somebody is at work"):
        assert len(waits) == 1 and capsys.readouterr().err == "somebody is at work\n"
        with pytest.raises(BadInput), files.alone_in(tmp_path / "new"):
            pass
    assert not list((tmp_path / "new").iterdir())


def test_what_can_be_written_is_not_made_by_the_check(tmp_path):
    (tmp_path / "old.json").write_text("{}")
    for path in (tmp_path / "old.json", tmp_path / "new.json", tmp_path / "a" / "b" / "new.json"):
        files.check_file(path, "--json")
    files.check_folder(tmp_path / "a" / "b", "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


def test_what_cannot_be_written_names_the_option_and_the_place(tmp_path):
    (tmp_path / "file").write_text("")
    for check, path, words in (
        (files.check_file, tmp_path, f"--x: expected the name of a file, got the folder {tmp_path}; add a name"),
        (files.check_folder, tmp_path / "file", f"--x: expected a folder, got the file {tmp_path}/file"),
        (files.check_file, tmp_path / "file" / "a" / "b", f"--x: expected a folder, got the file {tmp_path}/file"),
        (files.check_file, Path("/proc/foo/x.json"), "--x: the folder /proc cannot be written"),
    ):
        with pytest.raises(BadInput) as caught:
            check(path, "--x")
        assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    "read",
    [
        weights_cache.sha256,
        dataset_files.read_rgb,
        dataset_files.read_list,
        lambda path: dataset_masks._masklets(path, 0, 0),
        evaluation_files._read,
        lambda path: evaluation_report.split_card(path, "click"),
        lambda path: report.append_row(path, {"step": 1}),
        lambda path: report.drop_rows(path, 1),
        report.read_rows,
    ],
)
def test_what_the_disk_cannot_read_is_named(read, tmp_path):
    (tmp_path / "damaged").symlink_to("/proc/self/mem")  # reading address 0 is the same error
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path}/damaged'"):
        read(tmp_path / "damaged")


def test_what_killed_processes_left_of_a_name_goes_when_it_is_next_written(tmp_path):
    """Whatever it is: saved objects, or a training's state, which is large."""
    names = ["x[1].7.part", "x[1].8.part", "x1.7.part", "x[1].backup.part", "y.7.part"]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "x[1].8.part").touch()  # it may be being written
    files.write_whole(tmp_path / "x[1]", b"new")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(["x[1]", *names[1:]])
