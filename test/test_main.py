"""The node's process before there is a node: its arguments and its surroundings."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from ros_rig import ON_FAST_DDS, PATIENCE_S, NodeProcess

from sam2_ros import cli, fast_dds, log_files, main
from sam2_ros.rcl_errors import sentence_of

pytestmark = pytest.mark.ros
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["-p", "model"], "NAME:=VALUE"),
        (["-r", "image=/image"], "FROM:=TO"),
        (["-r", "image:=/"], "write it as FROM:=TO, for example -r image:=/camera/image_raw; "),
        (["-r", "image:=/ü"], "a name are ASCII letters, digits and _, and no digit comes first\n"),
        (["--log-level", "loud"], "write debug, info, warn, error or fatal"),
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--params-file", "/sam2:\n\tros__parameters: {}\n"], "not by tabs"),
        (["--params-file", "max_objects: 3\n"], "`/**:` and `  ros__parameters:`"),
        (["-p", "classes:=person"], '["person"]'),
        (["-p", "depth.enabled:=1"], "true or false"),
        (["-p", "lost_after_s:=5"], "5.0"),
        (["-p", f"cameras:=[{'a' * 300}]"], "name: topic length should not exceed '255U - 8U'; give the node, "),
    ],
)
def test_ros_arguments_that_cannot_be_read_are_one_sentence(words, hint, tmp_path):
    """With what to do about it, since rcl names them in its own terms."""
    option, given = words
    if "\n" in given:
        (tmp_path / "params.yaml").write_text(given)
        given = str(tmp_path / "params.yaml")
    command = [sys.executable, "-m", "sam2_ros.main", "--ros-args", option, given]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == (1 if option == "-p" and ":=" in given else 2) and "Traceback" not in ended.stderr
    assert given.partition(":=")[0] in ended.stderr and hint in ended.stderr


def test_what_is_meant_as_a_parameter_is_not_taken_for_a_name():
    """`ros2 launch` takes model:=tiny; here rcl would rename a topic "model", and nano would run. It is said before
    PyTorch, which takes seconds, is imported."""
    command = [sys.executable, "-X", "importtime", "-m", "sam2_ros.main", "model:=tiny"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert " rclpy\n" in ended.stderr and " torch\n" not in ended.stderr
    assert ended.returncode == 2 and "'model:=tiny' must come after --ros-args: -p model:=tiny" in ended.stderr


@pytest.mark.parametrize("words", [["prompt", "--click", "1", "1", "--node"], ["simulate", "--ros-args", "-r"]])
def test_a_name_that_is_too_long_is_one_sentence_in_other_commands_too(words):
    name = "a" * 250 if words[-1] == "--node" else f"__node:={'a' * 250}"
    command = [sys.executable, "-m", "sam2_ros.cli", *words, name]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "length should not exceed '255U - 8U'; give the node, " in ended.stderr


def test_a_remapping_without_its_option_is_one_sentence_in_both_commands(monkeypatch, capsys):
    """rclpy raises another error for this than for one that it cannot read, and names only the word."""
    words = ["--ros-args", "image:=/camera/image_raw"]
    said = "unknown ROS arguments ['image:=/camera/image_raw']: -r FROM:=TO remaps a name, "
    assert cli.main(["simulate", *words]) == 1 and f"sam2_ros simulate: {said}" in capsys.readouterr().err
    monkeypatch.setattr(main.os, "_exit", lambda code: sys.exit(code))
    with pytest.raises(SystemExit):
        main._check_arguments(words)
    assert f"sam2_ros track: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["track", "simulate"])
def test_bytes_that_are_no_text_are_one_sentence(command):
    words = [sys.executable, "-m", "sam2_ros.cli", command, "--ros-args", "-p", b"x:=\xff"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == (2 if command == "track" else 1) and "Traceback" not in ended.stderr
    assert f"sam2_ros {command}: an argument: expected UTF-8, got 'x:=\\udcff'" in ended.stderr


def test_a_middleware_that_says_no_is_one_sentence(tmp_path):
    """Here: keys are demanded, and there are none."""
    secure = {
        "ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": str(tmp_path),
    }  # fmt: skip
    command = [sys.executable, "-m", "sam2_ros.main"]
    environment = os.environ | secure
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert re.search("^sam2_ros track: .*secur", ended.stderr, re.M | re.I), ended.stderr


def test_a_middleware_that_has_said_why_is_pointed_to():
    """As CycloneDDS does, for instance without a network."""
    said = sentence_of(RuntimeError("error creating node: error not set, at /src/rcl/node.c:249"))
    assert said.endswith("; the middleware has said why, in the lines above")


def test_a_node_that_ends_before_its_test_does_leaves_no_pipe_open():
    """Python's complaint about one would hide why the test failed."""
    with NodeProcess(remap={"__node": "a" * 250}) as node:
        node.process.wait(PATIENCE_S)
    assert node.process.returncode == 1 and node.process.stdout.closed and node.process.stderr.closed


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize(
    ("distro", "read"), [("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"), ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE")]
)
def test_its_shared_memory_has_room_for_images_unless_somebody_else_cares(is_given, distro, read):
    """However it is started: otherwise somebody who looks at ~/overlay holds up ~/visibility."""
    code = (
        "import os; from sam2_ros import fast_dds, main; fast_dds._shared_memory_bytes = lambda: 1 << 40\n"
        f"def stop(settings): print('profile', os.environ.get('{read}'), flush=True); os._exit(0)\n"
        "main.main([], stop)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in fast_dds._CHOICES}
    environment |= {"ROS_DISTRO": distro} | ({read: "/mine.xml"} if is_given else {})
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, env=environment
    )
    path = next(line for line in ended.stdout.splitlines() if line.startswith("profile")).split()[1]
    assert Path(path).name == ("mine.xml" if is_given else "fastdds_shm.xml") and (is_given or Path(path).is_file())


def segments_of(node: NodeProcess) -> set[Path]:
    """Its own and those of whom it talks to."""
    maps = Path(f"/proc/{node.process.pid}/maps").read_text()
    return {Path("/dev/shm") / name for name in re.findall(r"/dev/shm/(fast(?:dds|rtps)_[0-9a-f]{16})\n", maps)}


def is_locked(segment: Path) -> bool:
    with segment.with_name(f"{segment.name}_el").open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@pytest.mark.skipif(not (ON_FAST_DDS and fast_dds.SHARED.is_dir()), reason="there is no Fast DDS in shared memory")
def test_what_the_killed_left_in_shared_memory_is_taken_away_and_what_the_living_have_is_not(rig):
    """As whoever starts next does it, to all that is not quite new."""
    with NodeProcess() as killed, NodeProcess(remap={"__ns": "/other"}) as lives:
        rig.wait_for_state("active")
        rig.until(lambda: rig.node.count_publishers("/other/sam2/tracks"))
        theirs, others = segments_of(killed), segments_of(lives)
        for segment in theirs:
            os.utime(f"{segment}_el")  # whoever starts meanwhile does not take them away
        killed.signal(signal.SIGKILL)
        killed.exit_code()
        left = {segment for segment in theirs if not is_locked(segment)}
        assert left and others - left
        fast_dds.remove_left_behind()
        assert all(segment.exists() for segment in left), "too new"
        for segment in left:
            os.utime(f"{segment}_el", (0, 0))
        fast_dds.remove_left_behind()
        assert not any(path.exists() for segment in left for path in (segment, Path(f"{segment}_el")))
        assert all(is_locked(segment) for segment in (theirs | others) - left)
        lives.end()


@pytest.mark.parametrize("disk", ["full", "read-only", "impossible", "good"])
def test_where_no_log_can_be_written_there_is_none_and_it_says_so(disk, tmp_path, monkeypatch, capsys):
    folder = Path("/proc/no/such/place") if disk == "impossible" else tmp_path / "log"
    monkeypatch.setenv("ROS_LOG_DIR", str(folder))
    words, opened = {"full": "No space left on device", "read-only": "Read-only file system"}, []

    def open_it(dir):
        opened.append(dir)
        if disk == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return open("/dev/full", "wb") if disk == "full" else open(Path(dir) / "probe", "wb")

    monkeypatch.setattr(log_files.tempfile, "TemporaryFile", open_it)
    arguments, said = log_files.log_arguments(), capsys.readouterr().err
    if disk == "good":
        assert (arguments, said, opened) == ([], "", [str(folder)]) and (folder / "probe").read_bytes()
        return
    assert arguments == ["--ros-args", "--disable-external-lib-logs"]
    assert said.startswith(f"sam2_ros: no log files: {folder}: ") and words.get(disk, "") in said
    assert said.endswith("; make it writable or set ROS_LOG_DIR\n") and said.count("\n") == 1


def test_without_a_home_there_is_no_log_and_no_folder_of_that_name(tmp_path, monkeypatch, capsys):
    """Whatever is in the list of users: rcl does not look there."""
    for name in ("ROS_LOG_DIR", "ROS_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert log_files.log_arguments() == ["--ros-args", "--disable-external-lib-logs"]
    assert "no log files: ~/.ros/log: HOME is not set; make" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "folder"), [("ROS_LOG_DIR", "there"), ("ROS_HOME", "there/log")])
