"""The launch files: under the real `launch` where it is installed (it has no wheel), and what can be told without."""

import ast
import importlib
import importlib.util
import os
import re
from pathlib import Path

import pytest
import yaml

from sam2_ros import fast_dds

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("launch/*.launch.py"))
PROFILE = fast_dds.PROFILES


def test_files_they_name_are_there():
    """A literal that names a file of ours names one that exists."""
    nodes = [node for path in FILES for node in ast.walk(ast.parse(path.read_text()))]
    words = {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    named = {word for word in words if word.endswith((".yaml", ".xml", ".rviz", ".launch.py")) and " " not in word}
    assert {"track.rviz", "track.launch.py"} <= named
    assert [word for word in named if not list(ROOT.glob(f"*/{word}"))] == []


def test_what_it_starts_of_ours_is_installed():
    """`ros2 launch` looks in lib/sam2_ros, where CMake puts an entry for a function `main`."""
    installed = dict(
        re.findall(r"^install_entry\((\w+) (\S+) lib/", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    )
    for module in installed.values():
        assert hasattr(importlib.import_module(module), "main"), module
    texts = [path.read_text() for path in FILES]
    started = {name for text in texts for name in re.findall(r'package="sam2_ros",\s*executable="(\w+)"', text)}
    assert started == set(installed) == {"track_node", "sam2_ros"}


def test_what_it_sets_over_the_file_are_parameters():
    pytest.importorskip("rclpy")
    from sam2_ros.params import FIELDS

    tree = ast.parse((ROOT / "launch/track.launch.py").read_text())
    named = {target.id: node.value for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
    kinds = {key.value: kind.id for key, kind in zip(named["OVERRIDES"].keys, named["OVERRIDES"].values, strict=True)}
    assert kinds.pop("use_sim_time") == "bool", "every node has it"
    assert kinds == {name: FIELDS[name].type.__name__ for name in kinds} and len(kinds) == 3
    single = {n.slice.value for n in ast.walk(tree) if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store)}
    assert single == {"depth.enabled"} <= FIELDS.keys()


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
def test_arguments_that_several_cameras_do_not_follow_say_so():
    arguments = load(ROOT / "launch/track.launch.py").get_launch_arguments()
    assert {each.name for each in arguments if "`cameras`" in each.description} == {"image", "depth", "camera_info"}


TOPICS = {"image": "image", "depth": "", "camera_info": "camera_info"}  # by default


def nodes_of(name: str, **asked: str):
    """What the file's own function makes of its arguments, and the context to look at it with."""
    entities = load(ROOT / "launch" / name).entities
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    context = LaunchContext()
    context.launch_configurations.update(asked)
    for entity in entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.visit(context)
    *_, function = (entity for entity in entities if isinstance(entity, OpaqueFunction))
    return function.execute(context), context


def evaluated(node, context):
    from launch_ros.utilities import evaluate_parameters

    return evaluate_parameters(context, node._Node__parameters)


def parameters_of(node, context) -> dict:
    return {name: value for one in evaluated(node, context) for name, value in one.items()}


@pytest.mark.ros
@pytest.mark.parametrize("asked", [None, "", "false", "0", "off", "true", "True", "1", "yes"])
def test_a_node_that_ends_is_started_again_if_asked_for(asked):
    (node,), context = nodes_of("track.launch.py", **({} if asked is None else {"respawn": asked}))
    from launch.utilities.type_utils import perform_typed_substitution

    respawns = perform_typed_substitution(context, node._ExecuteLocal__respawn, bool)
    assert respawns == (asked in ("true", "True", "1", "yes"))


@pytest.mark.ros
def test_a_parameter_file_is_there(tmp_path, monkeypatch):
    """launch_ros only warns of one that is not, and the node would start with the defaults."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.yaml").write_text("")
    (node,), context = nodes_of("track.launch.py", params_file="~/my.yaml", model="tiny")
    file, given = evaluated(node, context)
    assert file.samefile(tmp_path / "my.yaml") and given == {"model": "tiny"}
    for wrong in ("~/other.yaml", "/nowhere.yaml", str(tmp_path)):
        with pytest.raises(RuntimeError, match=r"^params_file /\S+: there is no such file$"):
            nodes_of("track.launch.py", params_file=wrong)


@pytest.mark.ros
def test_an_argument_that_is_left_empty_is_as_if_it_were_not_given():
    """As in a file around it, whose own arguments are empty."""
    empty = {"image": "", "depth": "", "camera_info": "", "params_file": "", "log_level": ""}
    made, said = [nodes_of("track.launch.py", **asked) for asked in ({}, empty)], []
    from launch.substitutions import TextSubstitution

    for (node,), context in made:
        node._perform_substitutions(context)
        words = [part.text for parts in node.cmd for part in parts if isinstance(part, TextSubstitution)]
        said.append((dict(node.expanded_remapping_rules), words))
    assert said[0] == said[1] and said[0][0]["image"] == "image" and "info" in said[0][1]


@pytest.mark.ros
@pytest.mark.parametrize(
    ("asked", "set_"),
    [
        ({}, {}),
        ({"model": "tiny", "device": "cpu"}, {"model": "tiny", "device": "cpu"}),
        ({"use_sim_time": "true"}, {"use_sim_time": True}),
        ({"use_sim_time": "false"}, {"use_sim_time": False}),
        ({"depth": "/camera/depth"}, {"depth.enabled": True}),
        ({"depth": "depth/image"}, {"depth.enabled": True}),
        ({"depth": ""}, {}),
    ],
)
def test_only_what_is_asked_for_is_set(asked, set_):
    """The rest is left to the `SetParameter` of an including file, over which also a file of defaults would win."""
    (node,), context = nodes_of("track.launch.py", **asked)
    assert parameters_of(node, context) == set_


@pytest.mark.ros
@pytest.mark.parametrize(
    ("pushed", "namespace", "topics", "name"),
    [
        ("", "", TOPICS, "/sam2"),
        ("", "", dict.fromkeys(TOPICS, ""), "/sam2"),
        ("", "robot", {"image": "front/image", "depth": "d", "camera_info": "c"}, "/robot/sam2"),
        ("/robot", "", TOPICS, "/robot/sam2"),
        ("/robot", "arm", TOPICS, "/robot/arm/sam2"),
        ("/robot", "/arm", TOPICS, "/arm/sam2"),
    ],
)
def test_the_camera_of_the_demo_is_where_the_tracker_looks(pushed, namespace, topics, name):
    """pushed: by PushRosNamespace of an including file."""
    around = {"namespace": namespace} | ({"ros_namespace": pushed} if pushed else {})
    (tracker,), track_context = nodes_of("track.launch.py", **around, **topics)
    (camera, viewer, hint), context = nodes_of("demo.launch.py", **around, rviz="true", **topics)
    for node, its_context in ((tracker, track_context), (camera, context), (viewer, context)):
        node._perform_substitutions(its_context)
    assert tracker.expanded_node_namespace == camera.expanded_node_namespace == (name.removesuffix("/sam2") or "/")
    assert set(camera.expanded_remapping_rules) < set(tracker.expanded_remapping_rules)
    assert [name for name, _ in camera.expanded_remapping_rules] == ["image", "depth/image", "camera_info"]
    assert f"--node {name} " in "".join(part.text for part in hint.msg)
    shown = yaml.safe_load((ROOT / "config/track.rviz").read_text())["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"] for display in shown}
    assert dict(viewer.expanded_remapping_rules) == {topic: topic.replace("/sam2", name) for topic in topics}


@pytest.mark.ros
@pytest.mark.parametrize(("rviz", "is_shown"), [("false", False), ("0", False), ("true", True), ("1", True)])
def test_rviz_if_asked_for(rviz, is_shown):
    (_, viewer, _), context = nodes_of("demo.launch.py", namespace="", rviz=rviz, **TOPICS)
    assert viewer.condition.evaluate(context) == is_shown


@pytest.mark.ros
@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("demo.launch.py", {"rviz": "maybe"}, "maybe"),
        ("demo.launch.py", {"rviz": "true"}, "rviz2"),
        ("replay.launch.py", {"bag": "~/kitchen"}, "bag /.*/kitchen: there is no such file"),
        ("replay.launch.py", {"bag": ""}, "bag: expected a folder or file, got ''"),
        ("replay.launch.py", {"bag": ".", "delay": "abc"}, "delay: expected a number of seconds, 0 or more, got 'abc'"),
        ("replay.launch.py", {"bag": ".", "delay": "-1"}, "delay: .* got '-1'"),
        ("replay.launch.py", {"bag": ".", "delay": "inf"}, "delay: .* got 'inf'"),
        ("replay.launch.py", {"bag": ".", "delay": "nan"}, "delay: .* got 'nan'"),
        ("replay.launch.py", {"bag": ".", "play_options": "'x"}, "play_options .*quotation"),
    ],
)
def test_a_mistake_is_told_before_the_tracker_is_started(name, asked, told, monkeypatch):
    """`launch` does not end what is just being started when it ends with an error."""
    entities = load(ROOT / "launch" / name).entities
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/without_rviz")
    from launch import LaunchContext
    from launch.actions import IncludeLaunchDescription

    context, started = LaunchContext(), []
    context.launch_configurations.update(asked)
    with pytest.raises(Exception, match=told):
        for entity in entities:
            started += [entity] * isinstance(entity, IncludeLaunchDescription)
            entity.visit(context)
    assert not started


@pytest.mark.ros
@pytest.mark.parametrize("code", [0, 3])
def test_a_launch_ends_with_its_player_and_says_whether_that_failed(code, tmp_path, monkeypatch):
    (tmp_path / "ros2").write_text(f"#!/bin/sh\nexit {code}\n")
    (tmp_path / "ros2").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (timer,), _ = nodes_of("replay.launch.py", bag=".", delay="0.5")
    from launch import LaunchDescription, LaunchService
    from launch.actions import ExecuteProcess

    beside = ExecuteProcess(cmd=["sleep", "60"])
    service = LaunchService(noninteractive=True)
    service.include_launch_description(LaunchDescription([beside, timer]))
    assert service.run() == min(code, 1) and beside.return_code is not None


@pytest.mark.ros
@pytest.mark.parametrize("callers", [None, "own.xml"])
def test_a_bag_has_room_for_its_images_unless_somebody_else_cares(callers, monkeypatch):
    monkeypatch.setattr(fast_dds, "_shared_memory_bytes", lambda: 1 << 40)
    if callers:
        monkeypatch.setenv(PROFILE, callers)
    else:
        monkeypatch.delenv(PROFILE, raising=False)
    (timer,), context = nodes_of("replay.launch.py", bag=".", play_options="--loop --rate 0.5")
    (player,) = timer.actions
    player.prepare(context)
    assert player.process_details["cmd"] == [*"ros2 bag play . --clock --delay 0.5 --loop --rate 0.5".split()]
    given = player.process_details["env"].get(PROFILE)
    assert given == "own.xml" if callers else given.endswith("config/fastdds_shm.xml")


@pytest.mark.ros
@pytest.mark.parametrize(("asked", "seconds"), [({}, 10.0), ({"delay": "0"}, 0.0)])
def test_a_bag_is_played_after_the_delay_and_looped_without_it(asked, seconds):
    """It runs out when the scope of the launch file's arguments has long gone."""
    (timer,), _ = nodes_of("replay.launch.py", bag=".", **asked)
    from launch import LaunchContext
    from launch.utilities.type_utils import perform_typed_substitution

    assert perform_typed_substitution(LaunchContext(), timer.period, float) == seconds


@pytest.mark.ros
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_changed_for_what_else_is_launched(path):
    entities = load(path).entities
    from launch.actions import AppendEnvironmentVariable, SetEnvironmentVariable

    assert not [entity for entity in entities if isinstance(entity, AppendEnvironmentVariable | SetEnvironmentVariable)]
