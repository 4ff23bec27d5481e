"""What has depth goes out in the order of its images, and with depth of their time, whenever that comes."""

import pytest

pytest.importorskip("rclpy")

from test_depth import NOW_NS, STEP_NS, scene
from test_depth_out import FakeFrames, Rigged, points_of, track_of

from sam2_ros.depth_buffer import KEPT
from sam2_ros.depth_out import MOST_WAITING

pytestmark = pytest.mark.ros


def test_tracks_with_depth_are_in_the_order_of_their_images():
    """The depth of two images comes while the network is busy with the second."""
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("objects/poses", "objects/tracks")
    rig.depth(metres, NOW_NS - STEP_NS)
    rig.image(mask)
    for number in range(2):
        rig.depth(metres, NOW_NS + number * STEP_NS)
    rig.image(mask, NOW_NS + STEP_NS)
    assert rig.numbers("objects/tracks") == rig.numbers("objects/poses") == [0, 1]


def test_tracks_with_depth_do_not_wait_for_transforms():
    """Nor for those of an older image."""
    rig, (metres, mask) = Rigged(FakeFrames(known_ns=0)), scene()
    rig.hear("objects/poses", "objects/tracks")
    rig.depth(metres)
    rig.image(mask)
    rig.image(mask, NOW_NS + STEP_NS)
    rig.depth(metres, NOW_NS + STEP_NS)
    rig.outputs.idle()
    assert rig.numbers("objects/tracks") == [0, 1] and rig.numbers("objects/poses") == []


def test_a_cloud_that_cannot_be_made_does_not_silence_those_after_it(monkeypatch):
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("objects/poses", "objects/markers", "objects/cloud", "scene_cloud")
    monkeypatch.setattr("sam2_ros.depth_out.cloud_out.pose_array", lambda *_: 1 / 0)
    rig.depth(metres)
    with pytest.raises(ZeroDivisionError):
        rig.image(mask)
    assert all(rig.got(name) for name in ("objects/markers", "objects/cloud", "scene_cloud"))


def test_images_that_wait_for_transforms_cost_the_newest_no_depth():
    rig, (metres, mask) = Rigged(FakeFrames(known_ns=0)), scene()
    rig.hear("objects/poses", "objects/tracks")
    for number in range(MOST_WAITING):
        rig.depth(metres, NOW_NS + number * STEP_NS)
        rig.image(mask, NOW_NS + number * STEP_NS)
    rig.image(mask, NOW_NS + MOST_WAITING * STEP_NS)
    rig.depth(metres, NOW_NS + MOST_WAITING * STEP_NS)  # a little later than its image
    rig.outputs.idle()
    assert rig.numbers("objects/tracks") == list(range(MOST_WAITING + 1))


def test_a_result_that_is_published_again_has_the_depth_of_its_image():
    """However many depth images have come since: a depth camera goes on while the other one is not triggered."""
    rig, (metres, mask) = Rigged(), scene()
    rig.hear("tracks", "objects/cloud")
    rig.depth(metres)
    rig.image(mask)
    cloud = rig.got("objects/cloud")
    for later in range(1, 2 * KEPT):
        rig.depth(metres + 1, NOW_NS + later * STEP_NS)
    rig.publish(track_of(mask), track_of(~mask, "table"))
    again = rig.got("objects/cloud")
    assert cloud.header == again.header and 0 < cloud.width < again.width
    assert set(points_of(again)[:, 2]) == {1.0, 2.0}


def test_images_that_wait_while_the_clock_is_set_back_get_no_depth_of_afterwards():
    """Their stamps come again."""
    rig, (metres, mask), back_ns = Rigged(), scene(), NOW_NS - STEP_NS * 3 // 4
    rig.hear("objects/tracks")
    rig.depth(metres, NOW_NS - STEP_NS)
    rig.camera.buffer.note_image(NOW_NS)
    rig.image(mask)
    assert rig.outputs.waits
    rig.camera.buffer.note_image(NOW_NS + STEP_NS)
    rig.camera.buffer.note_image(back_ns)
    rig.outputs.idle()
    assert not rig.outputs.waits and rig.counters.depth_trouble.startswith("the clock was set back after the image")
    for at_ns in (NOW_NS, NOW_NS + STEP_NS):
        rig.depth(metres, at_ns)
    rig.image(mask, NOW_NS + STEP_NS)  # the worker had taken it
    assert rig.numbers("objects/tracks") == [] and rig.counters.depth_missed == 2
    for at_ns in (back_ns, NOW_NS, NOW_NS + STEP_NS):
        rig.image(mask, at_ns)
    assert rig.numbers("objects/tracks") == [0, 1]
