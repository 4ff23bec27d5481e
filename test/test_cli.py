"""The command line: every command is found, help is help, mistakes are one sentence, and a prompt reaches a node."""

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from ros_rig import NodeProcess

import sam2
from sam2_ros import cli, demo, node_client, objects, prompt, simulator
from sam2_ros.msg import Track

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(argv, capsys):
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {command} " in said for command in [*cli.MODULES, "weights"])


def test_an_unknown_command_is_one_sentence(capsys):
    assert cli.main(["trakc"]) == 2
    said = capsys.readouterr().err
    assert "'trakc'" in said and "track" in said and said.count("\n") == 1


def run_track(*argv):
    return subprocess.run(
        [sys.executable, "-m", "sam2_ros.cli", "track", *argv], capture_output=True, text=True, timeout=60
    )


def test_the_node_has_help_and_refuses_words_that_it_does_not_know():
    helped = run_track("--help")
    assert helped.returncode == 0 and "--ros-args" in helped.stdout
    wrong = run_track("--model", "tiny")
    assert wrong.returncode == 2 and "'--model'" in wrong.stderr and wrong.stderr.count("\n") == 1


def test_an_impossible_parameter_is_one_sentence():
    wrong = run_track("--ros-args", "-p", "max_objects:=999")
    assert wrong.returncode == 1 and "Max: 254" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize("domain", ["233", "-1", "x", "1.5"])
def test_a_domain_that_is_none_is_one_sentence(domain, capsys, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    assert cli.main(["prompt", "--click", "1", "2"]) == 2
    assert capsys.readouterr().err == f"sam2_ros: ROS_DOMAIN_ID: expected 0 to 232, got {domain!r}\n"
    assert cli.main(["weights", "--help"]) == 0  # without ROS
    assert cli.main(["weights", "--hlep"]) == cli.main(["weights"]) == 2


def test_the_rest_of_the_line_goes_to_the_command(monkeypatch):
    got = []
    module = SimpleNamespace(main=lambda argv: got.append(argv) or 3)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)
    assert cli.main(["replay", "bag", "--out", "x"]) == 3 and got == [["bag", "--out", "x"]]


def test_an_error_of_the_library_is_one_sentence(monkeypatch, capsys):
    def fail(argv):
        raise sam2.BadCheckpoint("weights.pt: not there")

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=fail))
    assert cli.main(["replay", "bag"]) == 1
    assert capsys.readouterr().err == "sam2_ros replay: weights.pt: not there\n"


def test_ctrl_c_is_one_sentence(monkeypatch, capsys):
    def wait(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=wait))
    assert cli.main(["prompt", "--click", "1", "2"]) == 130
    assert capsys.readouterr().err == "sam2_ros prompt: interrupted\n"


def test_ctrl_c_in_the_middle_of_the_imports_ends_it_with_a_sentence():
    """Where torch imports what it can do without, an interrupt would be swallowed."""
    code = (
        "import importlib, os, signal; from sam2_ros import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever runs the tests may ignore it
        "def load(name):\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT)\n    except BaseException:\n        pass\n"
        "importlib.import_module = load; cli.main(['replay', 'bag'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, "sam2_ros replay: interrupted\n")


@pytest.mark.parametrize("given", ["sam2", "/sam2", "/sam2/", "sam2/"])
def test_the_node_may_be_named_with_or_without_slashes(given, capsys):
    assert prompt.parse(["--click", "1", "2", "--node", given]).node == "/sam2"
    with pytest.raises(SystemExit):
        prompt.parse(["--click", "1", "2", "--node", given + "/1 2"])
    assert "expected a name such as /sam2" in capsys.readouterr().err


@pytest.mark.parametrize("command", [simulator, demo])
@pytest.mark.parametrize(
    "words",
    [
        "--rate 0",
        "--rate -2",
        "--rate 1e-10",
        "--rate nan",
        "--rate inf",
        "--width 8",
        "--frames -1",
        "--seed -1",
        "--height 99999",
    ],
)
def test_a_camera_that_cannot_be_is_refused(command, words, capsys):
    with pytest.raises(SystemExit):
        command.main(words.split())
    said = capsys.readouterr().err
    assert words.split()[0] in said and "expected" in said and ("got" in said or "--frames" in words)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--frams 3", "unknown argument '--frams'"),
        ("--wait -1", "--wait: expected 0 or more, got -1"),
        ("--still -1", "--still: expected seconds, 0 to 3600, got -1"),
        ("--still 3601", "--still: expected seconds, 0 to 3600, got 3601"),
        ("--still nan", "--still: expected seconds, 0 to 3600, got nan"),
    ],
)
def test_a_camera_takes_no_words_that_mean_nothing_to_it(given, said, capsys):
    with pytest.raises(SystemExit):
        simulator.main([*given.split(), "--ros-args", "-r", "image:=/x"])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1e999", "soon"])
