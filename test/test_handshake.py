"""A call waits until its answer can find its way back. On real DDS, and with an answer that is lost."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from sam2_ros import handshake  # noqa: E402

pytestmark = pytest.mark.ros


def test_it_is_done_when_the_server_answers_and_not_before(rig):
    server = rclpy.create_node("server", namespace="somewhere", context=rig.context)
    executor = SingleThreadedExecutor(context=rig.context)
    executor.add_node(server)
    client = rig.node.create_client(Trigger, "/somewhere/server/anything")
    made = handshake.Handshake(rig.node, client)
    for _ in range(20):
        rig.spin_some()
        assert not made.done(), "nobody has spun the server"

    def answered():
        executor.spin_once(timeout_sec=0)
        return made.done()

    rig.until(answered)
    made.close()
    executor.shutdown()
    server.destroy_node()


def test_a_lost_answer_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(handshake, "ASK_AGAIN_S", 0.0)
    asked, lost = [], lambda: False
    node = SimpleNamespace(create_client=lambda *_: probe)
    probe = SimpleNamespace(
        service_is_ready=lambda: True,
        call_async=lambda request: asked.append(request) or SimpleNamespace(done=lost if len(asked) == 1 else is_back),
    )
    is_back = lambda: True  # noqa: E731
    made = handshake.Handshake(node, SimpleNamespace(srv_name="/sam2/front/reset"))
    assert [made.done() for _ in range(3)] == [False, False, True]
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("service", "known", "asked"),
    [
        ("/sam2/front/reset", ["/sam2"], ["/sam2"]),
        ("/robot/sam2/reset", ["/robot", "/robot/sam2"], ["/robot/sam2"]),
        ("/sam2/reset", ["/other"], []),
    ],
)
def test_the_node_that_serves_is_asked_and_no_other(service, known, asked):
    """A node of the namespace's name may be there, too."""
    made, called, gone = [], [], []

    def probe(kind, name):
        made.append(name)
        return SimpleNamespace(
            service_is_ready=lambda: name in [f"{server}/get_parameters" for server in known],
            call_async=lambda request: called.append(name) or SimpleNamespace(done=lambda: False),
        )

    hands = handshake.Handshake(
        SimpleNamespace(create_client=probe, destroy_client=gone.append), SimpleNamespace(srv_name=service)
    )
    assert not any([hands.done() for _ in range(3)])
    assert called == [f"{name}/get_parameters" for name in asked]
    hands.close()
    assert len(gone) == len(made)


def test_a_slow_answer_is_waited_for(monkeypatch):
    """Asked at every poll, a busy node would have to answer them all."""
    monkeypatch.setattr(handshake, "ASK_AGAIN_S", 1e9)
    asked = []
    probe = SimpleNamespace(
        service_is_ready=lambda: True, call_async=lambda request: asked.append(1) or SimpleNamespace(done=lambda: False)
    )
    node = SimpleNamespace(create_client=lambda *_: probe)
    made = handshake.Handshake(node, SimpleNamespace(srv_name="/sam2/reset"))
    assert not any([made.done() for _ in range(5)]) and len(asked) == 1
