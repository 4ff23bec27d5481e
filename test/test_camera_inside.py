"""The image subscription in front of a node that only takes notes: what is asked for, counted, told and handed on."""

import itertools
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from camera_rig import NotingNode, Rigged
from rclpy.qos import HistoryPolicy, QoSPolicyKind, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from sam2_ros import camera as camera_module
from sam2_ros.camera import Camera
from sam2_ros.counters import Counters
from sam2_ros.image_source import ImageSource
from sam2_ros.params import Settings

pytestmark = pytest.mark.ros
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
S = 10**9
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@pytest.fixture
def clocks(monkeypatch):
    """Both clocks that a camera reads stand at `now_ns`."""
    clock = SimpleNamespace(now_ns=1000 * S)
    monkeypatch.setattr(camera_module.time, "monotonic_ns", lambda: clock.now_ns)
    monkeypatch.setattr(camera_module, "steady_ns", lambda: clock.now_ns)
    return clock


@pytest.mark.parametrize(
    ("transport", "kind", "topic"), [("raw", Image, "image"), ("compressed", CompressedImage, "image/compressed")]
)
def test_only_the_newest_image_is_asked_for(transport, kind, topic):
    """A queue in the middleware would hand on old images under load, whatever the mailbox does."""
    rig = Rigged(image_transport=transport)
    asked = rig.subscription
    assert (asked.kind, asked.topic_name) == (kind, f"/{topic}")
    assert (asked.qos.history, asked.qos.depth) == (HistoryPolicy.KEEP_LAST, 1)
    assert (rig.source.topic, rig.source.remap_from) == (f"/{topic}", topic)


def test_another_reliability_is_one_new_subscription_and_the_old_mismatch_is_over():
    rig = Rigged(("/image", IMAGE, BEST_EFFORT))
    first = rig.subscription
    rig.camera.tick()
    assert rig.subscription is first and rig.source.reliability == "best_effort"
    first.events.incompatible_qos(SimpleNamespace(last_policy_kind=QoSPolicyKind.DURABILITY))
    assert rig.source.incompatible_qos == "DURABILITY"
    rig.node.offers[:] = [("/image", IMAGE, RELIABLE)]
    rig.camera.tick()
    assert rig.subscription.qos.reliability == RELIABLE and rig.source.reliability == "reliable"
    assert rig.source.incompatible_qos == "" and rig.subscription.group is not first.group


def test_images_tell_how_large_they_get_and_that_a_mismatch_is_over():
    rig = Rigged(("/image", IMAGE, BEST_EFFORT))
    rig.subscription.events.incompatible_qos(SimpleNamespace(last_policy_kind=QoSPolicyKind.RELIABILITY))
    for stamp, side in enumerate((20, 30, 10), start=1):
        rig.image(stamp, side=side)
    assert (rig.source.incompatible_qos, rig.counters.largest_image_bytes) == ("", 30 * 30 * 3)


def test_a_publisher_of_another_type_has_no_say_in_the_reliability():
    rig = Rigged(("/image", IMAGE, RELIABLE), ("/image", COMPRESSED, BEST_EFFORT))
    assert rig.subscription.qos.reliability == RELIABLE
    assert (rig.source.publishers, rig.source.other_type) == (1, COMPRESSED)


def test_what_is_lost_is_counted_once():
    """The middleware tells the total, and what is new of it."""
    rig = Rigged()
    for total, new in ((3, 3), (5, 2)):
        rig.subscription.events.message_lost(SimpleNamespace(total_count=total, total_count_change=new))
    assert rig.counters.lost_on_the_way == 5


@pytest.mark.parametrize(
    ("transport", "there", "told"),
    [("raw", ("/image/compressed", COMPRESSED), "/image/compressed"), ("compressed", ("/image", IMAGE), "/image")],
)
def test_the_other_transport_is_told_either_way_and_forgotten_with_the_first_of_ours(transport, there, told):
    rig = Rigged((*there, RELIABLE), image_transport=transport)
    assert rig.source.other_transport == told and rig.source.publishers == 0
    ours = ("/image", IMAGE) if transport == "raw" else ("/image/compressed", COMPRESSED)
    rig.node.offers.append((*ours, RELIABLE))
    rig.camera.tick()
    assert (rig.source.other_transport, rig.source.elsewhere, rig.source.publishers) == ("", (), 1)


