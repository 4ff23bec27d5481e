"""The command `sam2_ros`: runs the module of each command, and turns errors that are no defects into one sentence."""

import codecs
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from sam2_ros import rcl_errors

USAGE = """usage: sam2_ros COMMAND [arguments]

Point at a thing once; from then on, know for every camera image which pixels are that thing and whether it is visible.

  demo       a simulated camera, the tracker and prompts over ROS 2; ends with a table, demo.mp4 and demo.png
  simulate   a camera that publishes a synthetic world with ground truth
  track      the tracking node; takes ROS arguments, for example
               sam2_ros track --ros-args -r image:=/camera/image_raw -p model:=tiny
  prompt     tell a running node what to track, and print its answer:
               sam2_ros prompt --click 320 240 --id cup
  status     state of a running node, and why nothing comes out of it
  objects    what a running node tracks; watch it, remove, reset, save and restore:
               sam2_ros objects --watch
  replay     run a bag, a video or a folder of images through the tracker, every frame, without a node
  weights    download official weights: sam2_ros weights tiny

`sam2_ros COMMAND --help` documents a command; `sam2_ros --version` prints the version.
"""

FROM_PIP = {  # pip packages by module, for what a sourced ROS 2 does not always provide
    **{name: name for name in ("torch", "safetensors", "tqdm", "rosbags", "numpy")},
    "cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml",
}  # fmt: skip
WITHOUT_ROS = "run in the clone: pip install '.[ros]'"  # by a name on PyPI one would get what others put there
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # errors of writes carry no file name
HELP = "-h", "--help", "help"
LAST_DOMAIN = 232  # DDSI-RTPS 9.6.2: higher ones have no ports
MODULES = {  # each has a function `main(argv) -> exit code`
    "demo": "sam2_ros.demo",
    "simulate": "sam2_ros.simulator",
    "track": "sam2_ros.main",
    "prompt": "sam2_ros.prompt",
    "status": "sam2_ros.status",
    "objects": "sam2_ros.objects",
    "replay": "sam2_ros.replay",
}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: that of the command, 0 for help, 2 for an unknown command or a bad environment."""
    command, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if command not in (*MODULES, *HELP, "weights", "--version"):
        print(f"sam2_ros: no command {command!r}; expected one of {', '.join([*MODULES, 'weights'])}", file=sys.stderr)
        return 2
    if command not in (*HELP, "weights", "replay", "--version") and not _is_domain(
        domain := os.environ.get("ROS_DOMAIN_ID") or "0"
    ):
        print(f"sam2_ros: ROS_DOMAIN_ID: expected 0 to {LAST_DOMAIN}, got {domain!r}", file=sys.stderr)
        return 2
    # OpenMP threads that wait for each other by spinning make the network ten times slower when anything else runs on
    # the machine. OpenMP reads this when it is loaded, so it must be set before the command's imports.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        codecs.register_error("sam2_ros", _in_other_characters)
        sys.stdout.reconfigure(errors="sam2_ros")
    try:
        code = _run(command, rest)
        print(end="", flush=True)  # here, where its errors are caught
        return code
    except KeyboardInterrupt:
        print(f"sam2_ros {command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `sam2_ros objects --watch | head -1`
        _drop_what_stdout_cannot_take()
        return 128 + signal.SIGPIPE
    except Exception as error:
        sentence = _sentence_of(error)
        if not sentence:
            raise
        print(f"sam2_ros {command}: {sentence}", file=sys.stderr)
        _drop_what_stdout_cannot_take()  # stdout itself may be a file on the full disk
        return 1


def _run(command: str, rest: list[str]) -> int:
    if command in HELP:
        print(USAGE, end="")
        return 0
    if command == "--version":
        return version()
    if command == "weights":
        return weights(rest)
    with _imports_ended_by_ctrl_c(command):
        module = importlib.import_module(MODULES[command])
    return module.main(rest)


def _in_other_characters(error: UnicodeError) -> tuple[str | bytes, int]:
    """How stdout shows a character that its encoding lacks: bytes of a file's name that are no UTF-8 as they are;
    others, as of an object's name in a Latin-1 terminal, escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    byte = ord(character) - 0xDC00  # of the surrogates that Python puts for such bytes
    shown = bytes([byte]) if 0x80 <= byte <= 0xFF else character.encode("ascii", "backslashreplace")
    return shown, error.start + 1


def _drop_what_stdout_cannot_take() -> None:
    """Redirects stdout to /dev/null if it cannot be flushed; otherwise Python would report an error at exit."""
    with suppress(AttributeError, OSError, ValueError):  # there may be no stdout
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_domain(text: str) -> bool:
    """Whether it is a valid domain id; for others the middleware would only say that a port is too high."""
    try:
        return 0 <= int(text, 0) <= LAST_DOMAIN
    except ValueError:
        return False


@contextmanager
def _imports_ended_by_ctrl_c(command: str) -> Iterator[None]:
    """Makes Ctrl-C end the process at once: during torch's imports, KeyboardInterrupt would be swallowed or break
    them."""

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(2, f"sam2_ros {command}: interrupted\n".encode())
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is leave:
            signal.signal(signal.SIGINT, before)


def _sentence_of(error: Exception) -> str:
    """The message for an error that is not a defect of this program; "" for one that may be."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _how_to_get(error.name)
    import sam2  # not at the top: it takes seconds, during which signals must still end `track` cleanly

    if isinstance(error, UnicodeEncodeError):  # only rclpy encodes command line arguments
        return f"an argument: expected UTF-8, got {error.object!r}"
    if isinstance(error, OSError) and (error.filename or error.errno in DISK_ERRORS):
        # The second name, if there is one, is the place that a file could not be moved to.
        return f"{error.filename2 or error.filename or 'a file that it writes'}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"this machine has no memory left; close other programs{f' ({error})' if str(error) else ''}"
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"RCLError", "UnknownROSArgsError", "NameValidationException"}:  # rclpy's: two have no public names
        return rcl_errors.sentence_of(error)
    return str(error) if isinstance(error, sam2.Sam2Error) else ""


def _how_to_get(module: str) -> str:
    """How to get a missing module; "" for a module of this program, whose absence is a defect, except for the compiled
    messages."""
    package = module.partition(".")[0]
    if package in FROM_PIP:
        return f"{package} is not installed; run: pip install {FROM_PIP[package]}"
    if package in ("sam2", "sam2_ros") and not module.startswith(("sam2_ros.msg", "sam2_ros.srv")):
        return ""
    if module.startswith("rclpy._"):  # its compiled part, whose name has the Python's version
        python = f"{sys.executable}, Python {sys.version_info.major}.{sys.version_info.minor}"
        return f"rclpy is there, but made for another Python than this ({python}); use the one of your ROS 2"
    return f"{module} is not there; source your ROS 2 and the workspace, or where there is no ROS 2 {WITHOUT_ROS}"


def version() -> int:
    with _imports_ended_by_ctrl_c("--version"):
        import sam2

    print(f"sam2_ros {sam2.__version__}")
    return 0


def weights(argv: list[str]) -> int:
    """Downloads the official weights of each model named, checks them, and prints where they are."""
    if not argv or argv[0].startswith("-"):
        print("usage: sam2_ros weights MODEL...\n\nDownloads official weights to the cache and checks their SHA-256.")
        print("MODEL: tiny, small, base_plus, large (2.1), or an official name such as sam2_hiera_tiny.")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    with _imports_ended_by_ctrl_c("weights"):
        import sam2

    for name in argv:
        print(sam2.download_weights(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
