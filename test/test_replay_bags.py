"""Bags as recorders leave them: with odd topics beside the images, killed, in parts; and from ROS 1."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import STORE, image_message, picture, shots_of, stamp, write_bag
from rosbags import rosbag1
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

import sam2

pytestmark = pytest.mark.ros

IMAGE = "sensor_msgs/msg/Image"


def bag_with(path, kind="robot_msgs/msg/State", storage=StoragePlugin.MCAP, first_ns=0, **definition):
    """Three images, and before them one message of another type that is defined as given."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        images = writer.add_connection("/image", IMAGE, typestore=STORE)
        other = writer.add_connection("/other", kind, **definition)
        writer.write(other, first_ns or stamp(0), b"\0\1\0\0\1\0\0\0")
        for number in range(3):
            writer.write(images, stamp(number) + 7, STORE.serialize_cdr(image_message(number), IMAGE))
    return path


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("msgdef", ["int32 a\n", "wstring<=5 a\n", "other_msgs/Thing a\n", "no definition"])
def test_only_the_images_have_to_be_understood(tmp_path, storage, msgdef):
    """Definitions come from the recorder's machine, hashes from the publisher's: they may differ, or use what a parser
    does not know."""
    bag = bag_with(tmp_path / "bag", storage=storage, msgdef=msgdef, rihs01=f"RIHS01_{'1' * 64}")
    assert [shot.index for shot in shots_of(bag)[1]] == [0, 1, 2]


def test_a_definition_of_no_known_kind_is_a_sentence_with_the_kind_of_error(tmp_path):
    bag = bag_with(tmp_path / "bag", storage=StoragePlugin.SQLITE3, msgdef="int32 a\n", rihs01=f"RIHS01_{'1' * 64}")
    with closing(sqlite3.connect(bag / "bag.db3")) as database, database:
        database.execute("UPDATE message_definitions SET encoding = '' WHERE topic_type LIKE 'robot%'")
    with pytest.raises(sam2.BadInput, match=r"cannot be read: KeyError\(''\)$"):
        shots_of(bag)


