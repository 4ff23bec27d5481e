"""Reads all images of a bag, a video file or a folder of images, in order.

Knows containers. Does not know what is done with the images. A bag's stamps are those of the image headers; the first
image of a video or folder is stamped 1 / fps seconds, because a stamp of 0 means unknown, the others accordingly.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags import rosbag1, rosbag2
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

import sam2
from sam2_ros import image_in
from sam2_ros.matroska import bytes_missing
from sam2_ros.pictures import may_be_read, read_picture
from sam2_ros.refused import Refused
from sam2_ros.replay_damage import check_complete, cure_of, said_by, with_any_qos
from sam2_ros.replay_files import video_name
from sam2_ros.ros_time import LAST_NS, stamp_ns
from sam2_ros.stamps import Stamp
from sam2_ros.track_out import drawn_beside

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
BAG_SUFFIXES = (".mcap", ".db3", ".bag")
ZSTD = b"\x28\xb5\x2f\xfd"  # begins whatever is compressed by Zstandard (RFC 8878)
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
TEXT_SUFFIXES = (".ans", ".art", ".asc", ".diz", ".ice", ".nfo", ".txt", ".vt")  # FFmpeg plays films of their letters
FRAME_ID = "camera"  # of images in videos and folders
DEFAULT_FPS = 30.0
NO_FPS = 1000.0  # is not a video's rate but its clock's, in milliseconds: it says none
RATE_IMAGES = 30  # the first images of a bag, from which its rate is estimated
LONGEST_S = 1e9  # of a video; ROS's time ends at 2**31
MAX_PIXELS = 1 << 28  # a damaged header must not ask for all memory

BagReader = rosbag1.Reader | rosbag2.Reader


@dataclass(frozen=True)
class Shot:
    """One image of the source."""

    index: int  # from 0, refused images counted
    rgb: np.ndarray  # (H, W, 3) uint8
    stamp_ns: int  # of its header
    logged_ns: int  # when it was recorded
    frame_id: str

    @property
    def time_ns(self) -> int:
        """Its stamp; without one, when it was recorded."""
        return self.stamp_ns or self.logged_ns


@dataclass
class Source:
    """`shots` can be iterated once, by `until_damage`. refused: number of unusable images, by reason; damage: why and
    where reading ended early, "" = it did not. Both are complete after the last shot."""

    name: str
    topic: str  # "" = not from a bag
    total: int  # images, refused ones counted; 0 = unknown
    fps: float
    shots: Iterator[Shot]
    one_size: bool = False  # all images are as large as the first
    refused: Counter = field(default_factory=Counter)
    last_refusal: str = ""
    damage: str = ""


def open_source(path: Path, topic: str = "", fps: float = 0.0) -> AbstractContextManager[Source]:
    """Opens a bag, video or folder. topic: of a bag's images, "" = the only one. fps: of a folder, or of a video that
    does not say; 0 = 30. Raises sam2.BadInput.
    """
    if not path.exists():
        raise sam2.BadInput(f"{path}: expected a bag, a video or a folder of images, found nothing")
    if not may_be_read(path):
        raise sam2.BadInput(f"{path}: expected a recording that this user may read; change its permissions")
    is_bag = path.suffix in BAG_SUFFIXES or (path / "metadata.yaml").is_file()
    if topic and not is_bag:
        raise sam2.BadInput(f"{path}: topic {topic!r} was asked for, and this is no bag")
    if is_bag:
        return _bag(path, topic)
    return _folder(path, fps) if path.is_dir() else _video(path, fps)


def until_damage(source: Source) -> Iterator[Shot]:
    """Yields the source's shots. If reading fails, or ends before all announced images, it sets `source.damage` instead
    of raising, so that results so far are not lost. Raises sam2.BadInput if reading fails before the first shot."""
    count, first_ns, last_ns, why = 0, 0, 0, ""
    try:
        for shot in source.shots:
            last_ns = shot.time_ns
            first_ns = first_ns if count else last_ns
            count += 1
            yield shot
    except sam2.BadInput as error:
        if not count:
            raise
        why = str(error)
    lacking = source.total - count - source.refused.total()
    if lacking > 0 and not why:
        why = f"{source.name}: is it damaged? {lacking} more images were announced than are in it"
    if why and count:
        after_s = (last_ns - first_ns) / 1e9
        read = f"{count} images could be read, the last of them {after_s:.1f} s after the first"
        source.damage = f"{why}; {read}: what was tracked in them is kept"


@contextmanager
def _bag(path: Path, topic: str) -> Iterator[Source]:
    """Deserializes only the images, by our own message definitions: those in the bag, of whatever type, may be wrong or
    missing, as when recorder and publisher had different versions of a package."""
    check_complete(path)
    is_ros1 = path.suffix == ".bag" and path.is_file()
    try:
        reader = (rosbag1 if is_ros1 else rosbag2).Reader(path)
        reader.open()
    except Exception as error:  # whatever a parser meets in a damaged file
        raise sam2.BadInput(f"bag {path}: cannot be read: {said_by(error)}{cure_of(path)}") from error
    try:
        connections = _image_connections(reader, path, topic)
        total = sum(connection.msgcount for connection in connections)
        source = Source(path.name, connections[0].topic, total, _fps(reader, connections, path), iter(()))
        store = get_typestore(Stores.ROS1_NOETIC if is_ros1 else Stores.LATEST)
        deserialize = store.deserialize_ros1 if is_ros1 else store.deserialize_cdr
        source.shots = _bag_shots(_messages(reader, connections, path), deserialize, source)
        yield source
    finally:
        reader.close()


def _image_connections(reader: BagReader, path: Path, topic: str) -> list[Connection]:
    """The connections of the one image topic to read. Raises sam2.BadInput if there is none, or several."""
    found = [c for c in reader.connections if c.msgtype in IMAGE_TYPES and c.msgcount]
    topics = sorted({connection.topic for connection in found})
    if topic and topic not in topics:
        raise sam2.BadInput(f"bag {path}: expected a topic with images, one of {topics}, got {topic!r}")
    if not topics:
        raise sam2.BadInput(f"bag {path}: expected a topic of sensor_msgs/Image or CompressedImage, found none")
    drawn = drawn_beside(c.topic for c in reader.connections if c.msgtype == "sam2_ros/msg/TrackArray")
    candidates = [topic] if topic else [name for name in topics if name not in drawn]
    if not candidates:
        raise sam2.BadInput(
            f"bag {path}: its only images are what a tracker drew, not what a camera saw: {', '.join(topics)}; replay "
            "the recording they were made from, or choose one with --topic"
        )
    if len(candidates) > 1:
        raise sam2.BadInput(f"bag {path}: several topics with images, choose one with --topic: {', '.join(candidates)}")
    return [connection for connection in found if connection.topic == candidates[0]]


def _messages(reader: BagReader, connections: list[Connection], path: Path) -> Iterator[tuple[Connection, int, bytes]]:
    """Messages with their recording times. Raises sam2.BadInput where the file turns out to be damaged."""
    try:
        yield from reader.messages(with_any_qos(connections) if path.is_dir() else connections)
    except Exception as error:  # as in `_bag`; exceptions of the caller do not come here
        raise sam2.BadInput(f"bag {path}: its messages cannot be read: {said_by(error)}{cure_of(path)}") from error


def _fps(reader: BagReader, connections: list[Connection], path: Path) -> float:
    """Images per second, by the first images' recording times: the camera may be on for a part of the bag only."""
    times_ns = []
    with suppress(sam2.BadInput):  # damage is reported where the replay meets it
        for _, logged_ns, _ in islice(_messages(reader, connections, path), RATE_IMAGES):
            times_ns.append(logged_ns)
    gap_ns = float(np.median(np.diff(times_ns))) if len(times_ns) > 1 else 1e9 / DEFAULT_FPS
    return float(np.clip(1e9 / max(gap_ns, 1.0), 1, 120))