def test_topics_that_could_be_meant_are_pictures_nobody_else_makes_or_takes(clocks):
    offers = [
        "/a/label_mask", "/a/Depth/image", "/sam2/overlay", "/b/image_raw", "/taken/image", "/sam2_other/image/rect",
    ]  # fmt: skip
    rig = Rigged(*((name, IMAGE, RELIABLE) for name in offers), ("/c/image/compressed", COMPRESSED, RELIABLE))
    rig.node.subscriptions.append(SimpleNamespace(topic_name="/taken/image"))
    listed = rig.node.get_topic_names_and_types
    rig.node.get_topic_names_and_types = lambda: [*listed(), ("/wanted/image", [IMAGE])]  # nobody publishes it
    clocks.now_ns += camera_module.LOOK_EVERY_NS
    rig.camera.tick()
    found = ("/b/image_raw", "/a/label_mask", "/sam2_other/image/rect")
    assert rig.source.elsewhere == found and rig.source.other_transport == ""
    rig.node.offers.append(("/image", IMAGE, RELIABLE))
    rig.camera.tick()
    assert rig.source.elsewhere == ()
    del rig.node.offers[-1]
    rig.camera.tick()
    assert rig.source.elsewhere == found, "at once: the second is that of another search"
    files = Rigged(("/a/mask/compressed", COMPRESSED, RELIABLE), ("/b/image/compressed", COMPRESSED, RELIABLE),
                   image_transport="compressed")  # fmt: skip
    assert files.source.elsewhere == ("/b/image/compressed", "/a/mask/compressed")


def test_each_of_several_cameras_is_told_the_topic_that_has_its_name():
    offers = [(name, IMAGE, RELIABLE) for name in ("/front/image_raw", "/wrist/image_raw", "/wrist/mask")]
    for name, first in (("front", "/front/image_raw"), ("wrist", "/wrist/image_raw"), ("rear", "/front/image_raw")):
        assert Rigged(*offers, image=f"{name}/image").source.elsewhere[0] == first


def test_what_another_tracker_draws_beside_its_tracks_is_not_meant():
    tracks = ("/r2/front/tracks", "sam2_ros/msg/TrackArray", RELIABLE)
    images = [("/r2/front/label_mask", IMAGE, RELIABLE), ("/r2/rear/label_mask", IMAGE, RELIABLE)]
    truth = [("/sim/ground_truth", tracks[1], RELIABLE), ("/sim/ground_truth/label_mask", IMAGE, RELIABLE)]
    assert Rigged(tracks, *images, *truth).source.elsewhere == ("/r2/rear/label_mask",)


def test_a_camera_that_is_missed_costs_one_look_at_all_topics_a_second(clocks):
    rig, looks = Rigged(), []
    rig.node.get_topic_names_and_types = lambda: looks.append(clocks.now_ns) or []
    for _ in range(16):
        clocks.now_ns += S // 5
        rig.camera.tick()
    assert [after - before for before, after in itertools.pairwise(looks)] == [S, S]


def test_an_image_goes_into_the_mailbox_with_its_stamp_and_when_it_came(clocks):
    rig = Rigged()
    rig.image(5 * S)
    clocks.now_ns += 7
    rig.image(6 * S)
    assert (rig.counters.received, rig.counters.dropped, rig.arrived) == (2, 1, [5 * S, 6 * S])
    arrival = rig.mailbox.take().arrival
    assert (arrival.stamp_ns, arrival.arrived_ns, arrival.new_stream) == (6 * S, 1000 * S + 7, False)
    clocks.now_ns += 1
    rig.image(6 * S + 100 * S)
    assert rig.mailbox.take().arrival.new_stream and rig.counters.dropped == 1