def test_a_time_that_is_none_is_refused_before_anything_is_asked(given, capsys):
    for command, words in ((prompt, ["--click", "1", "2"]), (objects, [])):
        with pytest.raises(SystemExit):
            command.main([*words, "--timeout", given])
        assert f"expected seconds, above 0 and up to 3600, got '{given}'" in capsys.readouterr().err


def run_prompt(*argv):
    """Starts `sam2_ros prompt` as a process."""
    command = [sys.executable, "-m", "sam2_ros.cli", "prompt", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_prompt_from_the_command_line_starts_tracking_and_a_wrong_one_is_refused(rig):
    with NodeProcess() as node:
        camera = rig.camera()
        camera.wait_for_subscriber()
        good = run_prompt("--click", "30", "20", "--id", "cup")
        number = camera.publish_until(lambda: good.poll() is not None)
        said, wrong = good.communicate()
        assert good.returncode == 0 and not re.sub(".*; waiting\n", "", wrong)
        assert re.fullmatch(r"tracking cup: \d+ pixels in \d+x\d+ at \(\d+, \d+\), presence [01]\.\d\d\n", said), said
        bad = run_prompt("--click", "300", "20")
        camera.publish_until(lambda: bad.poll() is not None, first=number)
        said = bad.communicate()[1]
        assert bad.returncode == 1 and "BAD_INPUT" in said and "64x48" in said and "Traceback" not in said
        node.end()


def what_it_waits_for(command):
    """Once it has found the node, which takes more than three seconds on a busy machine."""
    while "is not there yet" in (line := command.stderr.readline()):
        pass
    return line.removesuffix("; waiting\n")


def test_a_prompt_waits_for_a_model_that_is_being_loaded(rig, tmp_path):
    with NodeProcess(tracker={"load_until": str(tmp_path / "loaded")}) as node:
        camera = rig.camera()
        camera.wait_for_subscriber()
        early = run_prompt("--click", "30", "20", "--id", "cup", "--timeout", "120")
        assert what_it_waits_for(early) == "the model is being loaded"
        (tmp_path / "loaded").touch()
        camera.publish_until(lambda: early.poll() is not None)
        assert early.returncode == 0 and early.communicate()[0].startswith("tracking cup: ")
        node.end()


def test_a_prompt_waits_for_a_camera_that_was_just_started(rig):
    with NodeProcess(parameters={"prompt_wait_s": 0.1}) as node:
        rig.wait_for_state("active")
        early = run_prompt("--click", "30", "20", "--id", "cup", "--timeout", "120")
        assert what_it_waits_for(early).startswith("nobody publishes /image ")
        rig.camera().publish_until(lambda: early.poll() is not None)
        assert early.returncode == 0 and early.communicate()[0].startswith("tracking cup: ")
        node.end()


@pytest.mark.parametrize("command", ["status", "objects", "objects --watch"])
def test_a_signal_ends_a_command_that_waits_without_a_traceback(command, rig):
    lonely = subprocess.Popen(
        [sys.executable, "-m", "sam2_ros.cli", *command.split(), "--node", "/nobody", "--timeout", "300"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    rig.until(lambda: "sam2_command" in rig.node.get_node_names())
    lonely.terminate()
    said = lonely.communicate()[1].splitlines()  # on a busy machine also what it waits for
    assert said[-1] == f"sam2_ros {command.split()[0]}: interrupted" and lonely.returncode == 130 and len(said) < 3


def test_a_reader_that_leaves_is_no_error():
    code = """
import importlib, sys
from types import SimpleNamespace
from sam2_ros import cli
importlib.import_module = lambda name: SimpleNamespace(main=lambda rest: print("news") or 0)
sys.exit(cli.main(["objects"]))
"""
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    talker = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, env=buffered)
    os.close(writer)
    assert (talker.returncode, talker.stderr) == (141, b"")


def test_a_prompt_without_a_node_says_so():
    lonely = run_prompt("--click", "1", "2", "--node", "/nobody", "--timeout", "0.5")
    said = lonely.communicate()[1]
    assert lonely.returncode == 2 and "/nobody/add_objects is not there" in said and "its ROS_DOMAIN_ID" in said


def test_a_prompt_that_was_carried_out_is_no_failure_if_nothing_more_is_heard(monkeypatch, capsys):
    """Whoever is told that it failed would prompt again."""

    def ask(kind, service, request, waits_for=()):
        if service == "list_objects":
            raise node_client.NoAnswer("no answer from /sam2 within 4 s")
        return kind.Response(object_ids=["cup"])

    monkeypatch.setattr(prompt, "connect", lambda name, timeout_s: nullcontext(SimpleNamespace(call=ask)))
    assert prompt.main(["--click", "1", "2"]) == 0 and capsys.readouterr().out == "tracking cup\n"


def test_an_object_that_is_not_seen_is_not_said_to_be_tracked_well():
    hidden, seen = Track(state=Track.OCCLUDED, presence=0.06), Track(area=5, presence=0.9)
    assert "not seen in the image (presence 0.06)" in prompt._how(hidden) and "not seen" not in prompt._how(seen)
    assert "no pixel is marked (presence 0.98)" in prompt._how(Track(presence=0.98)), "present, but the mask is empty"


def test_what_the_machine_refuses_is_a_sentence(capsys, monkeypatch):
    for error, sentence in (
        (PermissionError(13, "Permission denied", "there/demo"), "sam2_ros demo: there/demo: Permission denied"),
        (PermissionError(13, "Permission denied", "part", None, "x.mp4"), "sam2_ros demo: x.mp4: Permission denied"),
        (type("RCLError", (RuntimeError,), {})("no such domain"), "sam2_ros demo: no such domain"),
        (MemoryError(), "sam2_ros demo: this machine has no memory left; close other programs"),
    ):
        module = SimpleNamespace(main=lambda rest, error=error: (_ for _ in ()).throw(error))
        monkeypatch.setattr("importlib.import_module", lambda name, module=module: module)
        assert cli.main(["demo"]) == 1 and capsys.readouterr().err == f"{sentence}\n"
    monkeypatch.setattr("importlib.import_module", lambda name: SimpleNamespace(main=lambda rest: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])


@pytest.mark.parametrize("module", ["sam2_ros.cli", "sam2_ros.prompt", "sam2_ros.objects", "sam2_ros.main"])
def test_what_must_start_quickly_does_not_load_the_network(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("status --node /nobody --timeout 0.5", 2, "nothing of /nobody on /diagnostics"),
        ("prompt --click 1 2 --node /nobody --timeout 0.5", 2, "/nobody/add_objects is not there"),
        ("simulate --frames 1", 0, "sam2_ros: no log files: /proc/no/such/place: "),
    ],
)
def test_a_command_needs_no_place_for_a_log(words, code, said):
    """As in a container without a home, or whose disk is read-only or full: there the node's state is asked for."""
    surroundings = {**os.environ, "ROS_LOG_DIR": "/proc/no/such/place"}
    command = [sys.executable, "-m", "sam2_ros.cli", *words.split()]
    ended = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert ended.returncode == code and said in ended.stderr and "logging" not in ended.stderr, ended.stderr
