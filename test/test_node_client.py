"""A command that calls the node: how long it waits, and what it says meanwhile."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

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


@pytest.mark.parametrize(("silent_s", "timeout_s", "is_said"), [(0.01, 0.5, True), (0.5, 0.01, False)])
def test_what_is_not_there_yet_is_said_before_it_is_given_up(silent_s, timeout_s, is_said, monkeypatch, capsys):
    """A node that was just started imports PyTorch for some seconds, on a busy machine for a dozen."""
    monkeypatch.setattr(node_client, "SILENT_S", silent_s)
    with (
        pytest.raises(node_client.NoAnswer, match="/nobody/list_objects is not there within"),
        node_client.connect("/nobody", timeout_s) as client,
    ):
        client.call(ListObjects, "list_objects", None)
    said = "/nobody/list_objects is not there yet; waiting\n"
    assert capsys.readouterr().err == (said if is_said else "")


@pytest.mark.parametrize(("silent_s", "timeout_s", "is_said"), [(0.01, 0.5, True), (0.5, 0.01, False)])
def test_a_report_that_does_not_come_is_said_once_before(silent_s, timeout_s, is_said, monkeypatch, capsys):
    monkeypatch.setattr(status, "SILENT_S", silent_s)
    with (
        pytest.raises(node_client.NoAnswer, match="nothing of /nobody on /diagnostics within"),
        node_client.connect("/nobody", timeout_s) as client,
    ):
        status.hear(client)
    assert capsys.readouterr().err == ("nothing of /nobody on /diagnostics yet; waiting\n" if is_said else "")