def test_a_tilde_in_the_log_folder_is_the_home(name, folder, tmp_path, monkeypatch):
    for other in ("ROS_LOG_DIR", "ROS_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, "~/there")
    assert log_files.log_arguments() == [] and (tmp_path / folder).is_dir()
    assert log_files.log_arguments() == [], "it is there already"


def test_signals_are_taken_before_anything_slow_is_imported():
    code = "import sys, sam2_ros.main; sys.exit('numpy' in sys.modules or 'rclpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_in_a_folder_that_is_gone_it_runs_in_another(tmp_path):
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from sam2_ros import main; os.rmdir(os.getcwd())\n"
        "def stop(settings): print('in', os.getcwd(), flush=True); os._exit(0)\n"
        "main.main([], stop)"
    )
    (tmp_path / "gone").mkdir()
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path / "gone")
    assert ended.returncode == 0 and "in /\n" in ended.stdout
    assert "sam2_ros track: the folder that it was started in is gone; it runs in /\n" in ended.stderr


@pytest.mark.skipif(not ON_FAST_DDS, reason="other middlewares take no shared memory")
def test_its_shared_memory_goes_with_it(rig):
    """64 MiB that stayed behind at every restart would fill the machine's memory."""
    before = set(os.listdir("/dev/shm"))
    with NodeProcess() as node:
        rig.wait_for_state("active")
        maps = Path(f"/proc/{node.process.pid}/maps").read_text()
        own = set(re.findall(r"/dev/shm/(fast(?:dds|rtps)_[0-9a-f]{16})", maps)) - before
        node.end()
    assert own and not own & set(os.listdir("/dev/shm"))


