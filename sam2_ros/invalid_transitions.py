"""Transitions that the present state of a lifecycle node does not have. Knows a service of rclpy's; knows no states."""

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode


def answer_invalid_transitions(node: LifecycleNode) -> None:
    """Answers transitions that the present state does not have, where Jazzy's rclpy raises and never responds."""
    (service,) = (one for one in node.services if one.srv_type is ChangeState)
    change = service.callback

    def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        try:
            return change(request, response)
        except rclpy_implementation.RCLError as error:
            node.get_logger().error(f"transition refused: {error}")
            response.success = False
            return response

    service.callback = answer
