"""The SROS2 policy names exactly the node's topics and services, and a participant it does not know is not heard."""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from fakes import FakeTracker
from rclpy.parameter import Parameter
from ros_rig import PATIENCE_S, NodeProcess, children_path

from sam2_ros import transforms, vision
from sam2_ros.camera import Camera
from sam2_ros.node import TrackNode
from sam2_ros.requests import Code

pytestmark = pytest.mark.ros
POLICY = Path(__file__).parent.parent / "config" / "sam2.policy.xml"
NAME = "policed"  # of no other test's node, which the graph may still know for a while
ELSEWHERE = {"/image/compressed", "/clock"}  # with the other image transport, with sim time
if transforms.tf2_ros is None:
    ELSEWHERE |= {"/tf", "/tf_static", "/tf2_frames"}
if not vision.INSTALLED:
    ELSEWHERE |= {f"/{NAME}/prompt_detections", f"/{NAME}/detections", f"/{NAME}/label_info"}


def allowed(kind: str, attribute: str) -> set[str]:
    """Names with `attribute` = ALLOW, resolved for the node /policed."""
    names = set()
    for group in ElementTree.parse(POLICY).iter(f"{kind}s"):
        if group.get(attribute) == "ALLOW":
            names |= {entry.text.replace("~", f"/{NAME}") for entry in group.iter(kind)}
    return {name if name.startswith("/") else f"/{name}" for name in names}


def test_the_policy_is_the_graph(rig):
    node = TrackNode(
        lambda settings: FakeTracker(), context=rig.context, cli_args=["--ros-args", "-r", f"__node:={NAME}"],
        parameter_overrides=[
            Parameter("depth.enabled", value=True),
            Parameter("depth.target_frame", value="map" if transforms.tf2_ros else ""),
        ],
    )  # fmt: skip
    node.trigger_configure()
    node.trigger_activate()
    graph = {
        ("topic", "publish"): node.get_publisher_names_and_types_by_node,
        ("topic", "subscribe"): node.get_subscriber_names_and_types_by_node,
        ("service", "reply"): node.get_service_names_and_types_by_node,
    }

    def names(query) -> set[str]:
        return {name for name, _ in query(NAME, "/")}

    for (kind, attribute), query in graph.items():  # which learns even of what is its own a little later
        wanted = allowed(kind, attribute)
        rig.until(lambda wanted=wanted, query=query: wanted <= names(query) | ELSEWHERE)
        assert names(query) <= wanted
    assert node.get_client_names_and_types_by_node(NAME, "/") == []
    node.stop()
    node.destroy_node()


def test_what_the_policy_does_not_allow_is_said(rig, monkeypatch):
    """CycloneDDS gives no reason for it: here as for an image topic that was renamed for the node only."""

    def refuse(*_):
        raise RuntimeError("failed to create topic [rt/camera/image_raw] for unknown reasons, at rmw_node.cpp:1947")

    node = TrackNode(lambda settings: FakeTracker(), context=rig.context)
    node.trigger_configure()
    monkeypatch.setattr(Camera, "open", refuse)
    node.trigger_activate()
    code, said = node.why_closed()
    assert code == Code.NOT_ACTIVE
    assert "[rt/camera/image_raw]" in said and "does the policy allow this name?" in said
    node.stop()
    node.destroy_node()


@pytest.mark.skipif(importlib.util.find_spec("sros2") is None, reason="sros2 makes the keys, and is not installed")
def test_with_security_enforced_a_foreign_participant_is_ignored(rig, tmp_path):
    """And one with keys of the same authority is answered: what the policy allows is enough for that."""
    keys = tmp_path / "keys"
    for words in (["keystore", str(keys)], ["enclave", str(keys), "/sam2"], ["enclave", str(keys), "/operator"]):
        subprocess.run(["ros2", "security", f"create_{words[0]}", *words[1:]], check=True)
    subprocess.run(["ros2", "security", "create_permission", str(keys), "/sam2", str(POLICY)], check=True)
    secure = {
        **os.environ, "ROS_SECURITY_KEYSTORE": str(keys), "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_ENCLAVE_OVERRIDE": "/sam2", "PYTHONPATH": children_path(),
    }  # fmt: skip
    command = [sys.executable, "-m", "sam2_ros.cli", "objects"]
    with NodeProcess(environment=secure) as node, NodeProcess(remap={"__ns": "/open"}) as other:
        asked = subprocess.run(
            command, env={**secure, "ROS_SECURITY_ENCLAVE_OVERRIDE": "/operator"}, capture_output=True, text=True
        )
        if re.search("(doesn't|does not) have (the )?security", asked.stderr):
            assert node.exit_code(PATIENCE_S) == 1
            pytest.skip("the middleware was built without security")
        assert asked.returncode == 0, asked.stderr
        rig.until(lambda: rig.node.count_publishers("/open/sam2/tracks") == 1)
        publisher = rig.camera()._publisher
        assert rig.node.count_publishers("/sam2/tracks") == 0 == publisher.get_subscription_count()
        assert node.process.poll() is None
        other.end()