def test_transports_are_left_alone_where_somebody_has_chosen(monkeypatch):
    for name in fast_dds._CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    fast_dds.make_room()
    assert fast_dds.PROFILES not in os.environ


@pytest.mark.parametrize(
    ("free", "segment"), [(2 * fast_dds.SEGMENT_BYTES, [str(fast_dds.SEGMENT_BYTES)]), (64 << 20, []), (0, [])]
)
def test_segments_are_large_where_there_is_room_for_two_and_packets_are_kept_anyway(free, segment, monkeypatch):
    for name in fast_dds._CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fast_dds, "_shared_memory_bytes", lambda: free)
    monkeypatch.setattr(fast_dds, "share_folders", list)
    profile = Path(fast_dds.profile()).read_text()
    assert re.findall(r"<segment_size>(\d+)<", profile) == segment
    assert re.findall(r"<receiveBufferSize>(\d+)<", profile) == [str(fast_dds.RECEIVE_BYTES)]


@pytest.mark.parametrize("own", ["fastdds", "fastrtps"])
def test_what_fast_dds_of_jazzy_left_is_taken_away_too(own, tmp_path, monkeypatch):
    monkeypatch.setattr(fast_dds, "SHARED", tmp_path)
    left = [tmp_path / f"{own}_0123456789abcdef", tmp_path / f"{own}_0123456789abcdef_el"]
    others = [tmp_path / f"{own}_port7413_el", tmp_path / "fastfood_0123456789abcdef_el"]
    for path in left + others:
        path.touch()
        os.utime(path, (0, 0))
    fast_dds.remove_left_behind()
    assert sorted(tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize(
    "started, signals, code, name, before",
    [
        (False, 1, 0, "SIGTERM", "SIG_DFL"), (True, 2, 130, "SIGTERM", "SIG_DFL"), (True, 1, 3, "SIGTERM", "SIG_DFL"),
        (True, 1, 3, "SIGHUP", "SIG_DFL"), (True, 1, 4, "SIGHUP", "SIG_IGN"),
    ],
)  # fmt: skip
def test_a_signal_while_starting_ends_it_and_a_second_one_ends_it_at_once(started, signals, code, name, before):
    """A terminal that is closed is one, but not under nohup."""
    script = (
        f"import os, signal, sys; from sam2_ros.main import _Signals; signal.signal(signal.{name}, signal.{before});"
        "noted = _Signals();"
        f"noted.is_starting = noted.is_starting and {not started};"
        f"[os.kill(os.getpid(), signal.{name}) for _ in range({signals})]; sys.exit(3 if noted.came else 4)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == code
