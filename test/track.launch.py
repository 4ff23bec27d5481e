"""Tests track.launch.py under launch_testing: the node starts with the arguments' names and ends without an error.

Run with `launch_test test/track.launch.py`, or by `colcon test`. Sends no image, so it does not test the network.
"""

import os
import time
import unittest

import launch_testing
import rclpy
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters

from sam2_ros.handshake import Handshake

ARGUMENTS = {"namespace": "robot", "image": "/camera/color", "device": "cpu", "model": "nano", "log_level": "warn"}
PATIENCE_S = 60.0


def generate_test_description() -> LaunchDescription:
    path = os.path.join(get_package_share_directory("sam2_ros"), "launch", "track.launch.py")
    track = IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=ARGUMENTS.items())
    return LaunchDescription([track, launch_testing.actions.ReadyToTest()])


class WhileItRuns(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rclpy.init()
        cls.node = rclpy.create_node("launch_test")

    @classmethod
    def tearDownClass(cls):
        cls.node.destroy_node()
        rclpy.shutdown()

    def until(self, condition):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            self.assertLess(time.monotonic(), end, "waited in vain")
            rclpy.spin_once(self.node, timeout_sec=0.1)

    def call(self, kind, name, **fields):
        client = self.node.create_client(kind, name)
        handshake = Handshake(self.node, client)
        self.until(lambda: client.service_is_ready() and handshake.done())
        handshake.close()
        future = client.call_async(kind.Request(**fields))
        self.until(future.done)
        return future.result()

    def test_it_starts_itself(self):
        self.until(lambda: self.call(GetState, "/robot/sam2/get_state").current_state.label == "active")

    def test_it_subscribes_to_the_image_named(self):
        self.until(lambda: self.node.count_subscribers("/camera/color") == 1)
        self.assertEqual(self.node.count_subscribers("/robot/image"), 0)

    def test_arguments_come_before_the_parameter_file(self):
        names = ["device", "model", "use_sim_time"]
        device, model, use_sim_time = self.call(GetParameters, "/robot/sam2/get_parameters", names=names).values
        self.assertEqual((device.string_value, model.string_value), ("cpu", "nano"))
        self.assertFalse(use_sim_time.bool_value)


@launch_testing.post_shutdown_test()
class WhenItHasEnded(unittest.TestCase):
    def test_it_ends_without_an_error(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
