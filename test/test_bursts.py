"""More requests at once than can wait: each of them is answered all the same, from a topic or a service."""

import signal
import weakref

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import Point
from rclpy.qos import QoSProfile
from ros_rig import NodeProcess, click, start_tracking
from std_msgs.msg import Header
from test_requests_inside import Desk

from sam2_ros.handshake import Handshake
from sam2_ros.image_out import image_message
from sam2_ros.msg import Prompt, PromptResult
from sam2_ros.requests import Code
from sam2_ros.srv import AddObjects, RemoveObjects

pytestmark = pytest.mark.ros

MANY, MANY_PROMPTS = 900, 90
DEEP = QoSProfile(depth=2 * MANY)  # at this end nothing may get lost


@pytest.fixture
def node(rig):
    """With a camera that has stopped: eight prompts wait for its next image. Then they are refused, and clicks are
    carried out on the newest, for as many objects as there may be."""
    with NodeProcess(parameters={"prompt_queue": 8, "prompt_wait_s": 0.5}) as node:
        start_tracking(rig, rig.camera(), "x")
        yield node
        node.end()


def at_once(node, send, count):
    """The node gets them all when it goes on."""
    node.signal(signal.SIGSTOP)
    sent = [send() for _ in range(count)]
    node.signal(signal.SIGCONT)
    return sent


def test_a_burst_of_messages(rig, node):
    results = rig.collect(PromptResult, "/sam2/prompt_result", DEEP.depth)
    for topic, message, count, codes in (
        ("prompts", click("a"), MANY_PROMPTS, {"BUSY", "NO_IMAGE"}),
        ("click_point", Point(), MANY, {"BUSY", "OK", "LIMIT_REACHED"}),
    ):
        publisher = rig.node.create_publisher(type(message), f"/sam2/{topic}", DEEP)
        rig.until(lambda publisher=publisher: publisher.get_subscription_count() > 0)
        results.clear()
        at_once(node, lambda publisher=publisher, message=message: publisher.publish(message), count)
        rig.until(lambda count=count: len(results) == count)
        assert {Code(result.code).name for result in results} in (codes, codes - {"LIMIT_REACHED"}), topic


def test_a_burst_of_calls(rig, node):
    for kind, name, fields, count, codes in (
        (AddObjects, "add_objects", dict(prompts=[click("a")]), MANY_PROMPTS, {"BUSY", "NO_IMAGE"}),
        (RemoveObjects, "remove_objects", dict(object_ids=["y"]), MANY, {"BUSY", "UNKNOWN_OBJECT"}),
    ):
        request = kind.Request(**fields)
        client = rig.node.create_client(kind, f"/sam2/{name}", qos_profile=DEEP)
        handshake = Handshake(rig.node, client)
        rig.until(handshake.done)
        handshake.close()
        futures = at_once(node, lambda client=client, request=request: client.call_async(request), count)
        rig.until(lambda futures=futures: all(future.done() for future in futures))
        assert {Code(future.result().code).name for future in futures} <= codes, name


def test_more_objects_than_may_be_tracked_are_refused_before_they_are_read(rig, node):
    """Thousands in one request would hold up all cameras for seconds."""
    answer = rig.call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[click()] * 17))
    assert (Code(answer.code).name, answer.sentence) == (
        "LIMIT_REACHED", "17 objects in one request: expected at most max_objects = 16"
    )  # fmt: skip


def test_a_mask_that_waits_for_its_image_does_not_keep_the_message_it_came_in(monkeypatch):
    desk = Desk(monkeypatch)
    message = Prompt(mask=image_message(Header(), np.full((48, 64), 255, np.uint8), "mono8"))
    data = weakref.ref(message.mask.data)
    desk.hear["prompts"](message)
    del message
    assert desk.mailbox.has_work and data() is None
