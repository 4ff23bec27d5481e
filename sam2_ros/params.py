"""The node's parameters: one frozen dataclass whose fields are the table (default, range, unit, one sentence).

`refusal` says what is wrong with a value; `to_yaml` writes `config/track.yaml`. Knows no ROS. Does not know what the
numbers are used for.
"""

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from sam2_ros.classes import MAX_CLASSES

MAX_CAMERAS = 32  # each has topics, services and buffers of its own; with hundreds it would take minutes to start


def _parameter(
    default: Any, sentence: str, *, span: tuple[float, ...] = (), choices: tuple[str, ...] = (), unit: str = "",
    pattern: str = "", most: int = 0, live: bool = False,
) -> Any:  # fmt: skip
    """One row. span: (lowest, highest), inclusive; pattern: what each string of a list must match; most: how many
    strings there may be, 0 = any number; live: can be changed while the node runs."""
    rules = dict(sentence=sentence, span=span, choices=choices, unit=unit, pattern=pattern, most=most, live=live)
    return field(default=default, metadata=rules)


@dataclass(frozen=True)
class Settings:
    """Every parameter; `ros_name` gives a field's ROS name."""

    model: str = _parameter("nano", "Which network: nano, tiny, small, base_plus, large, or an official name.")
    checkpoint: str = _parameter("", "Weights file (.safetensors or .pt); empty = the cached official one, or nano's.")
    device: str = _parameter("auto", "Where the network runs: auto, cpu, cuda or cuda:N; auto = a GPU if there is one.")
    precision: str = _parameter(
        "auto", "Number format of the network; auto = the fastest one that the device supports well.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip
    cameras: tuple[str, ...] = _parameter(
        ("",), "Names of the cameras, each with its own topics (front/image, ~/front/tracks); empty = one, unnamed.",
        pattern=r"|[A-Za-z][A-Za-z0-9_]*", most=MAX_CAMERAS,
    )  # fmt: skip
    autostart: bool = _parameter(True, "Configure and activate at once, without waiting for a lifecycle manager.")
    image_transport: str = _parameter(
        "raw", "What to subscribe to: raw = image, compressed = image/compressed.", choices=("raw", "compressed")
    )
    image_reliability: str = _parameter(
        "auto", "Reliability of the image subscription; auto = reliable if every publisher is.",
        choices=("auto", "reliable", "best_effort"),
    )  # fmt: skip
    max_pixels: int = _parameter(
        33_177_600, "Larger images are refused before memory is spent on them.", span=(256, 268_435_456), unit="pixels"
    )
    max_objects: int = _parameter(16, "Prompts for more objects than this are refused.", span=(1, 254))
    prompted_memories: int = _parameter(
        4, "Prompted images each object remembers: the first and the newest of the others.", span=(1, 16)
    )
    recent_memories: int = _parameter(
        6, "Recent images that each object remembers; fewer than 6 is faster and less exact.", span=(1, 6)
    )
    cpu_threads: int = _parameter(
        0,
        "Threads of the network on a CPU; 0 = what OMP_NUM_THREADS says, else one for nano and all for others.",
        span=(0, 256),
    )
    memory_pooling: int = _parameter(
        1, "Memory tokens are averaged in squares of this side; 1 = not at all; 2 is faster, less exact.", span=(1, 2)
    )
    image_size: int = _parameter(
        0,
        "Side of the network's input, a multiple of 32, at least 64; smaller is faster, larger can be better; "
        "0 = the model's own.",
        span=(0, 2048),
        unit="pixels",
    )
    history_frames: int = _parameter(
        30,
        "Number of processed images kept, so that a late prompt runs on the one it was made on, or the nearest.",
        span=(1, 300),
    )
    history_s: float = _parameter(
        2.0, "Age up to which images are kept for late prompts; the last two always are.", span=(0.0, 60.0), unit="s"
    )
    occluded_after: int = _parameter(
        1, "Consecutive images without the object after which it is occluded.", span=(1, 300)
    )
    lost_after_s: float = _parameter(
        5.0, "Time unseen after which an object counts as lost.", span=(0.0, 3600.0), unit="s"
    )
    prompt_queue: int = _parameter(
        64, "Requests that may wait for the network; more are answered BUSY.", span=(1, 4096)
    )
    prompt_wait_s: float = _parameter(
        2.0, "How long a prompt waits for a new image before it runs without one, or is answered NO_IMAGE or STALE.",
        span=(0.1, 60.0), unit="s", live=True,
    )  # fmt: skip
    clock_jump_s: float = _parameter(
        5.0, "Stamps jumping back, or ahead of elapsed time, by more than this start a new stream: objects are reset.",
        span=(0.1, 3600.0), unit="s",
    )  # fmt: skip
    image_timeout_s: float = _parameter(
        0.8,
        "No image for this long, or for 2.5 of the camera's periods if that is longer, is an error in the diagnostics.",
        span=(0.1, 3600.0),
        unit="s",
        live=True,
    )
    max_age_s: float = _parameter(
        1.0, "Results published later than this after their image arrived are a warning in the diagnostics.",
        span=(0.001, 60.0), unit="s", live=True,
    )  # fmt: skip
    hang_after_s: float = _parameter(
        10.0,
        "One image taking longer than this is an error in the diagnostics.",
        span=(0.1, 3600.0),
        unit="s",
        live=True,
    )
    max_failures: int = _parameter(
        5,
        "Consecutive images failing in the network after which all objects are dropped.",
        span=(1, 1000),
        live=True,
    )
    target: str = _parameter("", "Object shown on ~/target_mask; empty = the one with the lowest label.", live=True)
    save_folder: str = _parameter(
        "",
        "Where ~/save puts files; named nodes and cameras (camera.NAME) in subfolders; empty = ~/.ros/sam2_objects.",
    )
    classes: tuple[str, ...] = _parameter(
        ("",), "Class names with fixed values in ~/class_mask, in order from 1; other names get the next free values.",
        most=MAX_CLASSES,
    )  # fmt: skip
    depth_enabled: bool = _parameter(False, "Subscribe to depth/image and camera_info, and publish 3-D outputs.")
    depth_nearest_m: float = _parameter(
        0.1, "Depth nearer than this is not used.", span=(0.0, 100.0), unit="m", live=True
    )
    depth_farthest_m: float = _parameter(
        10.0, "Depth farther than this is not used.", span=(0.1, 1000.0), unit="m", live=True
    )
    depth_target_frame: str = _parameter(
        "", "Frame of clouds, poses and markers, looked up in tf2 at the image's stamp; empty = the camera's."
    )
    depth_scene_stride: int = _parameter(
        2, "Only every n-th row and column goes into ~/scene_cloud.", span=(1, 16), live=True
    )
    detector_classes: tuple[str, ...] = _parameter(("",), "Classes of ~/prompt_detections that count; empty = all.")
    detector_least_score: float = _parameter(0.5, "Detections with a lower score are ignored.", span=(0.0, 1.0))
    detector_overlap: float = _parameter(
        0.3, "A box belongs to a tracked object if its overlap (IoU) with the box around the mask is at least this.",
        span=(0.01, 1.0),
    )  # fmt: skip
    detector_refresh_below: float = _parameter(
        0.0, "An object starts over from its detection's box if their overlap (IoU) stays below this; 0 = never.",
        span=(0.0, 1.0),
    )  # fmt: skip
    detector_confirm: int = _parameter(
        2, "Consecutive messages that must show a box before it becomes an object.", span=(1, 100)
    )
    detector_unattended: bool = _parameter(
        False, "Remove objects that stay unseen for long, and duplicates of other objects."
    )
    detector_forget_s: float = _parameter(
        30.0, "With detector.unattended, objects unseen for longer than this and for 30 images are removed; 0 = never.",
        span=(0.0, 86400.0), unit="s",
    )  # fmt: skip
    overlay_opacity: float = _parameter(
        0.45, "How strongly masks are painted over the image on ~/overlay.", span=(0.0, 1.0), live=True
    )
    jpeg_quality: int = _parameter(80, "Quality of ~/overlay/compressed.", span=(1, 100), live=True)


GROUPS = ("depth", "detector")  # parameters of one group share a prefix: depth.enabled


def ros_name(row: dataclasses.Field) -> str:
    """The field depth_enabled is the parameter depth.enabled."""
    group, _, rest = row.name.partition("_")
    return f"{group}.{rest}" if group in GROUPS else row.name


FIELDS = {ros_name(row): row for row in dataclasses.fields(Settings)}  # by parameter name


def changed(settings: Settings, group: str) -> list[str]:
    """Names of a group's parameters that differ from their defaults."""
    ours = [(name, row) for name, row in FIELDS.items() if name.startswith(f"{group}.")]
    return [name for name, row in ours if getattr(settings, row.name) != row.default]


def settings_of(values: dict) -> Settings:
    """Settings of values by parameter name. An empty list becomes ("",), as rclpy cannot tell an empty list's type."""
    given = {FIELDS[name].name: value for name, value in values.items()}
    lists = {name: tuple(value) or ("",) for name, value in given.items() if isinstance(value, list)}
    return Settings(**(given | lists))


def refusal(name: str, value: Any) -> str:
    """Why `value` is invalid for parameter `name`; "" if it is valid. The value must have the parameter's type."""
    rules = FIELDS[name].metadata
    if rules["choices"] and value not in rules["choices"]:
        return f"{name}: expected one of {', '.join(rules['choices'])}, got {value!r}"
    if rules["most"] and len(value) > rules["most"]:
        return f"{name}: expected at most {rules['most']} names, got {len(value)}"
    if rules["pattern"]:
        wrong = [text for text in value if not re.fullmatch(rules["pattern"], text)]
        if wrong or len(set(value)) != len(value) or ("" in value and len(value) > 1):
            return f"{name}: expected different names like 'front', got {', '.join(map(repr, value))}"
    if rules["span"]:
        low, high = rules["span"]
        if not math.isfinite(value) or not low <= value <= high:
            return f"{name}: expected {low} to {high}{' ' + rules['unit'] if rules['unit'] else ''}, got {value}"
    return ""


def describe(row: dataclasses.Field) -> str:
    """The row's sentence with unit, range and whether it can change while the node runs."""
    rules = row.metadata
    notes = []
    if rules["span"]:
        notes.append(f"{rules['span'][0]} to {rules['span'][1]}{' ' + rules['unit'] if rules['unit'] else ''}")
    if rules["choices"]:
        notes.append(" | ".join(rules["choices"]))
    notes.append("live" if rules["live"] else "read-only")
    return f"{rules['sentence']} [{'; '.join(notes)}]"


def to_yaml() -> str:
    """The text of `config/track.yaml`: the whole table with its defaults."""
    lines = [
        "# Every parameter of the node with its default. Written by `python -m sam2_ros.params`; the table itself is",
        "# in sam2_ros/params.py. read-only = fixed when the node starts, live = `ros2 param set` works at any time.",
        "/**:",
        "  ros__parameters:",
    ]
    for name, row in FIELDS.items():
        lines += [f"    # {describe(row)}", f"    {name}: {json.dumps(row.default)}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(to_yaml(), end="")
