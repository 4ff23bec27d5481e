"""Start the tracker on a camera's image topic. Made to be included by other launch files; `-s` lists the arguments.

An argument left empty keeps the value of the parameter file, or its default. The node activates itself (parameter
autostart), so nothing else has to be started. Include it inside a `GroupAction([…], scoped=True, forwarding=False)`, or
it inherits arguments of the same names (`params_file`, `model`, …) from the including file.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, TextSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(get_package_share_directory("sam2_ros")) / "config"

# name: (default, description)
ARGUMENTS = {
    "image": ("image", "image topic to track on, if compressed without /compressed; not with parameter `cameras`"),
    "depth": ("", "depth image topic, registered to the image, not with `cameras`; if given, depth.enabled is set"),
    "camera_info": ("camera_info", "calibration topic of the image; read with depth.enabled; not with `cameras`"),
    "model": ("", "nano, tiny, small, base_plus or large"),
    "checkpoint": ("", "weights file; empty, also in the parameter file = the model's own, shipped or downloaded"),
    "device": ("", "auto, cpu, cuda or cuda:N"),
    "params_file": (str(CONFIG / "track.yaml"), "parameter file; this one lists every parameter"),
    "namespace": ("", "namespace of the node and of its relative topics"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "respawn": ("false", "true = restart the node whenever it ends; it ends with code 70 when the GPU is lost"),
    "use_sim_time": ("", "true = time comes from /clock, for simulators and bags"),
}
RESPAWN_AFTER_S = 2.0
OVERRIDES = {"model": str, "checkpoint": str, "device": str, "use_sim_time": bool}


def track_node(context) -> list[Node]:
    """The node, with only those parameters on top of the file that the caller gave a value. Raises RuntimeError."""
    values = {name: LaunchConfiguration(name).perform(context) or default for name, (default, _) in ARGUMENTS.items()}
    params_file = Path(values["params_file"]).expanduser()  # the shell expands no ~ after :=
    if not params_file.is_file():  # launch_ros would only warn, and start the node with its defaults
        raise RuntimeError(f"params_file {params_file}: there is no such file")
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in OVERRIDES.items()
        if values[name]
    }
    if values["depth"]:
        given["depth.enabled"] = True
    return [
        Node(
            package="sam2_ros",
            executable="track_node",
            namespace=values["namespace"],
            parameters=[params_file, *([given] if given else [])],
            remappings=[
                ("image", values["image"]),
                ("image/compressed", f"{values['image']}/compressed"),
                ("depth/image", values["depth"] or "depth/image"),
                ("camera_info", values["camera_info"]),
            ],
            ros_arguments=["--log-level", values["log_level"]],
            output="screen",
            emulate_tty=True,
            respawn=[TextSubstitution(text=values["respawn"])],  # parsed like the other booleans; launch refuses others
            respawn_delay=RESPAWN_AFTER_S,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=track_node)])
