"""The messages and services: documented, agreed with the rest of the package, and read by C++ from the same bytes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sam2

pytest.importorskip("rclpy", reason="needs rclpy")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces: make venv, or colcon build")

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from sam2_ros import msg as messages
from sam2_ros.msg import Mask, PromptResult, Track, TrackArray, Visibility
from sam2_ros.requests import Code

pytestmark = pytest.mark.ros
ROOT = Path(__file__).parent.parent
PREFIXES = os.environ.get("AMENT_PREFIX_PATH", sys.prefix)  # of a sourced ROS, or the venv
SOURCES = sorted([*ROOT.glob("msg/*.msg"), *ROOT.glob("srv/*.srv")])
FIELD = re.compile(r"^[A-Za-z][\w/]*(\[.*?\])?\s+[a-z]\w*")  # type and name; a constant's name is in capitals


def undocumented(text: str) -> list[str]:
    """The lines of an interface file that declare a field and say nothing about it."""
    return [line for line in text.splitlines() if FIELD.match(line) and "#" not in line]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_field_says_what_it_is(path):
    assert any(map(FIELD.match, path.read_text().splitlines())), f"{path.name} has no field"
    assert undocumented(path.read_text()) == []


def test_a_field_without_a_comment_is_found():
    assert undocumented("uint8 OK=0\nuint8 label\nsensor_msgs/Image mask  # why\n") == ["uint8 label"]


def constants(kind) -> dict[str, int]:
    """The constants of a generated message class by name."""
    return {name: getattr(kind, name) for name in dir(type(kind)) if name.isupper() and name[0] != "_"}


def test_states_are_those_of_the_library():
    expected = {state.name: state.value for state in sam2.State}
    assert constants(Track) == expected
    assert constants(Visibility) == expected


def test_codes_are_those_the_node_answers_with():
    assert constants(PromptResult) == {code.name: code.value for code in Code}


def test_installed_interfaces_are_those_of_this_checkout():
    share = next(path for prefix in PREFIXES.split(os.pathsep) if (path := Path(prefix) / "share/sam2_ros").is_dir())
    stale = [p.name for p in SOURCES if (share / p.parent.name / p.name).read_text() != p.read_text()]
    assert stale == [], "built from older files: make venv, or colcon build"


def example() -> TrackArray:
    """What test/cpp/track_array.cpp fills in."""
    stamp = Time(sec=12, nanosec=345)
    mask = Mask(image_width=640, image_height=480, x=10, y=20, width=3, height=2, counts=[0, 3, 1, 1, 1])
    cup = Track(
        object_id="cup", class_name="crockery", label=7, state=Track.VISIBLE, object_score=4.5, presence=0.75,
        predicted_iou=0.5, box=RegionOfInterest(x_offset=10, y_offset=20, width=3, height=2), centroid_x=11.5,
        centroid_y=20.25, area=4, last_seen=stamp, frames_since_seen=0, mask=mask,
    )  # fmt: skip
    ball = Track(
        object_id="ball", label=254, state=Track.LOST, object_score=-8.0, last_seen=Time(sec=1), frames_since_seen=330
    )
    return TrackArray(header=Header(stamp=stamp, frame_id="camera_optical"), tracks=[cup, ball])


def test_nothing_of_the_machine_that_built_them_is_exported():
    """CMake refuses whoever links what names a folder that is gone, as pip's are."""
    folders = [Path(prefix) / "share" / "sam2_ros" / "cmake" for prefix in PREFIXES.split(os.pathsep)]
    exports = [path for folder in folders for path in folder.glob("*Export.cmake")]
    named = [re.findall('INTERFACE_INCLUDE_DIRECTORIES "([^"]*)"', path.read_text()) for path in exports]
    assert len(named) > 5, "the interfaces are installed somewhere"
    assert {folder for (found,) in filter(None, named) for folder in found.split(";")} == {
        "${_IMPORT_PREFIX}/include/sam2_ros"
    }


@pytest.fixture(scope="module")
def cpp_program(tmp_path_factory) -> Path:
    """test/cpp compiled against the installed headers and libraries."""
    cmake = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    compiler = os.environ.get("CXX", "c++")
    if not cmake or not shutil.which(compiler):
        pytest.skip(f"needs cmake ({cmake}) and the C++ compiler {compiler} ({shutil.which(compiler)})")
    build = tmp_path_factory.mktemp("cpp")
    settings = {"CMAKE_PREFIX_PATH": PREFIXES.replace(os.pathsep, ";"), "Python3_EXECUTABLE": sys.executable}
    options = [f"-D{name}={value}" for name, value in settings.items()]
    environment = os.environ | {"AMENT_PREFIX_PATH": PREFIXES}
    for step in (["-S", ROOT / "test/cpp", "-B", build, *options], ["--build", build]):
        done = subprocess.run([cmake, *map(str, step)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "track_array"


def test_cpp_fills_what_python_reads(cpp_program, tmp_path):
    out = tmp_path / "filled"
    subprocess.run([cpp_program, out], check=True)
    assert deserialize_message(out.read_bytes(), TrackArray) == example()


def test_cpp_reads_what_python_fills(cpp_program, tmp_path):
    sent, returned = tmp_path / "sent", tmp_path / "returned"
    message = example()
    message.tracks[1].class_name = "only Python knows"
    sent.write_bytes(serialize_message(message))
    subprocess.run([cpp_program, sent, returned], check=True)
    assert deserialize_message(returned.read_bytes(), TrackArray) == message


def test_every_message_has_a_source():
    generated = {name for name in dir(messages) if not name.startswith("_") and name[0].isupper()}
    assert {path.stem for path in ROOT.glob("msg/*.msg")} == {name for name in generated if "Metaclass" not in name}
