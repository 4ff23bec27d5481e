"""What leaves the node says exactly what the tracker said, under the header of the source image."""

import dataclasses
import queue
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from fakes import FakeTracker
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

import sam2
from sam2_ros import image_out, track_out, vision
from sam2_ros.newest_result import NewestResult
from sam2_ros.outputs import Outputs
from sam2_ros.overlay import Overlay
from sam2_ros.params import Settings
from sam2_ros.ros_time import time_message

pytestmark = pytest.mark.ros
SIZE_HW = (48, 64)
NOW_NS = 12_500_000_000
LATCHED = ("label_info",)  # kept for who comes late, so it is sent to nobody too


def header():
    made = Header(frame_id="camera_optical")
    made.stamp = time_message(NOW_NS)
    return made


def track(name="cup", label=3, mask=None, state=sam2.State.VISIBLE, last_seen_ns=NOW_NS, **more):
    """A track with exactly this (H, W) mask."""
    mask = np.zeros(SIZE_HW, bool) if mask is None else mask
    fields = dict(
        object_id=name, class_name="mug", label=label, state=state, object_score=2.5, presence=0.75, predicted_iou=0.5,
        last_seen_ns=last_seen_ns, frames_since_seen=int(state is not sam2.State.VISIBLE), size_hw=SIZE_HW,
        low_res_logits=np.where(mask, 4.0, -4.0).astype(np.float32),
    )  # fmt: skip
    return sam2.Track(**{**fields, **more})


def blob(top=5, left=10, height=7, width=9):
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + height, left : left + width] = True
    mask[top, left] = False  # not a plain rectangle
    return mask


def decode(mask):
    crop = sam2.rle_decode(np.array(mask.counts), (mask.height, mask.width))
    whole = np.zeros((mask.image_height, mask.image_width), bool)
    whole[mask.y : mask.y + mask.height, mask.x : mask.x + mask.width] = crop
    return whole


def test_a_visible_object():
    mask = blob()
    message = track_out.track_message(track(mask=mask))
    assert (message.object_id, message.class_name, message.label, message.state) == ("cup", "mug", 3, 0)
    assert (message.object_score, message.presence, message.predicted_iou) == (2.5, 0.75, 0.5)
    box = message.box
    assert (box.x_offset, box.y_offset, box.width, box.height, box.do_rectify) == (10, 5, 9, 7, False)
    rows, columns = np.nonzero(mask)
    assert message.area == mask.sum()
    assert message.centroid_x == pytest.approx(columns.mean() + 0.5)
    assert message.centroid_y == pytest.approx(rows.mean() + 0.5)
    assert (message.last_seen.sec, message.last_seen.nanosec) == (12, 500_000_000)
    assert np.array_equal(decode(message.mask), mask)
    shifted = np.roll(mask, 1, axis=1)
    assert not np.array_equal(decode(message.mask), shifted)


@pytest.mark.parametrize("state", [sam2.State.OCCLUDED, sam2.State.LOST, sam2.State.INVALID])
def test_an_object_out_of_sight_has_no_pixels(state):
    message = track_out.track_message(track(mask=blob(), state=state, frames_since_seen=4))
    assert (message.state, message.frames_since_seen, message.area) == (int(state), 4, 0)
    assert (message.box.width, message.mask.width, len(message.mask.counts)) == (0, 0, 0)
    assert (message.mask.image_width, message.mask.image_height) == (64, 48)


def test_a_visible_object_without_a_single_pixel():
    message = track_out.track_message(track())
    assert (message.area, message.centroid_x, message.mask.width) == (0, 0, 0)


@pytest.mark.parametrize("mask", [np.ones(SIZE_HW, bool), blob(0, 0, 1, 2), blob(47, 62, 1, 2)])
def test_masks_at_the_edges(mask):
    assert np.array_equal(decode(track_out.track_message(track(mask=mask)).mask), mask)


def test_no_object_is_a_stamped_empty_message():
    assert track_out.track_array(header(), []).header == header()
    assert track_out.visibility_array(header(), [], NOW_NS).header == header()
    empty = track_out.label_mask(header(), [], SIZE_HW)
    assert empty.header == header() and not any(empty.data)


