"""Where saved objects are: cameras and nodes share no file, names stay in the folder, and a home is not needed."""

from pathlib import Path

import pytest

import sam2
from sam2_ros.save_folder import saved_path


def test_nodes_and_cameras_of_one_name_have_files_of_their_own():
    who = [
        ("", ""),
        ("", "front"),
        ("front", ""),
        ("/robot/sam2", ""),
        ("/robot/sam2", "front"),
        ("robot/sam2/front", ""),
    ]
    paths = [saved_path("/there", node, camera, "kitchen") for node, camera in who]
    assert len(set(paths)) == len(who) and paths[0] == Path("/there/kitchen.safetensors")
    assert all(path.is_relative_to("/there") and path.name == "kitchen.safetensors" for path in paths)


@pytest.mark.parametrize("name", ["../x", "", "a/b", "x.y", "x" * 101, "a\n", "ü"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name):
    with pytest.raises(sam2.BadInput, match="1 to 100 letters"):
        saved_path("/there", "", "", name)


def test_a_folder_may_be_below_home(monkeypatch, tmp_path):
    """No shell has expanded it in a file of parameters."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert saved_path("~/things", "", "", "x") == tmp_path / "things" / "x.safetensors"


def test_without_a_home_there_is_no_default_folder_and_it_says_what_to_set(monkeypatch):
    assert saved_path("", "", "", "x") == Path.home() / ".ros" / "sam2_objects" / "x.safetensors"

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(sam2.BadInput, match="Could not determine home directory. set the parameter save_folder"):
        saved_path("", "", "", "x")
    assert saved_path("/there", "", "", "x") == Path("/there/x.safetensors")
