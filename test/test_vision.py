"""With the real vision_msgs, where they are installed: what tools that speak them get, and a detector's way in."""

import numpy as np
import pytest

pytest.importorskip("rclpy")
from sam2_ros import vision  # noqa: E402

if not vision.INSTALLED:
    pytest.skip("vision_msgs is not installed", allow_module_level=True)

from builtin_interfaces.msg import Time  # noqa: E402
from rclpy.event_handler import PublisherEventCallbacks  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data  # noqa: E402
from ros_rig import NodeProcess  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from test_hand_off import seen, track  # noqa: E402
from vision_msgs.msg import Detection2DArray, LabelInfo  # noqa: E402

from sam2_ros.msg import PromptResult, TrackArray  # noqa: E402
from sam2_ros.srv import SetTarget  # noqa: E402

pytestmark = pytest.mark.ros


def test_detections_out_read_back_as_the_boxes_of_the_masks():
    header = Header(frame_id="camera_optical")
    message = vision.detections(header, [track("a", (10, 12, 30, 20)), track("b", (0, 0, 1, 1), visible=False)])
    (detection,) = message.detections
    assert detection.id == "a" and detection.header == message.header == header
    ((box, name, score),) = vision.read_detections(message)
    assert box.tolist() == [10, 12, 30, 20] and name == "cup" and score == pytest.approx(0.98)
    message.detections[0].bbox.center.theta = np.pi / 2
    assert vision.read_detections(message)[0][0] == pytest.approx([16, 6, 24, 26])
    message.detections[0].results = []
    assert vision.read_detections(message)[0][1:] == ("", 1.0)


@pytest.mark.parametrize("offered", [10, qos_profile_sensor_data], ids=["reliable", "best effort"])
def test_a_detector_of_either_reliability_drives_the_node_and_label_info_reaches_who_comes_late(offered, rig):
    with NodeProcess(parameters={"classes": ["floor"], "detector.confirm": 2}) as node:
        camera = rig.camera()
        camera.wait_for_subscriber()
        tracks, found = rig.collect(TrackArray, "/sam2/tracks"), rig.collect(Detection2DArray, "/sam2/detections")
        answers = rig.collect(PromptResult, "/sam2/prompt_result")
        quiet = PublisherEventCallbacks(use_default_callbacks=False)  # of the mismatch that is over in a moment
        detector = rig.node.create_publisher(
            Detection2DArray, "/sam2/prompt_detections", offered, event_callbacks=quiet
        )
        rig.until(lambda: detector.get_subscription_count() > 0)
        number = camera.publish_until(lambda: tracks)
        publish = camera.publish

        def publish_both(n, **kwargs):
            header = publish(n, **kwargs).header
            x0, y0, x1, y1 = seen(20, 15, 32, 25).box_xyxy.tolist()
            message = vision.detections(header, [track("", (int(x0), int(y0), int(x1), int(y1)))])
            detector.publish(message)

        camera.publish = publish_both
        number = camera.publish_until(lambda: found and found[-1].detections, first=number)
        count = len(tracks)
        number = camera.publish_until(lambda: len(tracks) > count + 20, first=number)
        assert all(len(t.tracks) <= 1 for t in tracks) and found[-1].detections[0].id == tracks[-1].tracks[0].object_id
        assert [a.code for a in answers] == [PromptResult.OK]
        elsewhere = vision.detections(Header(frame_id="other"), [track("", (2, 2, 9, 9))])
        for _ in range(3):
            detector.publish(elsewhere)
        said = rig.diagnostics()
        rig.until(lambda: said and any("of another frame" in v.key for s in said[-1].status for v in s.values))
        ahead = vision.detections(Header(stamp=Time(sec=2**31 - 1)), [track("", (2, 2, 9, 9))])

        def is_told():  # once more of them have come than wait
            detector.publish(ahead)
            return any("later than all images" in v.key for s in said[-1].status for v in s.values)

        rig.until(is_told)
        late, got = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL), []
        rig.node.create_subscription(LabelInfo, "/sam2/label_info", got.append, late)
        rig.until(lambda: got)
        assert {c.class_name: c.class_id for c in got[0].class_map} == {"floor": 1, "cup": 2}
        assert np.all([c.class_id < 255 for c in got[0].class_map])
        unknown = rig.call(SetTarget, "/sam2/set_target", SetTarget.Request(object_id="nobody"))
        assert unknown.code == PromptResult.UNKNOWN_OBJECT and "object_1" in unknown.sentence
        chosen = rig.call(SetTarget, "/sam2/set_target", SetTarget.Request(object_id="object_1"))
        assert chosen.code == PromptResult.OK
        node.end()
