"""Play a recorded bag into the tracker, on the bag's time; everything ends with the bag. `-s` lists the arguments.

Frames that come faster than the tracker works are dropped, as from a camera, and so are those that come while it loads
its model; `sam2_ros replay` processes every one. Takes the arguments of track.launch.py too.
"""

import math
import shlex
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
    TimerAction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from sam2_ros import fast_dds

LAUNCH = Path(get_package_share_directory("sam2_ros")) / "launch"


def existing(bag: str) -> str:
    """Raises RuntimeError if there is no such bag, which the player would find out only after the delay."""
    if not bag:  # from an including file; as a path it would be the working directory
        raise RuntimeError("bag: expected a folder or file, got ''")
    path = Path(bag).expanduser()  # the shell expands no ~ after :=
    if not path.exists():
        raise RuntimeError(f"bag {path}: there is no such file or folder")
    return str(path)


def seconds(text: str) -> float:
    """Raises RuntimeError for anything but a number of seconds."""
    try:
        if 0 <= float(text) < math.inf:
            return float(text)
    except ValueError:
        pass
    raise RuntimeError(f"delay: expected a number of seconds, 0 or more, got {text!r}")


def words(options: str) -> list[str]:
    """Splits options as a shell does. Raises RuntimeError if they cannot be split."""
    try:
        return shlex.split(options)
    except ValueError as error:
        raise RuntimeError(f"play_options {options!r}: {error}") from error


def player(context) -> list[TimerAction]:
    """`ros2 bag play`, publishing /clock. Raises RuntimeError for a mistake in the arguments."""
    bag, delay, options = (LaunchConfiguration(name).perform(context) for name in ("bag", "delay", "play_options"))
    # The player's own delay lets the tracker discover it; it applies to every loop, and cannot be 0.
    command = ["ros2", "bag", "play", existing(bag), "--clock", "--delay", "0.5", *words(options)]
    # Without the profile, Fast DDS loses large images.
    profile = fast_dds.profile()
    room = {fast_dds.PROFILES: profile} if profile else {}
    process = ExecuteProcess(cmd=command, output="screen", on_exit=over, additional_env=room)
    return [TimerAction(period=seconds(delay), actions=[process])]


def over(event, context) -> Shutdown:
    """Ends everything. Raises if the player failed; that ends everything, too, and `ros2 launch` with exit code 1."""
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(f"the player ended with exit code {event.returncode}")
    return Shutdown(reason="the bag is over")


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="folder or file of the bag"),
            DeclareLaunchArgument(
                "delay", default_value="10.0", description="seconds before it is played, for the model to load"
            ),
            DeclareLaunchArgument(
                "play_options",
                default_value="",
                description="further options of `ros2 bag play`, for example '--loop --rate 0.5'",
            ),
            OpaqueFunction(function=player),  # first: an error in its arguments must come before the tracker starts
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(LAUNCH / "track.launch.py")),
                launch_arguments={"use_sim_time": "true"}.items(),
            ),
        ]
    )
