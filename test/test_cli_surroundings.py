"""The command line: what a command finds around it, and which domains are looked at. Needs no ROS."""

import errno
import io
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sam2_ros import cli


@pytest.mark.parametrize(
    ("domain", "command", "code"),
    [
        ("x", "replay", 3), ("", "status", 3), ("x", "status", 2), ("x", "--version", 0), ("x", "--help", 0),
        ("0", "status", 3), ("232", "status", 3), ("0xe8", "status", 3), ("0xe9", "status", 2),
    ],
)  # fmt: skip
def test_a_domain_counts_where_it_is_used(domain, command, code, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=lambda argv: 3))
    assert cli.main([command]) == code


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_command_finds_signals_as_they_were_and_threads_that_do_not_spin(handler, monkeypatch):
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: found.append(wait()) or SimpleNamespace(main=main))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    found, wait = [], lambda: os.environ.get("OMP_WAIT_POLICY")
    main = lambda argv: found.append(signal.getsignal(signal.SIGINT)) or 0  # noqa: E731
    before = signal.signal(signal.SIGINT, handler)
    try:
        assert cli.main(["replay"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert found == ["PASSIVE", handler]


@pytest.mark.parametrize(
    ("encoding", "errors", "shown"),
    [
        ("utf-8", "strict", "чé".encode() + b"\xff"), ("latin-1", "strict", b"\\u0447\xe9\xff"),
        ("ascii", "surrogateescape", b"\\u0447\\xe9\xff"), ("utf-8", "backslashreplace", "чé".encode() + rb"\udcff"),
    ],
)  # fmt: skip
def test_names_of_any_characters_can_be_told_whatever_the_locale_demands(encoding, errors, shown, monkeypatch):
    """Those that are no UTF-8 as they are, and escaped those that the encoding lacks; or as PYTHONIOENCODING says."""
    name, raw = "чé" + os.fsdecode(b"\xff.mcap"), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors))
    monkeypatch.setattr(
        cli.importlib, "import_module", lambda _: SimpleNamespace(main=lambda argv: print(f"wrote {name}") or 0)
    )
    assert cli.main(["replay"]) == 0 and raw.getvalue() == b"wrote " + shown + b".mcap\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_disk_that_takes_no_more_is_a_sentence_and_other_errors_without_a_file_are_defects(
    number, monkeypatch, capsys
):
    def fail(argv):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=fail))
    assert cli.main(["replay"]) == 1
    assert capsys.readouterr().err == f"sam2_ros replay: a file that it writes: {os.strerror(number)}\n"
    number = errno.EINVAL
    with pytest.raises(OSError, match="Invalid argument"):
        cli.main(["replay"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("words", [["--help"], ["help"], ["--version"], ["weights", "--help"]])
def test_help_that_finds_no_room_is_a_sentence(words):
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "sam2_ros.cli", *words], stdout=full, stderr=subprocess.PIPE, text=True, env=buffered
        )
    assert ended.stderr == f"sam2_ros {words[0]}: a file that it writes: No space left on device\n"
    assert ended.returncode == 1