def test_visibility_counts_the_seconds():
    tracks = [
        track("a"), track("b", state=sam2.State.OCCLUDED, last_seen_ns=NOW_NS - 1_500_000_000, presence=0.25),
    ]  # fmt: skip
    objects = track_out.visibility_array(header(), tracks, NOW_NS).objects
    assert [(o.object_id, o.state, o.presence, o.seconds_since_seen) for o in objects] == [
        ("a", 0, 0.75, 0.0), ("b", 1, 0.25, 1.5),
    ]  # fmt: skip


def pixels(message):
    assert len(message.data) == message.step * message.height
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)


def test_label_mask_is_mono8_without_padding():
    message = track_out.label_mask(header(), [track("a", 7, blob()), track("b", 9, blob(30, 40))], SIZE_HW)
    assert (message.encoding, message.step, message.width, message.height) == ("mono8", 64, 64, 48)
    expected = np.zeros(SIZE_HW, np.uint8)
    expected[blob()], expected[blob(30, 40)] = 7, 9
    assert np.array_equal(pixels(message), expected)


@pytest.mark.parametrize("target, mask", [("", blob()), ("b", blob(30, 40)), ("nobody", np.zeros(SIZE_HW, bool))])
def test_target_mask(target, mask):
    tracks = [track("a", 7, blob()), track("b", 9, blob(30, 40))]
    message = track_out.target_mask(header(), tracks, SIZE_HW, target)
    assert np.array_equal(pixels(message), mask * np.uint8(255)) and message.encoding == "mono8"


def test_images_of_any_layout_are_copied_row_by_row():
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    message = track_out.image_message(header(), rgb[::2, ::-1], "rgb8")
    assert (message.step, message.height, message.width) == (90, 10, 30)
    assert np.array_equal(pixels(message).reshape(10, 30, 3), rgb[::2, ::-1])


