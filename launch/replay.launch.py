"""Play a recorded bag into the tracker, on the bag's time; everything ends with the bag. `-s` lists the arguments.

Frames that come faster than the tracker works are dropped, as from a camera; `sam2_ros replay` processes every one.
Takes the arguments of track.launch.py too.
"""

import shlex
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

LAUNCH = Path(get_package_share_directory("sam2_ros")) / "launch"


def player(context) -> list[ExecuteProcess]:
    """`ros2 bag play`, publishing /clock."""
    bag, options = (LaunchConfiguration(name).perform(context) for name in ("bag", "play_options"))
    command = ["ros2", "bag", "play", bag, "--clock", *shlex.split(options)]
    return [ExecuteProcess(cmd=command, output="screen", on_exit=Shutdown(reason="the bag is over"))]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="folder or file of the bag"),
            DeclareLaunchArgument(
                "play_options",
                default_value="",
                description="further options of `ros2 bag play`, for example '--loop --rate 0.5'",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(LAUNCH / "track.launch.py")),
                launch_arguments={"use_sim_time": "true"}.items(),
            ),
            OpaqueFunction(function=player),
        ]
    )
