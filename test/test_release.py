"""What a release consists of, and what is said where a part of it is missing. Needs no ROS."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import sam2
from sam2_ros import cli

ROOT = Path(__file__).parents[1]
OWN = {"sam2", "sam2_ros", "benchmarks"} | {path.stem for path in ROOT.glob("test/*.py")}
GENERATED = (ROOT / "sam2_ros" / "msg", ROOT / "sam2_ros" / "srv")
FROM_PIP = {"torch", "safetensors", "rosbags"}  # rosdep has no key for them; the README's line has them
ROSDEP = {  # keys by name of import, where they differ
    "PIL": "python3-pil", "cv2": "python3-opencv", "hypothesis": "python3-hypothesis", "numpy": "python3-numpy",
    "matplotlib": "python3-matplotlib", "pytest": "python3-pytest", "tf2_ros": "tf2_ros_py", "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}  # fmt: skip
RUN = ["depend", "exec_depend"]


def test_the_version_is_one(capsys):
    assert ET.parse(ROOT / "package.xml").findtext("version") == sam2.__version__
    assert 'version = { attr = "sam2.__version__" }' in (ROOT / "pyproject.toml").read_text()
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out == f"sam2_ros {sam2.__version__}\n"


@pytest.mark.parametrize(
    ("missing", "cure"),
    [
        (
            "rclpy", "rclpy is not there; source your ROS 2 and the workspace, or where there is no ROS 2 run in the "
            "clone: pip install '.[ros]'\n",
        ),
        ("rclpy._rclpy_pybind11", f"rclpy is there, but made for another Python than this ({sys.executable}, Py"),
        ("sam2_ros.msg", "sam2_ros.msg is not there; source"),
        ("torch", "torch is not installed; run: pip install torch"),
        ("cv2", "cv2 is not installed; run: pip install opencv-python-headless"),
        ("PIL", "PIL is not installed; run: pip install pillow"),
        ("yaml", "yaml is not installed; run: pip install pyyaml"),
        ("rosbags.highlevel", "rosbags is not installed; run: pip install rosbags"),
    ],
)  # fmt: skip
def test_what_is_not_installed_is_one_sentence(missing, cure, monkeypatch, capsys):
    """To have forgotten to source ROS is a beginner's first mistake."""

    def fail(name):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(cli.importlib, "import_module", fail)
    assert cli.main(["replay"]) == 1
    assert capsys.readouterr().err.startswith(f"sam2_ros replay: {cure}")


