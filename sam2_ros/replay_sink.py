"""What a replay leaves: a bag with tracks, visibility and label masks, an overlay video, a report.

Knows files. Does not know the tracker. Everything here is a function of the images and tracks, never of the clock, so
the same replay writes the same bytes; and a file appears whole or not at all.
"""

import array
import itertools
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from std_msgs.msg import Header

import sam2
from sam2_ros.overlay import Overlay
from sam2_ros.replay_source import Shot, Source
from sam2_ros.ros_time import time_message
from sam2_ros.track_out import label_mask, track_array, visibility_array

TOPICS = {  # as the node publishes them, with types
    "/sam2/tracks": "sam2_ros/msg/TrackArray",
    "/sam2/visibility": "sam2_ros/msg/VisibilityArray",
    "/sam2/label_mask": "sensor_msgs/msg/Image",
}
INTERFACES = ("Mask", "Track", "TrackArray", "Visibility", "VisibilityArray")
_NAME = "tracks"  # inside a bag, whatever the bag is called: its bytes must not depend on that
_OPACITY = 0.45


def check_free(out: Path) -> None:
    """Raises sam2.BadInput if a bag cannot be made at `out`."""
    if out.exists():
        raise sam2.BadInput(f"{out}: is there already; remove it or choose another name")
    check_folder(out)


