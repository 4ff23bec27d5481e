"""Before the first call of a service: makes sure that the server has discovered the client and can answer it.

`Client.service_is_ready` only says what this side has discovered. A Fast DDS server that has not yet discovered the
client waits 100 ms and then drops the answer (rmw_fastrtps, `check_for_subscription`), so the caller waits for ever. A
participant announces its endpoints in order; so once a client that was created later gets an answer, all earlier ones
will.
"""

import time

from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

ASK_AGAIN_S = 0.5


class Handshake:
    """Asks the server's node for an empty list of parameters until it answers. Create it after the client.

    node: must be spun by the caller. client: of a service `<server's node>/<name>` or, where cameras have
    names, `<server's node>/<camera>/<name>`.
    """

    def __init__(self, node: Node, client: Client) -> None:
        self._node = node
        above = client.srv_name.rpartition("/")[0]
        servers = [server for server in (above, above.rpartition("/")[0]) if server]
        # Of both, as the graph may not tell which is there: a client of a Fast DDS discovery server learns only of what
        # matches its own endpoints.
        self._probes: list[Client] = [
            node.create_client(GetParameters, f"{server}/get_parameters") for server in servers
        ]
        self._asked_s = -ASK_AGAIN_S
        self._answers: list[Future] = []

    def done(self) -> bool:
        """True once the server has answered. Poll it while the node spins."""
        if any(answer.done() for answer in self._answers):
            return True
        now = time.monotonic()
        there = next((probe for probe in self._probes if probe.service_is_ready()), None)
        if there is not None and now - self._asked_s >= ASK_AGAIN_S:
            self._asked_s = now
            self._answers.append(there.call_async(GetParameters.Request()))
        return False

    def close(self) -> None:
        for probe in self._probes:
            self._node.destroy_client(probe)