def test_a_bag_of_ros_1(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    with rosbag1.Writer(tmp_path / "old.bag") as writer:
        connection = writer.add_connection("/image", IMAGE, typestore=store)
        for number in range(3):
            message = image_message(number)
            header = store.types["std_msgs/msg/Header"](number, message.header.stamp, "front")
            fields = {name: getattr(message, name) for name in message.__dataclass_fields__ if name != "__msgtype__"}
            raw = store.serialize_ros1(store.types[IMAGE](**fields | {"header": header}), IMAGE)
            writer.write(connection, stamp(number) + 7, raw)
    source, shots = shots_of(tmp_path / "old.bag")
    assert source.topic == "/image" and source.fps == pytest.approx(10)
    assert [(shot.stamp_ns, shot.logged_ns, shot.frame_id) for shot in shots] == [
        (stamp(number), stamp(number) + 7, "front") for number in range(3)
    ]
    assert all(np.array_equal(shot.rgb, picture(shot.index)) for shot in shots)


def test_a_camera_that_was_on_for_a_part_of_the_recording_has_its_own_rate(tmp_path):
    bag = bag_with(tmp_path / "bag", kind="std_msgs/msg/Header", typestore=STORE, first_ns=stamp(-36000))
    assert shots_of(bag)[0].fps == pytest.approx(10)


def test_messages_that_are_still_beside_their_database_are_not_forgotten(tmp_path):
    """As a recorder leaves it that is killed while it writes ahead, as by rosbag2's preset `resilient`."""
    bag = write_bag(tmp_path / "bag", {"/image": [image_message(number) for number in range(3)]}, StoragePlugin.SQLITE3)
    file = bag / "bag.db3"
    with closing(sqlite3.connect(file, isolation_level=None)) as recorder:
        recorder.execute("PRAGMA journal_mode = WAL")
        recorder.execute("PRAGMA wal_autocheckpoint = 0")
        raw = bytes(STORE.serialize_cdr(image_message(3), IMAGE))
        recorder.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)", (stamp(3), raw))
        for path in (bag, file):
            with pytest.raises(sam2.BadInput, match=rf"still in bag.db3-wal: .*`sqlite3 {file} 'pragma wal_checkp"):
                shots_of(path)
        recorder.execute("PRAGMA wal_checkpoint(truncate)")
        assert len(shots_of(file)[1]) == 4


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_metadata_may_tell_another_qos_than_the_file(tmp_path, storage):
    """As after `ros2 bag reindex`, which writes a depth of 10 whatever was recorded."""
    bag = write_bag(tmp_path / "bag", {"/image": [image_message(number) for number in range(3)]}, storage)
    described, never = bag / "metadata.yaml", "{sec: 0, nsec: 0}"
    qos = (
        f"{{history: unknown, depth: 10, reliability: reliable, durability: volatile, deadline: {never}, lifespan: "
        f"{never}, liveliness: automatic, liveliness_lease_duration: {never}, avoid_ros_namespace_conventions: false}}"
    )
    text = described.read_text()
    described.write_text(text.replace("offered_qos_profiles: []", f"offered_qos_profiles: [{qos}]"))
    assert described.read_text() != text
    source, shots = shots_of(bag)
    assert [shot.index for shot in shots] == [0, 1, 2] and source.fps == pytest.approx(10)


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_what_only_the_folder_of_a_compressed_bag_tells_is_asked_for(storage, tmp_path):
    images = {"/image": [image_message(number) for number in range(3)]}
    for packed in (CompressionMode.MESSAGE, CompressionMode.FILE):
        bag = write_bag(tmp_path / packed.name, images, storage, packed)
        (file,) = (path for path in bag.iterdir() if path.name != "metadata.yaml")
        assert len(shots_of(bag)[1]) == 3
        if packed is CompressionMode.FILE:
            with pytest.raises(sam2.BadInput, match="a compressed file of a bag; give its folder, with metadata.yaml"):
                shots_of(file)
        else:
            source, shots = shots_of(file)
            assert (shots, source.refused) == ([], {"compressed": 3})
            assert source.last_refusal.endswith("zstd` there if `ros2 bag reindex` wrote it")
            described = bag / "metadata.yaml"
            told, reindexed = described.read_text(), "compression_format: ''\n  compression_mode: ''"
            described.write_text(told.replace("compression_format: zstd\n  compression_mode: message", reindexed))
            assert shots_of(bag)[0].refused == {"compressed": 3}


def test_a_recorder_that_was_killed_is_known_by_what_it_leaves(tmp_path):
    bag = write_bag(tmp_path / "bag", {"/image": [image_message(number) for number in range(5)]})
    (file,) = bag.glob("*.mcap")
    (bag / "metadata.yaml").unlink()
    with pytest.raises(sam2.BadInput, match=rf"no metadata.yaml beside {file.name}; give that file itself"):
        shots_of(bag)
    assert len(shots_of(file)[1]) == 5
    whole = file.read_bytes()
    (bag / "bag_0.mcap").write_bytes(whole)
    with pytest.raises(sam2.BadInput, match=r"beside bag.mcap, bag_0.mcap; `ros2 bag reindex` writes it"):
        shots_of(bag)
    for name in (file.name, "bag_0.mcap"):
        (bag / name).rename((bag / name).with_suffix(".bag"))
    with pytest.raises(sam2.BadInput, match=r"bag.bag, bag_0.bag; bags of ROS 1 have none; give one of these files"):
        shots_of(bag)
    file.write_bytes(whole[:-100])
    with pytest.raises(sam2.BadInput, match=rf"`ros2 bag convert -i {file} -o mended.yaml` writes"):
        shots_of(file)
    file.write_bytes(whole[:9] + b"?" * (len(whole) - 40) + whole[-31:])
    with pytest.raises(sam2.BadInput, match=r"cannot be read: [^;]*$"):
        shots_of(file)
    file.write_text("no bag at all, but long enough to be taken for one\n" * 50)
    with pytest.raises(sam2.BadInput, match=r"cannot be read: [^;]*$"):
        shots_of(file)
