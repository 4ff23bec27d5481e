"""A simulated camera and the tracker, to try prompts on without hardware; `-s` lists the arguments.

Takes the arguments of track.launch.py too. `sam2_ros demo` is the demonstration that prompts and measures by itself.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory("sam2_ros"))


def generate_launch_description() -> LaunchDescription:
    track = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(SHARE / "launch" / "track.launch.py")))
    camera = Node(
        package="sam2_ros",
        executable="sam2_ros",
        arguments=[
            "simulate",
            "--gentle",
            "--seed",
            LaunchConfiguration("seed"),
            "--rate",
            LaunchConfiguration("rate"),
        ],
        remappings=[("image", LaunchConfiguration("image"))],
        output="screen",
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["--display-config", str(SHARE / "config" / "track.rviz")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "seed", default_value="1000036", description="which synthetic world the camera looks at"
            ),
            DeclareLaunchArgument("rate", default_value="10.0", description="images per second"),
            DeclareLaunchArgument("rviz", default_value="false", description="true = show ~/overlay in RViz"),
            track,  # first: it sets the transport of large images for all that follow
            camera,
            rviz,
            LogInfo(msg="Point at something: ros2 run sam2_ros sam2_ros prompt --click X Y (pixels of the image)"),
        ]
    )
