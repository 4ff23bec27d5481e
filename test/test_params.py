"""The table is the truth: the file, the descriptors and the refusals all say what it says."""

import dataclasses
import math
from pathlib import Path
from typing import get_origin

import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node
from rclpy.parameter import Parameter

import sam2
from sam2_ros import declare_params, params
from sam2_ros.classes import MAX_CLASSES
from sam2_ros.params import FIELDS, Settings

pytestmark = pytest.mark.ros
YAML = Path(__file__).parent.parent / "config" / "track.yaml"


@pytest.fixture
def declared():
    """A function that makes a node with overrides; gives the node, its settings and the list of changes."""
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def declare(*words, **overrides):
        given = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(Node("params", context=context, parameter_overrides=given, cli_args=["--ros-args", *words]))
        changes = []
        return nodes[-1], declare_params.declare(nodes[-1], lambda *change: changes.append(change)), changes

    yield declare
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_the_file_is_what_the_table_writes():
    assert YAML.read_text() == params.to_yaml(), "run: python -m sam2_ros.params > config/track.yaml"


def test_the_file_read_back_is_the_defaults():
    values = yaml.safe_load(YAML.read_text())["/**"]["ros__parameters"]
    assert params.settings_of(values) == Settings()
    kinds = {name: list if isinstance(row.default, tuple) else type(row.default) for name, row in FIELDS.items()}
    assert {name: type(value) for name, value in values.items()} == kinds


@pytest.mark.parametrize("name", FIELDS)
def test_every_row_is_complete(name):
    row = FIELDS[name]
    assert type(row.default) is (get_origin(row.type) or row.type) and params.refusal(name, row.default) == ""
    sentence = row.metadata["sentence"]
    assert sentence[0].isupper() and sentence.endswith(".")
    if row.type in (int, float):
        low, high = row.metadata["span"]
        assert low <= row.default <= high and type(low) is row.type and type(high) is row.type


def test_ros_gets_the_defaults_descriptions_ranges_and_read_only_flags(declared):
    node, settings, _ = declared()
    assert settings == Settings()
    for name, row in FIELDS.items():
        descriptor = node.describe_parameter(name)
        assert descriptor.description == row.metadata["sentence"]
        assert descriptor.read_only is not row.metadata["live"]
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        assert [(r.from_value, r.to_value) for r in ranges] == ([row.metadata["span"]] if row.metadata["span"] else [])


def test_values_given_at_start_are_taken(declared):
    _, settings, _ = declared(model="tiny", max_objects=3, lost_after_s=9.5, autostart=False)
    assert settings == dataclasses.replace(Settings(), model="tiny", max_objects=3, lost_after_s=9.5, autostart=False)


@pytest.mark.parametrize("name", ["cameras", "classes", "detector.classes"])
def test_an_empty_list_is_what_is_there_by_default(declared, name):
    """rcl cannot tell its type, and would say that it is not initialised."""
    _, settings, _ = declared("-p", f"{name}:=[]")
    assert settings == Settings()


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_objects", 0),
        ("max_objects", 255),
        ("lost_after_s", -1.0),
        ("image_transport", "theora"),
        ("precision", "int8"),
    ],
)
def test_a_wrong_value_at_start_is_refused(declared, name, value):
    with pytest.raises(InvalidParameterValueException):
        declared(**{name: value})


def test_a_wrong_type_at_start_is_refused(declared):
    with pytest.raises(InvalidParameterTypeException):
        declared(lost_after_s=5)


def test_a_live_change_is_reported_with_all_settings(declared):
    node, _, changes = declared()
    result = node.set_parameters([Parameter("target", value="cup")])[0]
    assert result.successful and changes == [(dataclasses.replace(Settings(), target="cup"), {"target"})]


@pytest.mark.parametrize(
    "name, value",
    [("overlay_opacity", 1.01), ("overlay_opacity", math.nan), ("jpeg_quality", 101), ("model", "tiny"), ("target", 3)],
)
def test_a_wrong_live_change_is_refused_with_a_reason(declared, name, value):
    node, settings, changes = declared()
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful and result.reason and changes == []
    assert declare_params.read(node) == settings


def test_a_refusal_names_parameter_bounds_unit_and_value():
    assert params.refusal("prompt_wait_s", 61.0) == "prompt_wait_s: expected 0.1 to 60.0 s, got 61.0"
    assert params.refusal("image_transport", "x") == "image_transport: expected one of raw, compressed, got 'x'"
    assert params.refusal("overlay_opacity", math.inf) and params.refusal("overlay_opacity", math.nan)
    assert params.refusal("prompt_wait_s", 60.0) == ""


@pytest.mark.parametrize(
    "name, value, is_good",
    [
        ("cameras", ("front", "Rear_2"), True), ("cameras", ("front", "front"), False), ("cameras", ("", "a"), False),
        ("cameras", ("2nd",), False), ("cameras", ("front/left",), False), ("cameras", ("fr ont",), False),
        ("cameras", tuple(f"c{n}" for n in range(params.MAX_CAMERAS)), True),
        ("cameras", tuple(f"c{n}" for n in range(params.MAX_CAMERAS + 1)), False),
        ("classes", ("cup",) * MAX_CLASSES, True), ("classes", ("cup",) * (MAX_CLASSES + 1), False),
    ],
)  # fmt: skip
def test_of_lists_every_name_and_how_many_count(name, value, is_good):
    assert (params.refusal(name, value) == "") == is_good


def test_a_parameter_that_is_none_is_warned_of_with_the_nearest_that_is_one(declared, monkeypatch):
    said = []
    monkeypatch.setattr(RcutilsLogger, "warning", lambda logger, sentence: said.append(sentence))
    declared(**{"max_object": 3, "zzz": 1, "qos_overrides./image.subscription.depth": 1, "use_sim_time": False})
    assert said == ["there is no parameter 'max_object'; did you mean max_objects?", "there is no parameter 'zzz'"]


def test_parameters_of_others_are_left_alone(declared):
    node, _, changes = declared()
    assert node.set_parameters([Parameter("use_sim_time", value=True)])[0].successful and changes == []


def test_limits_are_the_librarys_unless_told_otherwise():
    settings, limits = vars(Settings()), vars(sam2.Limits())
    shared = settings.keys() & limits.keys()
    assert shared == limits.keys() - {"pointers", "history_bytes", "points_per_prompt"}
    assert {name: settings[name] for name in shared} == {name: limits[name] for name in shared}


def test_what_of_a_group_is_not_as_by_default():
    assert params.changed(Settings(), "detector") == []
    settings = Settings(detector_confirm=3, detector_unattended=True, depth_enabled=True)
    assert params.changed(settings, "detector") == ["detector.confirm", "detector.unattended"]
