"""Start the tracker on a camera's image topic. Made to be included by other launch files; `-s` lists the arguments.

An argument left empty keeps the value of the parameter file, or its default. The node activates itself (parameter
autostart), so nothing else has to be started. Include it inside a `GroupAction([…], scoped=True)`, and pass it those
arguments whose names the including file has, too (`params_file`, `model`, …), or it inherits their values: empty ones
are as if they were not given. (With `forwarding=False` it inherits nothing, and also no namespace or `SetParameter`.)
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, TextSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

# name: (default, description)
ARGUMENTS = {
    "image": ("image", "image topic to track on, if compressed without /compressed; not with parameter `cameras`"),
    "depth": ("", "depth image topic, registered to the image, not with `cameras`; if given, depth.enabled is set"),
    "camera_info": ("camera_info", "calibration topic of the image; read with depth.enabled; not with `cameras`"),
    "model": ("", "nano, tiny, small, base_plus or large"),
    "checkpoint": ("", "weights file; empty, also in the parameter file = the model's own, shipped or downloaded"),
    "device": ("", "auto, cpu, cuda or cuda:N"),
    "params_file": ("", "parameter file; config/track.yaml of this package lists every parameter with its default"),
    "namespace": ("", "namespace of the node and of its relative topics"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "respawn": ("false", "true = restart the node whenever it ends; it ends with code 70 when the GPU is lost"),
    "use_sim_time": ("", "true = time comes from /clock, for simulators and bags"),
}
RESPAWN_AFTER_S = 2.0
OVERRIDES = {"model": str, "checkpoint": str, "device": str, "use_sim_time": bool}


def existing(name: str) -> Path:
    """Raises RuntimeError if there is no such file; launch_ros would only warn and start the node with defaults."""
    file = Path(name).expanduser()  # the shell expands no ~ after :=
    if not file.is_file():
        raise RuntimeError(f"params_file {file}: there is no such file")
    return file


def track_node(context) -> list[Node]:
    """The node, with only those parameters on top of the file that the caller gave a value. Raises RuntimeError."""
    values = {name: LaunchConfiguration(name).perform(context) or default for name, (default, _) in ARGUMENTS.items()}
    parameters: list = []
    if values["params_file"]:  # none by default: what a file says wins over `SetParameter` of an including file
        parameters.append(existing(values["params_file"]))
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in OVERRIDES.items()
        if values[name]
    }
    if values["depth"]:
        given["depth.enabled"] = True
    if given:
        parameters.append(given)
    return [
        Node(
            package="sam2_ros",
            executable="track_node",
            namespace=values["namespace"],
            parameters=parameters,
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