def _bag_shots(messages: Iterable, deserialize: Callable, source: Source) -> Iterator[Shot]:
    for index, (connection, logged_ns, raw) in enumerate(messages):
        try:
            msg = _deserialized(deserialize, connection, raw)
            image_in.check(msg, MAX_PIXELS)
            rgb = image_in.to_rgb(msg)
            if (at_ns := stamp_ns(msg.header.stamp)) < 0:
                raise Refused(Stamp.NEGATIVE.value, f"its stamp is {at_ns / 1e9:.9f} s")
            if logged_ns < 0:
                raise Refused(Stamp.NEGATIVE.value, f"it was recorded at {logged_ns / 1e9:.9f} s")
            if (at_ns or logged_ns) > LAST_NS:
                raise Refused("stamp", f"its time is {(at_ns or logged_ns) / 1e9:.9f} s, and that of ROS ends at 2**31")
        except Refused as error:
            source.refused[error.reason] += 1
            source.last_refusal = f"image {index} of {connection.topic}: {error}"
            continue
        yield Shot(index, rgb, at_ns, logged_ns, msg.header.frame_id)


def _deserialized(deserialize: Callable, connection: Connection, raw: bytes) -> Any:
    """Raises Refused for bytes that are no message of that type."""
    try:
        return deserialize(raw, connection.msgtype)
    except Exception as error:
        if raw[:4] == ZSTD:
            why = "it is compressed, as only metadata.yaml can tell; give the bag's folder instead of its file"
            cure = "set `compression_mode: MESSAGE` and `compression_format: zstd` there if `ros2 bag reindex` wrote it"
            raise Refused("compressed", f"{why}, or {cure}") from error
        raise Refused("damaged", f"its bytes are no {connection.msgtype}: {error}") from error


