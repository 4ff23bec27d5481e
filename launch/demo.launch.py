"""A simulated camera and the tracker, to try prompts on without hardware; `-s` lists the arguments.

Takes the arguments of track.launch.py too. `sam2_ros demo` is the demonstration that prompts and measures by itself.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage
from launch_ros.utilities import prefix_namespace

SHARE = Path(get_package_share_directory("sam2_ros"))
SHOWN = ("overlay", "label_mask", "objects/cloud", "objects/markers", "scene_cloud")  # by config/track.rviz

# name: (default, description)
ARGUMENTS = {
    "seed": ("1000036", "which synthetic world the camera looks at"),
    "rate": ("10.0", "images per second"),
    "still": ("60.0", "seconds in which nothing moves yet, to prompt in"),
    "rviz": ("false", "true = show ~/overlay in RViz"),
}


def check(context) -> list:
    """Raises if RViz is wanted but missing, before the tracker is started: an error later would leave it running."""
    if IfCondition(LaunchConfiguration("rviz")).evaluate(context):
        ExecutableInPackage("rviz2", "rviz2").perform(context)
    return []


def around_the_tracker(context) -> list:
    """The camera, RViz if asked for, and what to do next."""
    names = ("seed", "rate", "still", "namespace")
    seed, rate, still, namespace = (LaunchConfiguration(name).perform(context) for name in names)
    looked_at = {"image": "image", "depth/image": "depth", "camera_info": "camera_info"}  # by topic, its argument
    inside = prefix_namespace(context.launch_configurations.get("ros_namespace"), namespace)  # of PushRosNamespace
    tracker = "/".join(["", *filter(None, inside.split("/")), "sam2"])
    camera = Node(
        package="sam2_ros",
        executable="sam2_ros",
        namespace=namespace,
        arguments=["simulate", "--gentle", "--seed", seed, "--rate", rate, "--still", still],
        remappings=[(topic, LaunchConfiguration(name).perform(context) or topic) for topic, name in looked_at.items()],
        output="screen",
    )
    viewer = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["--display-config", str(SHARE / "config" / "track.rviz")],
        remappings=[(f"/sam2/{topic}", f"{tracker}/{topic}") for topic in SHOWN],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    ask = f"ros2 run sam2_ros sam2_ros prompt --node {tracker} --click X Y"
    hint = LogInfo(msg=f"Point at something: {ask} (pixels of the image)")
    return [camera, viewer, hint]


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    track = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(SHARE / "launch" / "track.launch.py")))
    before, after = OpaqueFunction(function=check), OpaqueFunction(function=around_the_tracker)
    return LaunchDescription([*declared, before, track, after])
