"""Finds weights files, and downloads the official ones, resumably, into one cache folder."""

import errno
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from sam2.config import ModelConfig, find_config
from sam2.errors import BadCheckpoint
from sam2.files import in_turn, reading

_SERVER = "https://dl.fbaipublicfiles.com/segment_anything_2"
_RELEASES = {"2.1": "092824", "2": "072824"}
_CHUNK = 1 << 20
_OF_WRITES = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO  # errors of writing, which do not name the file
PACKAGED = Path(__file__).parent / "weights"
OFFICIAL_SHA256 = {  # by file name, as the Hugging Face hub and several projects record them
    "sam2.1_hiera_tiny.pt": "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    "sam2.1_hiera_small.pt": "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    "sam2.1_hiera_base_plus.pt": "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    "sam2.1_hiera_large.pt": "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    "sam2_hiera_tiny.pt": "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
    "sam2_hiera_small.pt": "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
    "sam2_hiera_base_plus.pt": "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
    "sam2_hiera_large.pt": "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
}


def cache_folder() -> Path:
    """`$SAM2_ROS_CACHE`, else `~/.cache/sam2_ros`. Raises BadCheckpoint for a user without a home."""
    try:
        if chosen := os.environ.get("SAM2_ROS_CACHE"):
            return Path(chosen).expanduser()
        return Path.home() / ".cache" / "sam2_ros"
    except RuntimeError as error:
        raise BadCheckpoint(f"weights: {error} set SAM2_ROS_CACHE to a folder for them, or HOME") from error


def find_weights(config: ModelConfig) -> Path:
    """The packaged file, else the downloaded one. Raises BadCheckpoint with the command that gets it."""
    packaged = PACKAGED / f"{config.name}.safetensors"
    if packaged.is_file():
        return packaged
    if f"{config.name}.pt" not in OFFICIAL_SHA256:
        raise BadCheckpoint(
            f"weights of {config.name}: expected {packaged}, which this installation lacks; install again"
        )
    cached = cache_folder() / f"{config.name}.pt"
    if cached.is_file():
        return cached
    raise BadCheckpoint(
        f"weights of {config.name}: expected {cached}, found nothing there; "
        f"run: sam2_ros weights {_spoken_name(config)}"
    )


def download_weights(name: str) -> Path:
    """Downloads the official weights of a model ("tiny", "sam2.1_hiera_tiny", ...) into the cache, with a progress bar,
    unless they are there undamaged; returns their path. Resumes an interrupted download, and waits for one that another
    process has begun.

    The file appears complete and with the right SHA-256, or not at all. Raises BadCheckpoint if the model has no
    published weights or the download fails, then saying where to put them by hand, and what `find_config` raises.
    """
    config = find_config(name)
    path = cache_folder() / f"{config.name}.pt"
    if path.name not in OFFICIAL_SHA256:
        raise BadCheckpoint(
            f"weights of {config.name}: expected one of {', '.join(OFFICIAL_SHA256)}; nano's are not published: "
            "they come with this package, and there is nothing to fetch"
        )
    if _is_whole(path):
        return path
    waiting = f"weights of {config.name}: waiting for another download into {path.parent}"
    with ExitStack() as stack:
        try:
            stack.enter_context(in_turn(path.parent, waiting))
        except OSError as error:
            raise BadCheckpoint(
                f"weights of {config.name}: the folder {path.parent} cannot be made ({error.strerror}); set "
                "SAM2_ROS_CACHE to another"
            ) from error
        if not _is_whole(path):  # another process may have downloaded it meanwhile
            _complete(path, config)
    return path


def find_in_hub_cache(model_id: str) -> Path | None:
    """The official weights of "facebook/sam2.1-hiera-tiny" or a sibling in the cache of Hugging Face's library, which
    Meta's own sam2, for example, downloads into; None if they are not there, or damaged."""
    name = f"{find_config(model_id).name}.pt"
    if name not in OFFICIAL_SHA256:
        return None
    kept = (_hub_cache() / f"models--{model_id.replace('/', '--')}" / "snapshots").glob(f"*/{name}")
    return next(filter(_is_whole, kept), None)


def _hub_cache() -> Path:
    """The folder, by Hugging Face's documented environment variables, the most specific first."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expanduser(chosen))
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(base, "huggingface")
    return Path(os.path.expanduser(home)) / "hub"


def _is_whole(path: Path) -> bool:
    return path.is_file() and sha256(path) == OFFICIAL_SHA256[path.name]


def _complete(path: Path, config: ModelConfig) -> None:
    """Downloads what is missing, checks the SHA-256 and renames to `path`. Raises what `download_weights` raises."""
    url, part = f"{_SERVER}/{_RELEASES[config.version]}/{path.name}", path.with_suffix(".part")
    try:
        _fetch(url, part)
        actual, got = sha256(part), _described(part)
        if actual == OFFICIAL_SHA256[path.name]:
            os.replace(part, path)
            return
        part.unlink()
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and _is_of_disk(error):
            raise BadCheckpoint(
                f"weights of {config.name}: {path} cannot be written ({error.strerror}); make room, or set "
                "SAM2_ROS_CACHE to another folder"
            ) from error
        raise BadCheckpoint(
            f"weights of {config.name}: could not download {url} ({str(error).strip()!r:.300}); "
            f"run the command again to go on, or fetch the file elsewhere and put it at {path}"
        ) from error
    raise BadCheckpoint(
        f"weights of {config.name}: expected SHA-256 {OFFICIAL_SHA256[path.name]} of {url}, got {actual}, of {got}; "
        "the download was discarded, try again"
    )


def _is_of_disk(error: OSError) -> bool:
    """Whether a local file caused the error. Errors of the server's response have a `filename`, too: the URL."""
    is_answer = isinstance(error, (urllib.error.URLError, http.client.HTTPException))
    return not is_answer and (error.filename is not None or error.errno in _OF_WRITES)


def _described(path: Path) -> str:
    """Describes a wrong download: its size, and whether it is a web page, such as a captive portal's or a proxy's."""
    with open(path, "rb") as file:
        is_page = file.read(100).lstrip()[:1] == b"<"
    return f"{path.stat().st_size} bytes{' that are a web page' if is_page else ''}"


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with reading(path), open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch(url: str, part: Path) -> None:
    """Downloads what `part` lacks of `url`."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        error.close()  # it is also the response, and holds the connection open
        if error.code == 416 and done:  # the part is complete already
            return
        raise
    with response:
        resumes = response.status == 206
        said = response.headers.get("Content-Length", "")  # two proxies may make it "1000, 1000"
        total = int(said) + (done if resumes else 0) if said.isdecimal() and len(said) < 16 else 0
        bar = tqdm(total=total or None, initial=done if resumes else 0, unit="B", unit_scale=True, desc=part.stem)
        with bar, open(part, "ab" if resumes else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total and part.stat().st_size < total:
            raise OSError(f"the connection broke after {part.stat().st_size} of {total} bytes")


def _spoken_name(config: ModelConfig) -> str:
    size = config.name.partition("_hiera_")[2]
    return size if config.version == "2.1" else config.name
