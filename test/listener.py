"""A process that subscribes, reliably, to the image topics in its arguments, prints "ready" and spins."""

import sys

import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("listener")
    for topic in sys.argv[1:]:
        node.create_subscription(Image, topic, lambda msg: None, QoSProfile(depth=10))
    print("ready", flush=True)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