@contextmanager
def _video(path: Path, fps: float) -> Iterator[Source]:
    if path.suffix == ".zstd":
        raise sam2.BadInput(f"{path}: a compressed file of a bag; give its folder, with metadata.yaml, or unpack it")
    video = cv2.VideoCapture(video_name(path))
    try:
        if not video.isOpened() or path.suffix.lower() in TEXT_SUFFIXES:
            raise sam2.BadInput(
                f"{path}: expected a bag ({', '.join(BAG_SUFFIXES)}), a video or a folder of images; a file of "
                f"{path.stat().st_size} bytes that is none of them, or damaged"
            )
        said, missing = video.get(cv2.CAP_PROP_FPS), bytes_missing(path)
        fps = said if 0 < said < NO_FPS else fps or DEFAULT_FPS
        # Of Matroska OpenCV makes the count of rate and duration, be it the sound's.
        total = max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0) if missing is None else 0
        source = Source(path.name, "", total, fps, iter(()), one_size=True)
        source.shots = _timed(_read_all(video, source, missing or 0), fps)
        yield source
    finally:
        video.release()


def _read_all(video: cv2.VideoCapture, source: Source, missing: int) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds since the first picture, and the picture, (H, W, 3) uint8 BGR. If its time in the file is not after that
    of the one before, it comes 1 / fps later. Raises sam2.BadInput at the end if `missing` bytes are.

    Of some files OpenCV makes the total of duration and rate, which it is not if the time between pictures varies: it
    is corrected if the last of them is at the end.
    """
    count, first_s, last_s = 0, 0.0, 0.0
    while (bgr := video.read()[1]) is not None:
        at_s = video.get(cv2.CAP_PROP_POS_MSEC) / 1000 - first_s
        if not count:
            first_s = at_s
        elif last_s < at_s < LONGEST_S:
            last_s = at_s
        else:
            last_s += 1 / source.fps
        count += 1
        yield last_s, bgr
    if count < source.total and last_s >= (source.total - 1.5) / source.fps:
        source.total = count
    if missing:
        raise sam2.BadInput(f"{source.name}: is it damaged? {missing} bytes are missing at its end")


@contextmanager
def _folder(path: Path, fps: float) -> Iterator[Source]:
    """Sorted by name, with numbers by value: 9.png comes before 10.png, 7.25.png, a time, before 7.5.png. Skips hidden
    files, such as macOS's ._9.png."""
    shown = (file for file in path.iterdir() if not file.name.startswith("."))
    files = sorted((file for file in shown if file.suffix.lower() in PICTURE_SUFFIXES), key=_in_order)
    bags = sorted(file.name for file in path.iterdir() if file.suffix in BAG_SUFFIXES)
    if not files and bags:
        cure = "`ros2 bag reindex` writes it"
        if len(bags) == 1:
            cure = "give that file itself"
        elif all(name.endswith(".bag") for name in bags):
            cure = "bags of ROS 1 have none; give one of these files"
        raise sam2.BadInput(f"folder {path}: no metadata.yaml beside {', '.join(bags)}; {cure}")
    if not files:
        raise sam2.BadInput(
            f"folder {path}: expected metadata.yaml of a bag, or images ({', '.join(PICTURE_SUFFIXES)})"
        )
    fps = fps or DEFAULT_FPS
    pictures = ((index / fps, _picture(file)) for index, file in enumerate(files))
    yield Source(path.name, "", len(files), fps, _timed(pictures, fps))


def _in_order(path: Path) -> tuple[list[tuple[Decimal, str]], str]:
    """Sort key: by name, with numbers by value; of equal numbers, 01.png comes before 1.png."""
    parts = re.findall(r"^\d+\.\d+$|\d+|\D+", path.stem)
    return [(Decimal(part), "") if part[0].isdecimal() else (Decimal(-1), part) for part in parts], path.name


def _picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 BGR."""
    bgr = read_picture(path, cv2.IMREAD_COLOR)
    if bgr is None:
        cure = "remove it from the folder or repair it" if may_be_read(path) else "this user may not read it"
        raise sam2.BadInput(f"{path}: expected an image file; {cure}")
    return bgr


def _timed(pictures: Iterable[tuple[float, np.ndarray]], fps: float) -> Iterator[Shot]:
    """pictures: with seconds since the first."""
    for index, (at_s, bgr) in enumerate(pictures):
        stamp = round((at_s + 1 / fps) * 1e9)
        yield Shot(index, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), stamp, stamp, FRAME_ID)