def test_images_between_which_others_are_accepted_are_not_refused_in_a_row(clocks):
    """A camera that sends each image twice, or two on one topic, while a slow network is busy with one image."""
    rig = Rigged()
    for number in range(1, 31):
        for _ in range(2):
            rig.image(number * S // 30)
    assert (rig.counters.refused, rig.counters.dropped) == ({"duplicate": 30}, 29)
    assert rig.counters.refused_in_a_row == 1


def test_what_is_refused_or_not_wanted_keeps_no_depth_and_no_frame(clocks):
    """Depth is kept for what was put in the mailbox, and the frame is that of the newest of these."""
    rig = Rigged(max_pixels=400)
    rig.image(5 * S)
    rig.image(6 * S, frame_id="wide_optical", side=21)
    rig.image(5 * S, frame_id="late_optical")
    rig.enabled = False
    rig.image(7 * S, frame_id="other_optical")
    assert (rig.arrived, rig.camera.frame_id, rig.camera.newest_ns) == ([5 * S], "camera_optical", 5 * S)
    assert rig.mailbox.take().arrival.stamp_ns == 5 * S
    assert rig.counters.refused == {"too_large": 1, "duplicate": 1}
    assert (rig.counters.received, rig.counters.ignored) == (4, 1)
    rig.enabled = True
    rig.image(6 * S)  # those that were refused or ignored are nothing to be late or early by
    assert rig.mailbox.take().arrival.stamp_ns == 6 * S


def test_stamps_are_known_to_be_there_or_not(clocks):
    rig = Rigged()
    for stamp_ns in (0, 5 * S, 0, 0):
        rig.image(stamp_ns)
    assert (rig.counters.unstamped, rig.counters.unstamped_in_a_row) == (3, 2)


def test_each_kind_of_trouble_is_logged_once_in_five_seconds(clocks):
    rig = Rigged()
    rig.image(5 * S)
    for passed_ns, more in ((0, 2), (5 * S - 1, 0), (1, 2)):
        clocks.now_ns += passed_ns
        before = len(rig.node.said)
        rig.image(5 * S)
        rig.image(-S)
        assert len(rig.node.said) - before == more
    assert [said.partition(":")[0] for said in rig.node.said] == ["refused"] * 4
    assert rig.counters.refused == {"duplicate": 3, "negative_stamp": 3}


def test_of_a_stamp_that_is_refused_it_is_told_what_is_wrong_with_it_and_where_to_look(clocks):
    rig = Rigged()
    for stamp_ns in (5 * S, 5 * S, 4 * S, -S):
        rig.image(stamp_ns)
    for said, clause in zip(rig.node.said, ("its driver has to set", "two clocks", "clock set?"), strict=True):
        assert said.startswith("refused: image with stamp ") and clause in said


def test_a_frame_that_changes_and_a_clock_that_is_set_back_are_told(clocks):
    rig = Rigged()
    rig.image(5 * S, frame_id="a")
    rig.image(6 * S, frame_id="a")
    assert not rig.node.said, "the first frame is no change"
    rig.image(7 * S, frame_id="b")
    for number in range(3):
        rig.image(6 * S + number, frame_id="b")
    told = [sentence for sentence in rig.node.said if not sentence.startswith("refused")]
    assert told == [
        "frame_id changed from 'a' to 'b'", "the clock was set back a little; objects are kept",
    ]  # fmt: skip
    assert rig.mailbox.take().arrival.stamp_ns == 6 * S + 2 and rig.counters.refused == {"stale": 2}


def test_what_waits_when_it_is_closed_has_a_fate_and_nothing_is_heard_any_more():
    rig = Rigged()
    rig.image(5 * S)
    rig.camera.close()
    assert not rig.node.subscriptions and rig.mailbox.take().arrival is None and rig.counters.ignored == 1
    rig.camera.close()
    rig.node.get_publishers_info_by_topic = pytest.fail
    rig.camera.tick()
    assert not rig.node.subscriptions and rig.counters.ignored == 1
    del rig.node.get_publishers_info_by_topic
    rig.camera.open(rig.mailbox)
    assert rig.camera.newest_ns == 0


def test_a_camera_that_was_never_opened_can_be_closed():
    camera = Camera(NotingNode(), "image", Settings(), Counters(), ImageSource(), bool, print, log=None)
    camera.close()
    assert not camera._node.subscriptions