def check_folder(out: Path) -> None:
    """Raises sam2.BadInput if there is no folder to write `out` into."""
    if not out.parent.is_dir():
        raise sam2.BadInput(f"{out}: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise sam2.BadInput(f"{out}: the folder {out.parent} cannot be written; choose another")


def tell_lost(out: Path, what: str) -> None:
    """The bag is worth more than what goes with it: that this is missing in the end is no error."""
    print(f"{out}: the {what} could not be written; is the disk full?", file=sys.stderr)


class TrackBag:
    """Writes one message per topic and image; use `open`."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._store = writer, typestore()
        self._connections = {
            topic: writer.add_connection(topic, kind, typestore=self._store) for topic, kind in TOPICS.items()
        }

    @classmethod
    @contextmanager
    def open(cls, out: Path) -> Iterator["TrackBag"]:
        """`*.mcap` becomes that one file, any other name a folder with metadata.yaml and the file in it."""
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".replay_") as folder:
            made = Path(folder) / _NAME
            writer = Writer(made, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP)
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            with writer:
                yield cls(writer)
            os.rename(made / f"{_NAME}.mcap" if out.suffix == ".mcap" else made, out)

    def write(self, shot: Shot, tracks: list[sam2.Track]) -> None:
        """At the time the image was recorded."""
        header = Header(stamp=time_message(shot.stamp_ns), frame_id=shot.frame_id)
        messages = (
            track_array(header, tracks),
            visibility_array(header, tracks, shot.time_ns),
            label_mask(header, tracks, shot.rgb.shape[:2]),
        )
        for (topic, kind), message in zip(TOPICS.items(), messages, strict=True):
            raw = self._store.serialize_cdr(stored(message, self._store), kind)
            self._writer.write(self._connections[topic], shot.logged_ns, raw)


def typestore() -> Typestore:
    """The standard messages and ours, from the installed definitions. Raises sam2.BadInput if there are none."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    folders = [Path(prefix) / "share" / "sam2_ros" / "msg" for prefix in prefixes if prefix]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise sam2.BadInput(f"message definitions: expected one of {', '.join(map(str, folders))}; install sam2_ros")
    store = get_typestore(Stores.LATEST)
    for name in INTERFACES:
        store.register(get_types_from_msg((folder / f"{name}.msg").read_text(), f"sam2_ros/msg/{name}"))
    return store


def stored(value, store: Typestore):
    """A generated ROS message, or one of its values, as `rosbags` has it.

    Written by `rosbags` and not by the middleware, because the latter leaves the bytes between fields undefined.
    """
    if hasattr(value, "get_fields_and_field_types"):
        kind = store.types[f"{type(value).__module__.split('.')[0]}/msg/{type(value).__name__}"]
        return kind(**{name: stored(getattr(value, name), store) for name in value.get_fields_and_field_types()})
    if isinstance(value, array.array):
        return np.frombuffer(value, value.typecode) if value else np.array([], value.typecode)
    if isinstance(value, list):
        return [stored(item, store) for item in value]
    return value


class Film:
    """The images with the tracks drawn on them, as a video; use `open`."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps, self._overlay = path, fps, Overlay()
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self.is_written = False  # known when it is closed

    @classmethod
    @contextmanager
    def open(cls, out: Path, fps: float) -> Iterator["Film"]:
        """Raises sam2.BadInput if OpenCV cannot write such a file. One that is not whole in the end is only complained
        of, and not put in its place."""
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".replay_") as folder:
            film = cls(Path(folder) / out.name, fps)
            yield film
            if film._writer is not None:
                film._writer.release()
                film.is_written = film._is_whole()
                if film.is_written:
                    os.replace(film._path, out)
                else:
                    tell_lost(out, "video")

    def write(self, shot: Shot, tracks: list[sam2.Track]) -> None:
        """An image of another size than the first is scaled to it."""
        self.write_picture(self._overlay.draw(shot.rgb, tracks, _OPACITY))

    def write_picture(self, rgb: np.ndarray) -> None:
        """(H, W, 3) uint8."""
        if self._writer is None:
            self._size_wh = rgb.shape[1], rgb.shape[0]
            self._writer = cv2.VideoWriter(
                str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, self._size_wh
            )  # the one codec that every build of OpenCV has
            if not self._writer.isOpened():
                width, height = self._size_wh
                raise sam2.BadInput(
                    f"{self._path.name}: OpenCV cannot begin a video of {width}x{height} pixels and {self._fps:g} "
                    "images per second; choose another rate or leave the video out, or is the disk full?"
                )
        if (rgb.shape[1], rgb.shape[0]) != self._size_wh:
            rgb = cv2.resize(rgb, self._size_wh, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

    def _is_whole(self) -> bool:
        """OpenCV's writer says nothing of a full disk; but then the index at the file's end is missing, and nobody can
        open it."""
        return cv2.VideoCapture(str(self._path)).isOpened()


@dataclass
class _History:
    """What became of one object."""

    class_name: str
    label: int
    first_frame: int
    prompted_frames: list[int] = field(default_factory=list)
    states: list[sam2.State] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)  # the network's estimates, where visible


class Report:
    """Counts while the replay runs; `as_dict` says what came of it."""

    def __init__(self, source: Source, model: str) -> None:
        self._source, self._model = source, model
        self._histories: dict[str, _History] = {}
        self._stamps_ns: list[int] = []
        self.sizes_wh: Counter[tuple[int, int]] = Counter()  # how many images of each size

    def note(self, shot: Shot, tracks: list[sam2.Track], prompted: set[str]) -> None:
        self._stamps_ns.append(shot.stamp_ns)
        self.sizes_wh[shot.rgb.shape[1], shot.rgb.shape[0]] += 1
        for track in tracks:
            made = _History(track.class_name, track.label, shot.index)
            history = self._histories.setdefault(track.object_id, made)
            history.class_name = track.class_name
            history.states.append(track.state)
            history.frames.append(shot.index)
            history.stamps_ns.append(shot.stamp_ns)
            if track.object_id in prompted:
                history.prompted_frames.append(shot.index)
            if track.state is sam2.State.VISIBLE:
                history.ious.append(track.predicted_iou)

    @property
    def times_set_back(self) -> int:
        """How often a stamp was older than the one before."""
        return sum(late < early for early, late in itertools.pairwise(self._stamps_ns))

    def as_dict(self) -> dict:
        """Stamps in nanoseconds, sizes in pixels (the most frequent), shares of 1. announced: images, as the source has
        it; 0 = unknown."""
        (width, height), _ = self.sizes_wh.most_common(1)[0]
        return {
            "source": {
                "name": self._source.name,
                "topic": self._source.topic,
                "announced": self._source.total,
                "frames": len(self._stamps_ns),
                "refused": dict(self._source.refused),
                "first_stamp_ns": self._stamps_ns[0],
                "last_stamp_ns": self._stamps_ns[-1],
                "width": width,
                "height": height,
            },
            "model": self._model,
            "objects": {name: _summary(history) for name, history in self._histories.items()},
        }

    def write(self, path: Path) -> bool:
        """Whether it could be written; if not, it is complained of and nothing of it is left."""
        try:
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".replay_") as folder:
                part = Path(folder) / path.name
                part.write_text(json.dumps(self.as_dict(), indent=2) + "\n")
                os.replace(part, path)
        except OSError:
            tell_lost(path, "report")
            return False
        return True


def _summary(history: _History) -> dict:
    visible = sum(state is sam2.State.VISIBLE for state in history.states)
    return {
        "class_name": history.class_name,
        "label": history.label,
        "first_frame": history.first_frame,
        "prompted_frames": history.prompted_frames,
        "frames": {state.name.lower(): history.states.count(state) for state in sam2.State},
        "visible_share": round(visible / len(history.states), 6),
        "mean_predicted_iou": round(float(np.mean(history.ious)), 6) if history.ious else None,
        "absences": _absences(history),
    }


def _absences(history: _History) -> list[dict]:
    """Runs of frames without the object; back_* is None if it had not come back at the end."""
    runs: list[dict] = []
    absent = False
    for state, frame, stamp_ns in zip(history.states, history.frames, history.stamps_ns, strict=True):
        if state is not sam2.State.VISIBLE and not absent:
            runs.append({"gone_frame": frame, "gone_stamp_ns": stamp_ns, "back_frame": None, "back_stamp_ns": None})
        elif state is sam2.State.VISIBLE and absent:
            runs[-1] |= {"back_frame": frame, "back_stamp_ns": stamp_ns}
        absent = state is not sam2.State.VISIBLE
    return runs