def test_jpeg_has_its_channels_in_place():
    rgb = np.full((32, 32, 3), (200, 30, 90), np.uint8)
    message = image_out.jpeg_message(header(), rgb, 90)
    got = cv2.cvtColor(cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert "jpeg" in message.format and np.abs(got.astype(int) - rgb).max() <= 4


class FakePublisher:
    def __init__(self, topic):
        self.topic, self.subscribers, self.sent = topic, 0, queue.SimpleQueue()

    def get_subscription_count(self):
        return self.subscribers

    def publish(self, message):
        self.sent.put(message)


@pytest.fixture
def target():
    return SimpleNamespace(id="")


@pytest.fixture
def outputs(target):
    create = lambda kind, topic, depth, latched=False: FakePublisher(topic)  # noqa: E731
    made = Outputs(create, Settings(), lambda: target.id, pytest.fail)
    made.open()
    return made


def hand_over(outputs):
    frame = sam2.Frame(np.zeros((*SIZE_HW, 3), np.uint8), NOW_NS)
    tracks = FakeTracker().step(frame, [sam2.Prompt("cup", points_xy=[(30, 20)], labels=[1])])
    return outputs.publish(header(), frame, tracks)


def test_only_what_somebody_hears_is_made(outputs, monkeypatch):
    makers = {
        track_out: ("track_array", "visibility_array", "label_mask", "class_mask", "target_mask"),
        image_out: ("image_message", "jpeg_message"), Overlay: ("draw",), vision: ("detections",),
    }  # fmt: skip
    for module, name in [(module, name) for module, names in makers.items() for name in names]:
        monkeypatch.setattr(module, name, lambda *_, name=name: pytest.fail(f"{name} was made for nobody"))
    assert hand_over(outputs)
    assert all(p.sent.empty() for name, p in outputs.publishers.items() if name not in LATCHED)


@pytest.mark.parametrize(
    "topic, kind",
    [
        ("tracks", track_out.TrackArray),
        ("visibility", track_out.VisibilityArray),
        ("label_mask", Image),
        ("class_mask", Image),
        ("target_mask", Image),
        ("overlay", Image),
        ("overlay/compressed", CompressedImage),
    ],
)
def test_each_output_goes_to_its_topic_with_the_source_header(outputs, topic, kind):
    publisher = outputs.publishers[topic]
    publisher.subscribers = 1
    assert hand_over(outputs)
    message = publisher.sent.get_nowait()
    assert publisher.topic == topic and isinstance(message, kind) and message.header == header()
    others = [p for other, p in outputs.publishers.items() if other not in (topic, *LATCHED)]
    assert publisher.sent.empty() and all(p.sent.empty() for p in others)


def test_nothing_is_published_after_close(outputs):
    outputs.publishers["tracks"].subscribers = 1
    outputs.close()
    assert not hand_over(outputs) and outputs.publishers["tracks"].sent.empty()
    outputs.open()
    assert hand_over(outputs) and not outputs.publishers["tracks"].sent.empty()


def test_an_output_that_cannot_be_made_does_not_silence_the_others(outputs, monkeypatch):
    for name, publisher in outputs.publishers.items():
        if name not in LATCHED:
            publisher.subscribers = 1
    monkeypatch.setattr(track_out, "class_mask", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hand_over(outputs)
    silent = [name for name, p in outputs.publishers.items() if p.subscribers and p.sent.empty()]
    assert silent == ["class_mask"]
    monkeypatch.undo()
    assert hand_over(outputs) and not outputs.publishers["class_mask"].sent.empty()


def test_the_target_is_asked_for_with_each_image(outputs, target):
    outputs.publishers["target_mask"].subscribers = 1
    for target.id, is_shown in (("nobody", False), ("", True), ("cup", True)):
        hand_over(outputs)
        assert any(outputs.publishers["target_mask"].sent.get_nowait().data) == is_shown


def test_what_was_removed_is_in_no_list(outputs):
    outputs.newest = NewestResult("header", [track("a", 1, blob(left=5)), track("b", 2, blob(left=40))])
    outputs.drop(["a", "ghost"])
    assert outputs.newest.header == "header" and outputs.newest.object_ids == ["b"]
    outputs.note_restored(["kept", "d"])
    assert outputs.newest.object_ids == ["b", "d", "kept"]
    assert outputs.newest.waiting == "restored, and tracked from the next image on: d, kept"
    outputs.drop(["d"])
    assert outputs.newest.object_ids == ["b", "kept"]
    outputs.drop(None)
    assert outputs.newest.tracks == outputs.newest.object_ids == []
    outputs.note_restored(["kept"])
    hand_over(outputs)
    assert outputs.newest.waiting == ""
    assert outputs.newest.object_ids == ["cup"]  # what was restored is among the tracks, if it is still there


def test_what_was_restored_still_waits_when_a_result_is_published_again(outputs):
    """Except what has been prompted, and is among the tracks by that."""
    frame = sam2.Frame(np.zeros((240, 320, 3), np.uint8), NOW_NS)
    of_image = header()
    outputs.publish(of_image, frame, [track("a")])
    outputs.note_restored(["kept", "cup"])
    outputs.publish(of_image, frame, [track("a"), track("cup", 2)])
    assert outputs.newest.object_ids == ["a", "cup", "kept"]
    assert outputs.newest.waiting == "restored, and tracked from the next image on: kept"
    outputs.publish(header(), frame, [track("a")])
    assert outputs.newest.object_ids == ["a"]


def test_without_its_mask_an_object_still_has_a_place():
    message = track_out.track_message(track(mask=blob()), with_mask=False)
    assert message.area == blob().sum() and message.box.width == 9 and not message.mask.counts


def test_the_overlay_forgets_where_things_were_over_images_that_nobody_looked_at(outputs):
    frame = sam2.Frame(np.zeros((240, 320, 3), np.uint8), NOW_NS)
    (seen,) = FakeTracker().step(frame, [sam2.Prompt("cup", points_xy=[(160, 120)], labels=[1])])
    lost = dataclasses.replace(seen, state=sam2.State.LOST)
    overlay, drawn = outputs.publishers["overlay"], []
    for shown, overlay.subscribers in ((seen, 1), (lost, 1), (lost, 0), (lost, 1)):
        outputs.publish(header(), frame, [shown])
        drawn += [any(overlay.sent.get_nowait().data) for _ in range(overlay.subscribers)]
    assert drawn == [True, True, False]
