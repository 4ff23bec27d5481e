"""Where a camera's images come from: its topic, who publishes it, and what is between them and the node.

Knows no ROS.
"""

from dataclasses import dataclass


@dataclass
class ImageSource:
    """Written by the executor, read by `health.report`, and by the worker for its answers."""

    topic: str = ""  # subscribed; "" = none
    remap_from: str = "image"  # its name before any remapping
    reliability: str = ""  # of our subscription
    publishers: int = 0  # of `topic`, with our message type
    is_remote: bool = False  # whether one of them shares no memory with us: another machine, or another container
    incompatible_qos: str = ""  # the policy that a publisher does not offer
    other_type: str = ""  # another message type published on `topic`; "" = none
    elsewhere: tuple[str, ...] = ()  # image topics of our type, while `topic` has no publisher
    other_transport: str = ""  # `topic` under the other image_transport, likewise; "" = not published
    domain: int = 0  # the ROS_DOMAIN_ID
    reach: str = ""  # a clause about what keeps other machines out; "" = nothing does
    middleware: str = ""  # as rclpy names it, for example rmw_fastrtps_cpp
    transports: str = ""  # chosen by FASTDDS_BUILTIN_TRANSPORTS instead of the package's profile; "" = none
    receive_buffer_bytes: int = 0  # the most that the kernel gives to the middleware; 0 = not known
