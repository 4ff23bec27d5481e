"""The README's tables of the node are true: every topic and service with its type, its QoS, and nothing else."""

import re
from itertools import zip_longest
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from fakes import FakeTracker
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from sam2_ros import vision
from sam2_ros.node import TICK_S, TICKS_PER_REPORT, TrackNode
from sam2_ros.params import Settings

pytestmark = pytest.mark.ros
README = (Path(__file__).parent.parent / "README.md").read_text()
OF_EVERY_NODE = re.compile(r"/rosout|/parameter_events|/clock|/tf|/tf_static|.*/transition_event")
SERVICES_OF_EVERY_NODE = re.compile(r"rcl_interfaces|lifecycle_msgs|type_description_interfaces|tf2_msgs")


def table(text: str, head: str) -> list[list[str]]:
    """The cells of the rows under `| head |`."""
    rows = text.split(f"| {head} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def named(text: str, head: str) -> dict[str, tuple[str, str, str]]:
    """(type, what is said of the type, third column) by name; a row may have several names, and as many types or one.

    What needs vision_msgs is left out where it is not installed.
    """
    found = {}
    for names, types, third in table(text, head):
        if "where vision_msgs is installed" in names + third and not vision.INSTALLED:
            continue
        kinds = re.findall(r"(?:(\w+)/)?\b([A-Z]\w*)", types.split(" (")[0])
        package = kinds[0][0]
        names = [name for name in re.findall(r"`([^`]+)`", names) if re.fullmatch(r"[~/\w]+", name)]
        for name, (own, kind) in zip_longest(names, kinds, fillvalue=kinds[-1]):
            found[name] = (f"{own or package}/{kind}", types, third)
    return found


def resolved(name: str) -> str:
    return name.replace("~", "/sam2") if name.startswith(("~", "/")) else f"/{name}"


def type_name(kind) -> str:
    return f"{kind.__module__.split('.')[0]}/{kind.__name__}"


@pytest.fixture
def node(rig):
    """Active, with everything that can be switched on."""
    given = [Parameter("depth.enabled", value=True)]
    made = TrackNode(lambda settings: FakeTracker(), context=rig.context, parameter_overrides=given)
    made.autostart()
    yield made
    made.stop()
    made.destroy_node()


def inputs(node) -> dict:
    subscriptions = {s.topic_name: s for s in node.subscriptions}
    return {name: s for name, s in subscriptions.items() if not OF_EVERY_NODE.fullmatch(name)}


def outputs(node) -> dict:
    publishers = {p.topic_name: p for p in node.publishers}
    return {name: p for name, p in publishers.items() if not OF_EVERY_NODE.fullmatch(name)}


def types(entities: dict) -> dict[str, str]:
    return {name: type_name(entity.msg_type) for name, entity in entities.items()}


def said(head: str) -> dict[str, str]:
    return {resolved(name): kind for name, (kind, _, _) in named(README, head).items()}


def test_the_inputs_are_those_of_the_node(node):
    other = said("input | type | QoS")
    assert other.pop("/image/compressed") == "sensor_msgs/CompressedImage"  # instead of the image, on demand
    assert types(inputs(node)) == other


def test_the_compressed_image_is_an_input_on_demand(rig):
    asked = [Parameter("image_transport", value="compressed")]
    node = TrackNode(lambda settings: FakeTracker(), context=rig.context, parameter_overrides=asked)
    node.autostart()
    found = types(inputs(node))
    assert "/image" not in found and found["/image/compressed"] == said("input | type | QoS")["/image/compressed"]
    node.stop()
    node.destroy_node()


def test_the_outputs_are_those_of_the_node(node):
    assert types(outputs(node)) == said("output | type | what it is")


def test_the_services_are_those_of_the_node(node):
    services = {resolved(s.srv_name): type_name(s.srv_type) for s in node.services}
    ours = {name: kind for name, kind in services.items() if not SERVICES_OF_EVERY_NODE.match(kind)}
    assert ours == said("service | type | what it does")


def test_the_inputs_have_the_qos_that_is_said(node):
    """What matches its publisher is best effort as long as there is none."""
    for name, (_, _, qos) in named(README, "input | type | QoS").items():
        if name == "image/compressed":
            continue
        profile = inputs(node)[resolved(name)].qos_profile
        depth = int(re.search(r"depth (\d+)", qos)[1])
        reliable = ReliabilityPolicy.RELIABLE if qos.startswith("reliable") else ReliabilityPolicy.BEST_EFFORT
        assert ("best effort" in qos) + qos.startswith("reliable") + ("matches the publisher" in qos) == 1, qos
        assert (profile.depth, profile.reliability) == (depth, reliable), name
        assert profile.durability == DurabilityPolicy.VOLATILE, name


@pytest.mark.parametrize("policy", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def test_what_matches_its_publisher_does_so(rig, node, policy):
    rows = {resolved(name): row[2] for name, row in named(README, "input | type | QoS").items()}
    topics = [topic for topic, qos in rows.items() if "matches the publisher" in qos and "compressed" not in topic]
    assert topics == ["/image", "/depth/image", "/camera_info"]
    latched = QoSProfile(depth=1, reliability=policy, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for topic in topics:
        rig.node.create_publisher(CameraInfo if topic == "/camera_info" else Image, topic, latched)

    def follows():  # the graph learns of a publisher a little later
        node._on_tick()
        found = {topic: inputs(node)[topic].qos_profile for topic in topics}
        assert all((qos.durability == latched.durability) <= ("durability" in rows[t]) for t, qos in found.items())
        return all(qos.reliability == policy for qos in found.values()) and (
            found["/camera_info"].durability == latched.durability
        )

    rig.until(lambda: all(node.get_publishers_info_by_topic(topic) for topic in topics))
    rig.until(follows)


def test_the_outputs_are_reliable_and_latched_where_it_is_said(node):
    for name, (_, kind, _) in named(README, "output | type | what it is").items():
        profile = outputs(node)[resolved(name)].qos_profile
        latched = DurabilityPolicy.TRANSIENT_LOCAL if "latched" in kind else DurabilityPolicy.VOLATILE
        assert (profile.reliability, profile.durability) == (ReliabilityPolicy.RELIABLE, latched), name


def test_there_is_room_for_an_answer_to_every_prompt_that_may_wait(node):
    """They are all answered at once when the node is deactivated."""
    assert outputs(node)["/sam2/prompt_result"].qos_profile.depth >= Settings().prompt_queue
    assert {p.qos_profile.depth for name, p in outputs(node).items() if name.endswith("tracks")} == {10}


def test_the_diagnostics_come_as_often_as_is_said():
    (row,) = [third for _, _, third in named(README, "output | type | what it is").values() if third.endswith(" Hz")]
    assert float(row.split()[0]) == pytest.approx(1 / (TICK_S * TICKS_PER_REPORT))


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("| `~/a` | x_msgs/B | |", {"~/a": "x_msgs/B"}),
        ("| `a`, or `a/b` with `c: d` | x_msgs/Image, CompressedImage | |",
         {"a": "x_msgs/Image", "a/b": "x_msgs/CompressedImage"}),
        ("| `~/a` · `~/b` | x_msgs/C · y_msgs/D | |", {"~/a": "x_msgs/C", "~/b": "y_msgs/D"}),
        ("| `d`, with `e.f` | x_msgs/Image 32FC1 (m) or 16UC1 (mm), of the Image | |", {"d": "x_msgs/Image"}),
    ],
)  # fmt: skip
def test_rows_are_read_as_people_read_them(row, found):
    assert {name: kind for name, (kind, _, _) in named(f"| h |\n| --- |\n{row}\n\n", "h").items()} == found
