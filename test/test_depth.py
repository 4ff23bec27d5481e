"""Depth messages and calibration in: what is refused, and which depth belongs to which image."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from sam2_ros import depth_in
from sam2_ros.depth_buffer import KEPT, MOST_APART_NS, DepthBuffer
from sam2_ros.geometry import Pinhole
from sam2_ros.image_out import image_message
from sam2_ros.params import FIELDS
from sam2_ros.refused import Refused
from sam2_ros.ros_time import time_message
from sam2_ros.stamps import Stamp

pytestmark = pytest.mark.ros
SIZE_HW = (48, 64)
STEP_NS = 33_000_000
NOW_NS = 12_500_000_000


def depth_message(metres, stamp_ns=NOW_NS, padding=0):
    """32FC1 with rows that are `padding` bytes too long."""
    rows = np.pad(metres.astype(np.float32).view(np.uint8).reshape(len(metres), -1), ((0, 0), (0, padding)))
    msg = image_message(Header(frame_id="camera_optical", stamp=time_message(stamp_ns)), rows, "32FC1")
    msg.width = metres.shape[1]
    return msg


def scene():
    """2 m everywhere, the object 1 m away where `mask` is, a hole and an infinity."""
    mask = np.zeros(SIZE_HW, bool)
    mask[10:30, 20:40] = True
    metres = np.where(mask, 1.0, 2.0).astype(np.float32)
    metres[0, 0], metres[0, 1], metres[0, 2] = np.nan, np.inf, 0.0
    return metres, mask


@pytest.mark.parametrize(("encoding", "padding"), [("16UC1", 0), ("16UC1", 8), ("mono16", 0)])
def test_depth_in_metres_and_in_millimetres_is_the_same(encoding, padding):
    metres, _ = scene()
    got = depth_in.to_metres(depth_message(metres, padding=padding), 0.1, 10.0)
    millimetres = np.nan_to_num(metres * 1000, posinf=65535).astype(np.uint16)
    msg = image_message(Header(), millimetres.view(np.uint8), encoding)
    msg.width = SIZE_HW[1]
    depth_in.check_depth(msg, 10**6)
    assert np.array_equal(got, depth_in.to_metres(msg, 0.1, 10.0), equal_nan=True)
    assert np.isnan(got[0, [0, 2]]).all() and np.isnan(got).sum() == 2 and got[5, 5] == 2.0 and got[15, 25] == 1.0
    assert got[0, 1] == depth_in.to_metres(msg, 0.1, 1.5)[5, 5] == np.inf  # farther than is of use
    assert np.array_equal(got, depth_in.to_metres(msg, 0.0, 10.0), equal_nan=True)  # 0 is no distance, ever
    with pytest.raises(Refused, match="depth.nearest_m is 3: expected less than depth.farthest_m, 2"):
        depth_in.to_metres(msg, 3.0, 2.0)


@pytest.mark.parametrize("nearest_m", [0.0, 0.1])
@pytest.mark.parametrize("nothing", [0.0, -1.0, -0.0001, np.nan, -np.inf])
def test_what_is_no_distance_is_no_depth(nearest_m, nothing):
    got = depth_in.to_metres(depth_message(np.array([[nothing, 1.0]])), nearest_m, 10.0)
    assert np.isnan(got[0, 0]) and got[0, 1] == 1.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(encoding="rgb8"), "encoding"), (dict(is_bigendian=1), "bigendian"), (dict(step=100), "bad_step"),
        (dict(height=47), "short_data"), (dict(width=0), "empty_image"), (dict(width=10**5), "too_large"),
        (dict(height=0), "empty_image"),
    ],
)  # fmt: skip
def test_bad_depth_is_refused_by_name(change, reason):
    msg = depth_message(scene()[0])
    depth_in.check_depth(msg, 10**6)
    for field, value in change.items():
        setattr(msg, field, value)
    with pytest.raises(Refused) as refused:
        depth_in.check_depth(msg, 10**6)
    assert refused.value.reason == reason


def test_calibration_is_read_as_depth_image_proc_reads_it():
    info = CameraInfo(width=64, height=48, k=[50.0, 0, 31.5, 0, 51.0, 23.5, 0, 0, 1.0])
    assert depth_in.to_pinhole(info) == Pinhole(50.0, 51.0, 31.5, 23.5, (48, 64))
    info.p = [60.0, 0, 30.0, 0, 0, 61.0, 20.0, 0, 0, 0, 1.0, 0]
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 10, 4, 40, 20
    info.binning_x = info.binning_y = 2
    assert depth_in.to_pinhole(info) == Pinhole(30.0, 30.5, 10.0, 8.0, (10, 20))


@pytest.mark.parametrize("field", ["k", "p"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -50.0, 0.0])
def test_a_camera_without_a_usable_number_is_not_calibrated(field, wrong):
    """Each of the four numbers; of the principal point any finite one will do."""
    usable, places = ([50.0, 0, 31.5, 0, 51.0, 23.5, 0, 0, 1.0], (0, 4, 2, 5)) if field == "k" else (
        [50.0, 0, 31.5, 0, 0, 51.0, 23.5, 0, 0, 0, 1.0, 0], (0, 5, 2, 6)
    )  # fmt: skip
    assert depth_in.to_pinhole(CameraInfo(width=64, height=48, **{field: usable})).fx == 50.0
    for place in places if not np.isfinite(wrong) else places[:2]:
        matrix = [wrong if at == place else number for at, number in enumerate(usable)]
        with pytest.raises(Refused, match="not calibrated"):
            depth_in.to_pinhole(CameraInfo(width=64, height=48, **{field: matrix}))


@pytest.mark.parametrize(("place", "wrong"), [(0, 1e-30), (4, 1e-4), (0, 1e8), (2, 1e300), (5, -1e8)])
def test_a_camera_that_cannot_be_is_not_calibrated(place, wrong):
    matrix = [50.0, 0, 31.5, 0, 51.0, 23.5, 0, 0, 1.0]
    matrix[place] = wrong
    with pytest.raises(Refused, match="not calibrated"):
        depth_in.to_pinhole(CameraInfo(width=64, height=48, k=matrix))


def test_depth_of_nothing_is_none_whatever_the_range_is_and_padding_counts_as_pixels():
    depth = np.full(SIZE_HW, 1e-38, np.float32)
    assert np.isnan(depth_in.to_metres(depth_message(depth), 0.0, 10.0)).all()
    padded = Image(width=1, height=1, step=8000, encoding="32FC1", data=bytes(8000))
    depth_in.check_depth(padded, 2000)
    with pytest.raises(Refused, match="8000 bytes of depth: expected those of at most 1999 pixels"):
        depth_in.check_depth(padded, 1999)


def filled(count=4, step_ns=STEP_NS, jump_ns=5 * 10**9):
    buffer = DepthBuffer(jump_ns)
    for n in range(count):
        buffer.add(NOW_NS + n * step_ns, n, n * step_ns)
    return buffer


def test_the_depth_of_an_image_is_at_most_half_a_frame_away():
    buffer = filled()
    assert buffer.find(NOW_NS + STEP_NS) == (1, "")
    assert buffer.find(NOW_NS + STEP_NS + STEP_NS // 2 - 1) == (1, "")
    found, why = buffer.find(NOW_NS + 4 * STEP_NS)
    assert found is None and "0.033 s older" in why
    assert filled(1).find(NOW_NS + 1)[0] is None  # half of what is not known yet: exact stamps only
    assert filled(1).find(NOW_NS) == (0, "") and DepthBuffer(1).find(5)[0] is None
    assert filled(step_ns=10**9).slop_ns == MOST_APART_NS


def test_depth_that_is_wanted_is_kept_however_long_the_network_takes():
    buffer = filled()
    buffer.want([NOW_NS + STEP_NS, NOW_NS + 2 * STEP_NS])
    buffer.note_image(NOW_NS + 3 * STEP_NS)
    for n in range(4, 4 + 3 * KEPT):
        buffer.add(NOW_NS + n * STEP_NS, n, n * STEP_NS)
    assert [buffer.find(NOW_NS + n * STEP_NS)[0] for n in range(5)] == [None, 1, 2, 3, None]
    buffer.want([NOW_NS + (4 + 3 * KEPT) * STEP_NS])
    assert [buffer.find(NOW_NS + n * STEP_NS)[0] for n in range(5)] == [None, None, None, 3, None]
    assert len(buffer._entries) == len(buffer._steps_ns) == KEPT


def test_after_a_jump_of_the_clock_nothing_old_matches_and_new_depth_does():
    buffer = filled()
    buffer.want([NOW_NS])
    back_ns = NOW_NS - 10 * 10**9
    assert buffer.add(back_ns, "new", 5 * STEP_NS).is_jump
    assert buffer.find(NOW_NS)[0] is None and buffer.find(back_ns) == ("new", "")
    assert not buffer.add(back_ns, "twice", 5 * STEP_NS).usable and buffer.find(back_ns) == ("new", "")


def test_after_a_clock_was_set_back_a_little_no_older_depth_matches():
    """Stamps may come twice then; and half a frame, which is no negative number, is measured anew."""
    buffer = filled()
    late_ns = [NOW_NS + n * STEP_NS + STEP_NS // 4 for n in range(3)]  # the newest there was: NOW_NS + 3 * STEP_NS
    verdicts = [buffer.add(ns, ns, 5 * STEP_NS) for ns in late_ns]
    assert verdicts == [Stamp.STALE, Stamp.STALE, Stamp.STEP_BACK]
    assert buffer.find(late_ns[2]) == (late_ns[2], "") and buffer.find(NOW_NS + 3 * STEP_NS)[0] is None
    buffer.add(late_ns[2] + STEP_NS, "next", 6 * STEP_NS)
    assert buffer.slop_ns == STEP_NS // 2


def test_depth_that_has_noticed_a_new_clock_before_the_images_is_kept():
    """A recording that starts over, with the depth of its first image before that."""
    buffer = filled()
    buffer.note_image(NOW_NS)
    back_ns = NOW_NS - 10 * 10**9
    assert buffer.add(back_ns, "new", 5 * STEP_NS).is_jump
    buffer.note_image(back_ns)
    assert buffer.find(back_ns) == ("new", "")
    buffer.add(back_ns + STEP_NS, "newer", 6 * STEP_NS)
    buffer.note_image(back_ns - STEP_NS)  # once more, and this time depth has not noticed yet
    assert buffer.find(back_ns + STEP_NS)[0] is None


def test_depth_may_come_as_long_as_nothing_near_the_image_has():
    buffer = filled()
    last_ns = NOW_NS + 3 * STEP_NS
    assert buffer.may_come(last_ns + STEP_NS) and not buffer.may_come(last_ns) and not buffer.may_come(NOW_NS)
    assert not buffer.may_come(last_ns + STEP_NS // 3)  # that one is its match


def test_settings_of_depth_are_parameters_with_a_dot():
    assert FIELDS["depth.enabled"].name == "depth_enabled"
