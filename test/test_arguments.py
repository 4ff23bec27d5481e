"""Paths on the command lines: none of them is empty, and ~ is the home folder."""

import importlib
from pathlib import Path

import pytest

from sam2 import files
from sam2_ros import arguments

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")

pytestmark = pytest.mark.ros

REPLAY = {"--prompts": "p.yaml", "--out": "o.mcap"}
PATHS = [
    *(("replay", option) for option in ("--prompts", "--out", "--overlay", "--sheet", "--report", "--davis")),
    ("replay", "--checkpoint"), ("replay", "SOURCE"), ("demo", "--out"), ("demo", "--checkpoint"), ("prompt", "--mask"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "option"), PATHS)
def test_a_path_from_a_variable_that_is_not_set_is_refused(command, option, capsys, tmp_path, monkeypatch):
    """`Path` would take it for the current folder, whose films the demo would replace."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.mp4").write_text("somebody's")
    words = {"replay": {**REPLAY, option: ""}, "demo": {option: ""}, "prompt": {"--box": "1", option: ""}}[command]
    source = [words.pop("SOURCE", "in")] if command == "replay" else []
    line = [word for pair in words.items() for word in pair]
    line = [*line[:1], "1", "2", "3", "4", *line[2:]] if command == "prompt" else line
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"sam2_ros.{command}").main([*source, *line])
    assert ended.value.code == 2 and (tmp_path / "demo.mp4").read_text() == "somebody's"
    assert f"argument {option}: expected a path, got an empty text; is a variable not set?" in capsys.readouterr().err


@pytest.mark.parametrize("package", [arguments, files])
def test_a_home_folder_that_no_shell_has_put_in_is_meant(package, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert [package.path_argument(word) for word in ("~/x", "a/~")] == [Path("/home/me/x"), Path("a/~")]
