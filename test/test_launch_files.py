"""The launch files: under the real `launch` where it is installed (it has no wheel), and what can be told without."""

import ast
import importlib.util
import os
from pathlib import Path

import pytest
import yaml

from sam2_ros import fast_dds

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("launch/*.launch.py"))
PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_it_names_are_there(path):
    """A literal that names a file of ours names one that exists."""
    words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    named = {word for word in words if str(word).endswith((".yaml", ".xml", ".rviz", ".launch.py")) and " " not in word}
    assert named, "every launch file names at least one"
    assert [word for word in named if not list(ROOT.glob(f"*/{word}"))] == []


def test_rviz_configuration_is_yaml_and_shows_the_overlay():
    shown = yaml.safe_load((ROOT / "config/track.rviz").read_text())["Visualization Manager"]["Displays"]
    assert "/sam2/overlay" in [display["Topic"]["Value"] for display in shown]


def load(path: Path):
    pytest.importorskip("launch_ros", reason="launch_ros is not installed: it comes with an installed ROS 2")
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.mark.ros
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_is_described(path):
    arguments = load(path).get_launch_arguments()
    assert arguments
    assert [argument.name for argument in arguments if len(argument.description) < 10] == []


@pytest.mark.ros
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_takes_the_arguments_of_track(path):
    track = {argument.name for argument in load(ROOT / "launch/track.launch.py").get_launch_arguments()}
    assert {"image", "model", "checkpoint", "device", "params_file", "namespace", "log_level"} <= track
    assert track <= {argument.name for argument in load(path).get_launch_arguments()}


@pytest.mark.ros
@pytest.mark.parametrize(("asked", "respawns"), [({}, False), ({"respawn": "true"}, True)])
def test_a_node_that_ends_is_started_again_if_asked_for(asked, respawns):
    description = load(ROOT / "launch/track.launch.py")
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    context = LaunchContext()
    context.launch_configurations.update(asked)
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.visit(context)
    (node,) = next(entity for entity in description.entities if isinstance(entity, OpaqueFunction)).execute(context)
    assert node._ExecuteLocal__respawn == respawns


@pytest.mark.ros
@pytest.mark.skipif(fast_dds._shared_memory_bytes() < 2 * fast_dds.SEGMENT_BYTES, reason="/dev/shm has no room")
@pytest.mark.parametrize("callers", [None, "own.xml"])
def test_a_dds_profile_of_the_callers_stays(callers, monkeypatch):
    if callers:
        monkeypatch.setenv(PROFILE, callers)
    else:
        monkeypatch.delenv(PROFILE, raising=False)
    description = load(ROOT / "launch/track.launch.py")
    from launch import LaunchContext
    from launch.actions import SetEnvironmentVariable

    context = LaunchContext()
    before = dict(os.environ)
    try:
        for entity in description.entities:
            if isinstance(entity, SetEnvironmentVariable):
                entity.visit(context)
        after = context.environment[PROFILE]
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert after.endswith(callers or "config/fastdds_shm.xml")
