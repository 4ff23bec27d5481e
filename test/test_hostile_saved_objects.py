"""Saved objects made to harm, and disks that fail: what is refused is one short sentence, what was saved is kept."""

import errno
import os

import pytest
from small_stream import small_model
from test_saved_objects import rewritten, used

import sam2
from sam2 import saved_objects

EVIL = "evil\n[FATAL] forged " + "x" * 100_000


@pytest.mark.parametrize(
    ("about", "match"),
    [
        ({"saved_at": 10**400}, "damaged or other one"),
        ({"format": EVIL}, r"got 'evil\\n"),
        ({"model": EVIL}, r"made with model 'evil\\n"),
        ({"weights": [EVIL]}, "made with model|made with weights"),
        ({"objects": [{"object_id": EVIL, "class_name": ""}] * 100}, r"got \['evil\\n"),
    ],
)
def test_what_a_file_says_of_itself_is_refused_in_one_short_line(tmp_path, about, match):
    used().save(tmp_path / "x")
    rewritten(tmp_path / "x", about)
    with pytest.raises(sam2.BadInput, match=match) as refusal:
        sam2.Tracker(small_model()).restore(tmp_path / "x")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 1500


def test_of_a_file_with_thousands_of_objects_not_all_are_named(tmp_path):
    used().save(tmp_path / "x")
    rewritten(tmp_path / "x", {"objects": [{"object_id": f"thing {n}", "class_name": ""} for n in range(5000)]})
    with pytest.raises(sam2.UnknownObject, match="no cup in it; it has thing 0, thing 1, ") as refusal:
        sam2.Tracker(small_model()).restore(tmp_path / "x", ["cup"])
    assert len(str(refusal.value)) < 1500


@pytest.mark.parametrize("path", ["b" * 300, "b/" * 5000 + "b"])
def test_a_name_that_is_too_long_is_refused(path):
    with pytest.raises(sam2.BadInput, match="cannot be read .File name too long"):
        sam2.Tracker(small_model()).restore(path)
    with pytest.raises(sam2.BadInput, match="cannot be written"):
        used().save(path)


def test_only_files_are_said_to_be_saved_there(tmp_path):
    used().save(tmp_path / "kept.safetensors")
    os.mkfifo(tmp_path / "x.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(sam2.BadInput, match="no such file; saved there: kept$"):
        sam2.Tracker(small_model()).restore(tmp_path / "x.safetensors")


def refuse(*_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_folder_that_is_closed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_objects.Path, "is_file", refuse)
    with pytest.raises(sam2.BadInput, match="cannot be read .Permission denied"):
        sam2.Tracker(small_model()).restore(tmp_path / "x")


def test_a_file_that_is_another_users_is_not_called_damaged(tmp_path, monkeypatch):
    """Of one that could be opened by whoever looks, but not be read, as of a network's disk, likewise."""
    used().save(tmp_path / "x")
    for name in ("open", "safe_open"):
        with (
            monkeypatch.context() as patch,
            pytest.raises(sam2.BadInput, match=r"cannot be read \(Permission denied\)$"),
        ):
            patch.setattr(saved_objects, name, refuse, raising=False)
            sam2.Tracker(small_model()).restore(tmp_path / "x")
    assert sam2.Tracker(small_model()).restore(tmp_path / "x") == ["a", "b"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_who_may_read_a_file_is_for_the_umask_to_say(tmp_path, umask):
    """safetensors' own files are only for who made them; a node in a container is root, who reads them is not."""
    before = os.umask(umask)
    try:
        used().save(tmp_path / "x")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_file_replaces_the_old_one_only_once_it_is_on_the_disk(tmp_path, monkeypatch):
    used().save(tmp_path / "x", ["a"])
    before, synced = (tmp_path / "x").read_bytes(), []

    def is_full(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", is_full)
    with pytest.raises(
        sam2.BadInput, match=r"^saved objects \S*x: cannot be written \(No space left on device\); make room"
    ):
        used().save(tmp_path / "x")
    assert synced and synced[0] > len(before), "whole"
    assert (tmp_path / "x").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
