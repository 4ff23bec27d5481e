"""Bags for tests: small images with their number in their colour, stamped and recorded at known times."""

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sam2_ros.replay_source import open_source

SIZE_HW = (48, 64)
PERIOD_NS = 100_000_000
START_NS = 1_732_165_409_123_456_789  # nineteen digits: a float would lose the last ones
STORE = get_typestore(Stores.LATEST)
TYPES = STORE.types


def picture(number):
    """(H, W, 3) uint8 RGB, with the number in its colour."""
    return np.broadcast_to(np.array([number % 256, 100, 200], np.uint8), (*SIZE_HW, 3)).copy()


def stamp(number):
    return START_NS + number * PERIOD_NS


def image_message(number, **changes):
    seconds, nanoseconds = divmod(stamp(number), 10**9)
    header = TYPES["std_msgs/msg/Header"](TYPES["builtin_interfaces/msg/Time"](seconds, nanoseconds), "front_optical")
    fields = dict(
        header=header, height=SIZE_HW[0], width=SIZE_HW[1], encoding="rgb8", is_bigendian=0, step=SIZE_HW[1] * 3,
        data=picture(number).ravel(),
    )  # fmt: skip
    return TYPES["sensor_msgs/msg/Image"](**fields | changes)


def jpeg_message(number):
    data = cv2.imencode(".png", cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR))[1].ravel()
    return TYPES["sensor_msgs/msg/CompressedImage"](image_message(number).header, "png", data)


def write_bag(path, images, storage=StoragePlugin.MCAP, packed=CompressionMode.NONE):
    """images: {topic: messages}; recorded 7 ns after their stamps, topics in turn. packed: what is compressed."""
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(packed, CompressionFormat.ZSTD)
    with writer:
        for topic, messages in images.items():
            kind = messages[0].__msgtype__
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for number, message in enumerate(messages):
                writer.write(connection, stamp(number) + 7, STORE.serialize_cdr(message, kind))
    return path


def shots_of(path, **options):
    with open_source(path, **options) as source:
        return source, list(source.shots)
