"""The other nodes of a node's name, which answer its services, too."""

from rclpy.node import Node


def count_rivals(node: Node) -> int:
    """Counts them, in any lifecycle state: one that failed to load answers as well."""
    try:
        names = node.get_node_names_and_namespaces()
    except (RuntimeError, UnicodeDecodeError):  # a nameless node somewhere (ros2/rclpy#1448): reports must go on
        return 0
    return max(names.count((node.get_name(), node.get_namespace())) - 1, 0)
