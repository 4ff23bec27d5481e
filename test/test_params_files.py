"""A parameter file that is for other nodes: said so exactly when rcl, which is asked, takes nothing from it."""

import re
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from ros_rig import PATIENCE_S

from sam2_ros import params_files

pytestmark = pytest.mark.ros

ROOT, ROBOT = "/sam2", "/robot1/sam2"
FLAT = "{name}:\n  ros__parameters: {{max_objects: 3}}\n"
NAMES = [
    "sam2", "/sam2", "camera", "robot1/sam2", "/robot1/sam2", "/robot2/sam2", "/**", "/*", "/**/sam2", "/*/sam2",
    "/robot1/*", "/robot1/**", "/robot1/**/sam2", "/sam", "/sam2x",
]  # fmt: skip


def taken(path, node):
    """What rcl says."""
    namespace, _, name = node.rpartition("/")
    context = Context()
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    try:
        made = Node(
            name, namespace=namespace or "/", context=context, automatically_declare_parameters_from_overrides=True
        )
        try:
            return made.has_parameter("max_objects")
        finally:
            made.destroy_node()
    finally:
        context.shutdown()


@pytest.mark.parametrize("node", [ROOT, ROBOT])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_told_just_when_nothing_is_taken(tmp_path, name, node):
    path = tmp_path / "params.yaml"
    path.write_text(FLAT.format(name=name))
    said = list(params_files.strangers(["--ros-args", "--params-file", str(path)], node))
    assert (not said) == taken(path, node), said
    assert all(re.search(f"for /{re.escape(name.strip('/'))}, and this node is {node}", sentence) for sentence in said)


NESTED = """
robots:
  one:
    sam2: {ros__parameters: {max_objects: 3, depth: {enabled: true}}}
    camera: {ros__parameters: {rate: 30}}
lidar: {ros__parameters: {since: 2001-99-99}}
"""


@pytest.mark.parametrize("node", ["/robots/one/sam2", "/robots/two/sam2"])
def test_namespaces_may_be_nested(tmp_path, node):
    """And a value that YAML's own types refuse, as rcl does not, is of no interest."""
    path = tmp_path / "params.yaml"
    path.write_text(NESTED)
    said = list(params_files.strangers(["--params-file", str(path)], node))
    assert bool(said) == ("two" in node) and (not said) == taken(path, node)
    assert all("for /robots/one/sam2 and /robots/one/camera and /lidar, and" in sentence for sentence in said)


@pytest.mark.parametrize(
    "text",
    [
        "sam2:\n  ros__parameters:\n    max_objects: 3\t# a tab\n",
        "sam2:\n  ros__parameters:\n    max_objects:\t3\n",
        "sam2: {ros__parameters: {max_objects: 3}}\nsam2: {ros__parameters: {model: nano}}\n",
        "camera: {ros__parameters: {a: 1}}\nsam2: {ros__parameters: {max_objects: 3}}\ncamera: {x: {}}\n",
    ],
)
def test_what_rcl_takes_is_never_an_error(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert taken(path, ROOT)
    assert list(params_files.strangers(["--params-file", str(path)], ROOT)) == []


def test_a_file_with_nothing_in_it_is_for_nobody(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("")
    (said,) = params_files.strangers(["--params-file", str(path)], "/sam2")
    assert "for nobody, and this node is /sam2" in said


@pytest.mark.parametrize("namespace", ["/", "/robot1"])
def test_the_node_says_so_before_it_loads_anything(tmp_path, namespace):
    path = tmp_path / "params.yaml"
    path.write_text(FLAT.format(name="sam2"))
    code = (
        "import os, sys; from sam2_ros.main import main\n"
        "def stop(settings): print('max_objects', settings.max_objects, flush=True); os._exit(0)\n"
        "main(sys.argv[1:], stop)"
    )
    words = ["--ros-args", "--params-file", str(path), "-r", f"__ns:={namespace}"]
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=PATIENCE_S)
    heard = ended.stdout + ended.stderr
    assert ("this node is /robot1/sam2: none of them counts" in heard) == (namespace == "/robot1"), heard
    assert f"max_objects {3 if namespace == '/' else 16}" in heard
