"""The bag that a replay writes: tracks, visibility and label masks, under the topics that the node would publish.

A function of the images and tracks, never of the clock, so the same replay writes the same bytes; and the bag appears
whole or not at all. Does not know the tracker.
"""

import array
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from std_msgs.msg import Header

import sam2
from sam2_ros.replay_files import check_free, naming, part_of
from sam2_ros.replay_source import Shot
from sam2_ros.ros_time import time_message
from sam2_ros.share_folders import share_folders
from sam2_ros.track_out import label_mask, track_array, visibility_array

TOPICS = {  # as the node publishes them, with types
    "/sam2/tracks": "sam2_ros/msg/TrackArray",
    "/sam2/visibility": "sam2_ros/msg/VisibilityArray",
    "/sam2/label_mask": "sensor_msgs/msg/Image",
}
INTERFACES = ("Mask", "Track", "TrackArray", "Visibility", "VisibilityArray")
_NAME = "tracks"  # of the file inside every bag, so that its bytes do not depend on the bag's name


class TrackBag:
    """Writes one message per topic and image; use `open`. Raises OSError that names `out`."""

    def __init__(self, out: Path, writer: Writer, opened: ExitStack) -> None:
        self._out, self._writer, self._opened, self._store = out, writer, opened, typestore()
        self._connections = {
            topic: writer.add_connection(topic, kind, typestore=self._store) for topic, kind in TOPICS.items()
        }

    @classmethod
    @contextmanager
    def open(cls, out: Path) -> Iterator["TrackBag"]:
        """`*.mcap` becomes that one file, any other name a folder with metadata.yaml and the file in it."""
        with part_of(out.parent / _NAME) as made:
            writer = Writer(made, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP)
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            with ExitStack() as opened:
                bag = cls(out, opened.enter_context(writer), opened)
                yield bag
                bag.finish()
            os.rename(made / f"{_NAME}.mcap" if out.suffix == ".mcap" else made, out)

    def write(self, shot: Shot, tracks: list[sam2.Track]) -> None:
        """Writes an image's messages, logged at the time the image was recorded."""
        header = Header(stamp=time_message(shot.stamp_ns), frame_id=shot.frame_id)
        messages = (
            track_array(header, tracks),
            visibility_array(header, tracks, shot.time_ns),
            label_mask(header, tracks, shot.rgb.shape[:2]),
        )
        for (topic, kind), message in zip(TOPICS.items(), messages, strict=True):
            raw = self._store.serialize_cdr(stored(message, self._store), kind)
            with naming(self._out):
                self._writer.write(self._connections[topic], shot.logged_ns, raw)

    def finish(self) -> None:
        """Writes the last chunk, about a megabyte, and the index, but does not move the bag into place yet. Raises
        sam2.BadInput if something has taken its place meanwhile."""
        with naming(self._out):
            self._opened.close()
        check_free(self._out)


def typestore() -> Typestore:
    """The standard messages and ours, from the installed definitions. Raises sam2.BadInput if there are none."""
    folders = [folder / "msg" for folder in share_folders()]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise sam2.BadInput(f"message definitions: expected one of {', '.join(map(str, folders))}; install sam2_ros")
    store = get_typestore(Stores.LATEST)
    for name in INTERFACES:
        store.register(get_types_from_msg((folder / f"{name}.msg").read_text(), f"sam2_ros/msg/{name}"))
    return store


def stored(value: Any, store: Typestore) -> Any:
    """A generated ROS message, or one of its values, as `rosbags` represents it.

    Bags are written by `rosbags` because the middleware leaves the padding between fields undefined.
    """
    if hasattr(value, "get_fields_and_field_types"):
        kind = store.types[f"{type(value).__module__.split('.')[0]}/msg/{type(value).__name__}"]
        return kind(**{name: stored(getattr(value, name), store) for name in value.get_fields_and_field_types()})
    if isinstance(value, array.array):
        return np.frombuffer(value, value.typecode) if value else np.array([], value.typecode)
    if isinstance(value, list):
        return [stored(item, store) for item in value]
    return value
