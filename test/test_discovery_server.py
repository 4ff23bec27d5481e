"""The node and its commands as clients of a Fast DDS discovery server, which tells each only of what it has endpoints
for: the graph of such a client lacks the node's other services."""

import os
import socket
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from ros_rig import ON_FAST_DDS, PATIENCE_S, NodeProcess, children_path

from sam2_ros import fast_dds

pytestmark = [pytest.mark.ros, pytest.mark.skipif(not ON_FAST_DDS, reason="other middlewares have no such server")]

PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com"><profiles><participant profile_name="server" is_default_profile="true"><rtps>
  <prefix>44.53.00.5f.45.50.52.4f.53.49.4d.41</prefix>
  <builtin>
    <discovery_config><discoveryProtocol>SERVER</discoveryProtocol></discovery_config>
    <metatrafficUnicastLocatorList>
      <locator><udpv4><address>127.0.0.1</address><port>PORT</port></udpv4></locator>
    </metatrafficUnicastLocatorList>
  </builtin>
</rtps></participant></profiles></dds>
"""
SERVE = "import rclpy; rclpy.init(); rclpy.spin(rclpy.create_node('server'))"


@pytest.fixture
def address(tmp_path):
    """Of a server that runs."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind(("127.0.0.1", 0))
        port = asked.getsockname()[1]
    profile = tmp_path / "server.xml"
    profile.write_text(PROFILE.replace("PORT", str(port)))
    environment = {**os.environ, fast_dds.PROFILES: str(profile), "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    server = subprocess.Popen([sys.executable, "-c", SERVE], env=environment)
    yield f"127.0.0.1:{port}"
    server.kill()
    server.wait()


def run(address: str, *words: str) -> tuple[int, str]:
    """A command's exit code and stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "sam2_ros.cli", *words, "--timeout", str(PATIENCE_S)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": children_path(), "ROS_DISCOVERY_SERVER": address},
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_command_is_answered_and_finds_what_the_server_does_not_tell_by_itself(address):
    with NodeProcess(environment={"ROS_DISCOVERY_SERVER": address}, remap={"/diagnostics": "/elsewhere"}) as node:
        assert run(address, "objects") == (0, "nothing is tracked\n")
        code, status = run(address, "status")
        assert code != 2 and "no object: prompt one" in status
        node.end()
