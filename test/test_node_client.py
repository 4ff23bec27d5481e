"""A command that calls the node: how long it waits, and what it says meanwhile."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

import rclpy
from ros_rig import PATIENCE_S, children_path

from sam2_ros import node_client, status
from sam2_ros.requests import Code
from sam2_ros.srv import ListObjects

pytestmark = pytest.mark.ros


def test_whoever_waited_in_vain_gets_the_last_answer_and_what_is_waited_for_is_said_once(monkeypatch, capsys):
    answer = SimpleNamespace(code=Code.NO_IMAGE, sentence="no image came")
    asked = SimpleNamespace(done=lambda: True, result=lambda: answer)
    client = node_client.NodeClient(None, "/sam2", timeout_s=1.0)
    client._clients["add_objects"] = SimpleNamespace(call_async=lambda request: asked)
    monkeypatch.setattr(node_client, "ASK_AGAIN_S", 0.001)
    monkeypatch.setattr(node_client.rclpy, "spin_until_future_complete", lambda node, future, timeout_sec: None)
    monkeypatch.setattr(node_client.rclpy, "spin_once", lambda node, timeout_sec: None)
    assert client.call(None, "add_objects", None, (Code.LOADING, Code.NO_IMAGE)) is answer
    assert client.call(None, "add_objects", None) is answer  # who does not wait for images
    assert capsys.readouterr().err == "no image came; waiting\n"


@pytest.mark.parametrize("is_trigger", [False, True])
def test_who_hears_nothing_more_is_told_what_came_last_and_that_it_may_still_be_done(is_trigger, monkeypatch):
    """Of a std_srvs service, too, whose answer has no code but its name."""
    named = (
        SimpleNamespace(success=False, message="LOADING: soon") if is_trigger else SimpleNamespace(code=Code.LOADING)
    )
    futures = [SimpleNamespace(done=lambda: True, result=lambda: named), SimpleNamespace(done=lambda: False)]
    client = node_client.NodeClient(None, "/sam2", timeout_s=60.0)
    client._clients["reset"] = SimpleNamespace(call_async=lambda request: futures.pop(0))
    monkeypatch.setattr(node_client, "ASK_AGAIN_S", 0.001)
    monkeypatch.setattr(node_client.rclpy, "spin_until_future_complete", lambda node, future, timeout_sec: None)
    monkeypatch.setattr(node_client.rclpy, "spin_once", lambda node, timeout_sec: None)
    with pytest.raises(node_client.NoAnswer) as caught:
        client.call(None, "reset", None)
    assert str(caught.value) == (
        "no answer from /sam2 within 60 s; the last one was LOADING. What was asked may still be carried out"
    )


def test_an_answer_that_is_not_well_is_raised_with_the_name_of_its_code():
    assert node_client.agreed(good := SimpleNamespace(code=int(Code.OK), sentence="")) is good
    with pytest.raises(node_client.NodeRefused, match="^STALE: too old$"):
        node_client.agreed(SimpleNamespace(code=int(Code.STALE), sentence="too old"))


def list_objects(client):
    client.call(ListObjects, "list_objects", None)


@pytest.mark.parametrize(("silent_s", "timeout_s", "is_said"), [(0.01, 0.5, True), (0.5, 0.01, False)])
@pytest.mark.parametrize(
    ("ask", "what"),
    [(list_objects, "/nobody/list_objects is not there"), (status.hear, "nothing of /nobody on /diagnostics")],
)
def test_what_is_waited_for_is_said_before_it_is_given_up(ask, what, silent_s, timeout_s, is_said, monkeypatch, capsys):
    """A node that was just started imports PyTorch for some seconds, on a busy machine for a dozen."""
    monkeypatch.setattr(node_client, "SILENT_S", silent_s)
    monkeypatch.setattr(status, "SILENT_S", silent_s)
    with (
        pytest.raises(node_client.NoAnswer, match=f"{what} within"),
        node_client.connect("/nobody", timeout_s) as client,
    ):
        ask(client)
    assert capsys.readouterr().err == (f"{what} yet; waiting\n" if is_said else "")


def test_of_rclpy_it_needs_no_more_than_jazzy_has(monkeypatch):
    init = rclpy.init
    monkeypatch.setattr(rclpy, "init", lambda **given: init(**given) and None)  # no context manager
    monkeypatch.delattr(rclpy, "try_shutdown", raising=False)
    with node_client.connect("/nobody", 1.0) as client:
        assert client.node.context.ok() and rclpy.ok()
    assert not rclpy.ok()


def test_a_signal_while_rclpy_makes_its_executor_leaves_no_traceback():
    """Such a moment comes by chance, so the context ends here just when the executor asks for its first part."""
    code = """
import sys, rclpy, rclpy.executors
from sam2_ros import cli
made = rclpy.executors.GuardCondition
def end_first(*args, **kwargs):
    rclpy.shutdown()
    return made(*args, **kwargs)
rclpy.executors.GuardCondition = end_first
sys.exit(cli.main(["status", "--node", "/nobody"]))
"""
    environment = {**os.environ, "PYTHONPATH": children_path()}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, env=environment
    )
    assert (ended.returncode, ended.stderr) == (130, "sam2_ros status: interrupted\n")


def test_a_node_that_is_there_and_never_answers_may_have_another_middleware(monkeypatch):
    found = SimpleNamespace(srv_name="/sam2/list_objects", wait_for_service=lambda timeout: True)
    monkeypatch.setattr(node_client, "Handshake", lambda node, client: SimpleNamespace(done=bool, close=bool))
    monkeypatch.setattr(node_client.rclpy, "spin_once", lambda node, timeout_sec: None)
    monkeypatch.setattr(node_client.rclpy, "ok", lambda: True)
    client = node_client.NodeClient(SimpleNamespace(create_client=lambda *_: found), "/sam2", timeout_s=0.01)
    middleware = rclpy.get_rmw_implementation_identifier()
    with pytest.raises(node_client.NoAnswer, match=f"within 0.01 s: .* is its RMW_IMPLEMENTATION not {middleware}"):
        client.call(ListObjects, "list_objects", None)
