"""Results on disk: one JSON file per video, so that a stopped run can be resumed.

Knows nothing about trackers or figures.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sam2.errors import BadInput
from sam2.evaluation_video import AnyVideo, ObjectResult, RecordedVideo, VideoResult
from sam2.files import reading, write_whole
from sam2.training.synthetic import HELD_OUT_SEED, World

_SETTINGS = "settings.json"
_ANEW = "delete its folder, or name another --out"


@dataclass(frozen=True)
class Settings:
    """Everything that the result of a video depends on, besides this program's version."""

    dataset: str
    split: str
    model: str  # official name
    image_size: int  # of the network's input, pixels
    weights_sha256: str
    prompt: str
    memory: bool
    precision: str  # the one used: "fp32", "bf16" or "fp16"
    side: int  # of synthetic frames, pixels
    data: str = ""  # digest of a dataset's place, or of a synthetic frame: another version may draw other worlds


def data_digest(root: Path | None) -> str:
    """Digest of the folder that a dataset is in or, for None, of a synthetic frame."""
    # This text is a version of what is stored and how it is scored: change it with either, to refuse old results.
    digest = hashlib.sha256(
        b"J and F of the frames that the data set's toolkit counts; one too thin to be prompted is missed; 2"
    )
    digest.update(os.fsencode(root.resolve()) if root else World(HELD_OUT_SEED, (64, 64)).frame(0).rgb.tobytes())
    return digest.hexdigest()[:16]


def _files_digest(video: AnyVideo) -> str:
    """Digest of the paths, sizes and modification times of a recorded video's files; "" for others."""
    if not isinstance(video, RecordedVideo):
        return ""
    digest = hashlib.sha256()
    for path in video.video.files:
        with suppress(OSError):  # which is reported when the video is read
            about = path.stat()
            digest.update(os.fsencode(f"{path.resolve()} {about.st_size} {about.st_mtime_ns}\n"))
    return digest.hexdigest()[:16]


def default_folder(settings: Settings) -> Path:
    memory = "" if settings.memory else "_no_memory"
    split = f"_{settings.split}" if settings.split else ""
    name = f"{settings.dataset}{split}_{settings.model}_{settings.image_size}_{settings.prompt}{memory}"
    name += f"_{settings.precision}_{settings.side}"
    return Path("out/evaluation") / f"{name}_{settings.weights_sha256[:8]}{settings.data[:8]}"


class Results:
    """A folder of results that were all made with the same `Settings`."""

    def __init__(self, folder: Path, settings: Settings):
        """Raises BadInput if the folder holds results of other settings, or of unknown ones."""
        self.folder, self._videos = folder, folder / "videos"
        self._digests: dict[str, str] = {}  # of the files of each video that was looked for, by name
        path, wanted = folder / _SETTINGS, asdict(settings)
        if not path.is_file():
            if any(self._videos.glob("*.json")):
                raise BadInput(f"{path}: expected what the results beside it were made with, found none; {_ANEW}")
            write_json(path, wanted)
            return
        found = _read(path, _ANEW)
        if different := [key for key, value in wanted.items() if found.get(key) != value]:
            raise BadInput(
                f"{folder}: expected results of this run, got some with another {', '.join(different)}; "
                "name another --out"
            )

    def find(self, video: AnyVideo) -> VideoResult | None:
        """The stored result of a video; None if there is none, or only one of files that have changed since, or of a
        synthetic video of another length."""
        path, files = self._path(video.name), _files_digest(video)
        self._digests[video.name] = files
        if not path.is_file():
            return None
        result, its_files = _result(path)
        is_same_length = getattr(video, "num_frames", result.num_frames) == result.num_frames
        return result if its_files == files and is_same_length else None

    def keep(self, result: VideoResult) -> None:
        """A recorded video must have been looked for by `find` before it was read, or its result is not found again."""
        write_json(self._path(result.name), {"files": self._digests.get(result.name, ""), **asdict(result)})

    def _path(self, name: str) -> Path:
        return self._videos / f"{name}.json"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes the file atomically. Raises what `write_whole` raises."""
    write_whole(path, json.dumps(content, indent=1).encode())


def _read(path: Path, cure: str = "delete the file") -> dict[str, Any]:
    try:
        with reading(path):
            content = json.loads(path.read_text())
    except ValueError as error:
        raise BadInput(f"{path}: expected JSON written by this program ({error}); {cure}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object, got {type(content).__name__}; {cure}")
    return content


def _result(path: Path) -> tuple[VideoResult, str]:
    """A stored result, and the digest of its video's files."""
    content = _read(path)
    try:
        files = content.pop("files")
        objects = [ObjectResult(**entry) for entry in content["objects"]]
        for entry in objects:
            entry.returns = {int(frame): found for frame, found in entry.returns.items()}  # JSON keys are text
        return VideoResult(**content | {"objects": objects}), files
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: expected the result of a video ({error!r}); delete the file") from error