def test_a_part_of_ours_that_is_missing_is_a_mistake_and_shows_its_trace(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'sam2.nothing'", name="sam2.nothing")

    monkeypatch.setattr(cli.importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="sam2.nothing"):
        cli.main(["replay"])


def test_of_our_own_weights_it_says_where_they_are(tmp_path):
    with pytest.raises(sam2.BadCheckpoint, match="found none; this package's is .*sam2/weights/sam2.1_hiera_nano"):
        sam2.load_model("nano", checkpoint=tmp_path / "sam2.1_hiera_nano.safetensors")
    with pytest.raises(sam2.BadCheckpoint, match="found none; `sam2_ros weights tiny` fetches"):
        sam2.load_model("nano", checkpoint=tmp_path / "mine.safetensors")


def test_both_manifests_want_the_same_safetensors():
    (least,) = re.findall(r'"safetensors>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert f'"safetensors>={least}"' in (ROOT / "README.md").read_text()


def imported(*folders: str) -> set[str]:
    """Packages from elsewhere that files of these folders import; not in a `with`, which does without."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.parent not in GENERATED]
    tops = set()
    for path in files:
        tree = ast.parse(path.read_text())
        spared = {id(node) for part in ast.walk(tree) if isinstance(part, ast.With) for node in ast.walk(part)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import) and id(node) not in spared:
                tops |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                tops.add(node.module.split(".")[0])
    return tops - OWN - FROM_PIP - set(sys.stdlib_module_names)


def test_package_xml_names_what_is_imported():
    """Or `rosdep install` does not bring it, which a machine that has it anyway does not notice."""
    package = ET.parse(ROOT / "package.xml")
    run, tests = ({one.text for tag in tags for one in package.findall(tag)} for tags in (RUN, [*RUN, "test_depend"]))
    assert {ROSDEP.get(name, name) for name in imported("sam2_ros", "launch", "sam2") - {"matplotlib"}} <= run
    assert {ROSDEP.get(name, name) for name in imported("sam2", "test")} <= tests, (
        "curves are a convenience, but tested"
    )


def test_marks_are_known_without_plugins():
    """`colcon test` runs the tests with pytest alone, and a mark that nobody knows ends it before the first."""
    known = set(re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.M))
    used = {mark for path in ROOT.glob("test/*.py") for mark in re.findall(r"pytest\.mark\.(\w+)", path.read_text())}
    assert used - known <= {"filterwarnings", "parametrize", "skip", "skipif", "usefixtures", "xfail"}


def test_pip_brings_what_rosdep_does_not_and_nothing_that_colcon_cannot_use():
    """torch wants setuptools 77 or newer, and from 80 on colcon's --symlink-install fails (colcon-core#696)."""
    (line,) = re.findall(r"^pip install --break-system-packages (.*?)  ", (ROOT / "README.md").read_text(), re.M)
    assert {re.split("[<>=]", word.strip('"'))[0] for word in line.split()} == FROM_PIP | {"setuptools"}
    assert '"setuptools<80"' in line.split()


def test_a_source_distribution_has_what_its_tests_need():
    named = set(re.findall(r"^graft (\w+)$", (ROOT / "MANIFEST.in").read_text(), re.M))
    folders = {line.split("/")[0] for line in tracked() if "/" in line and not line.startswith(".")}
    assert named == folders - {"sam2_ros"}, "setuptools finds that by itself"


def tracked() -> list[str]:
    """Files in git; the test is left out where there is none."""
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git repository")
    if not listed.stdout:
        pytest.skip("git knows none of it: it was unpacked inside another repository")
    return listed.stdout.splitlines()


def test_children_find_what_a_sourced_ros_has():
    """Its rclpy is on PYTHONPATH and nowhere else: who sets that for a child goes on with what was there."""
    setting = [path for path in ROOT.glob("*/*.py") if re.search(r'"PYTHONPATH": \w', path.read_text())]
    assert ROOT / "test/ros_rig.py" in setting and ROOT / "benchmarks/node.py" in setting
    keeping = re.compile(r'children_path\(\)|os\.environ\.get\("PYTHONPATH"\)')
    assert [path.name for path in setting if not keeping.search(path.read_text())] == []


@pytest.mark.parametrize("folder", ["plain", "with space", "jürgen"])
def test_interfaces_are_compiled_where_rosidl_can_read_the_paths(folder, tmp_path, monkeypatch):
    """Its CMake files read those of what they generate as ASCII, and a clone may lie in /home/jürgen."""
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.setattr(setuptools, "setup", lambda **settings: None)
    command = runpy.run_path(str(ROOT / "setup.py"))["BuildInterfaces"](setuptools.Distribution())
    command.build_temp = str(tmp_path / folder)
    work = command.work_folder()
    assert str(work).isascii() and (tmp_path in work.parents) == command.build_temp.isascii()


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_leaves_what_other_environments_set_outside():
    named = re.findall(r"^unexport (.*)", (ROOT / "Makefile").read_text(), re.M)
    leaking = dict.fromkeys([*" ".join(named).split(), "PYTHONPATH", "PYTHONSAFEPATH"], "/elsewhere")
    leaking |= {"LD_LIBRARY_PATH": "", "PYTHONHOME": ""}  # make itself, and what it starts, must run
    shown = subprocess.run(
        ["make", "-s", "--eval", "shown: ; @env", "shown"], cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | leaking,
    ).stdout  # fmt: skip
    assert len(leaking) > 8 and not leaking.keys() & {line.partition("=")[0] for line in shown.splitlines()}


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("folder", ["my venvs/one", ""])
def test_make_refuses_a_venv_whose_name_it_would_split(folder):
    """It would make two venvs, and remove a file that has the first part's name."""
    words = ["make", "--no-print-directory", "-n", "venv", f"VENV={folder}"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 2 and told.stdout == ""
    assert f"VENV: expected a path without spaces, which make cannot have in targets, got '{folder}'" in told.stderr
