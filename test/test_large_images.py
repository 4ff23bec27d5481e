"""Images that do not fit into a middleware's buffers: room for them."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from ros_rig import PATIENCE_S, children_path

from sam2_ros import cyclone_dds

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("own", ["", "<CycloneDDS/>"])
def test_the_node_asks_cyclone_dds_for_room_unless_somebody_has_configured_it(own):
    code = (
        "import os; from sam2_ros import main\n"
        "def stop(settings): print('configured', os.environ['CYCLONEDDS_URI'], flush=True); os._exit(0)\n"
        "main.main([], stop)"
    )
    environment = {name: value for name, value in os.environ.items() if name != cyclone_dds.CONFIGURATION}
    environment |= {"PYTHONPATH": children_path()} | ({cyclone_dds.CONFIGURATION: own} if own else {})
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, env=environment
    )
    said = next(line for line in ended.stdout.splitlines() if line.startswith("configured"))
    assert ("SocketReceiveBufferSize" in said) == (not own) and own in said


def test_a_demo_asks_for_it_too(monkeypatch):
    from sam2_ros import demo

    monkeypatch.delenv(cyclone_dds.CONFIGURATION, raising=False)
    demo._surroundings()
    assert "SocketReceiveBufferSize" in os.environ[cyclone_dds.CONFIGURATION]
