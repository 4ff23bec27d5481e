"""How exact poses and clouds are in another frame, and what is said if there are none."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from test_depth import NOW_NS, scene
from test_depth_out import FakeFrames, Rigged
from test_transforms import Told, header_at, node, tf2, transform  # noqa: F401 - the first two are fixtures

from sam2_ros.refused import Refused

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("quaternion", [(0.71, 0.0, 0.0, 0.71), (0.4995, -0.4995, 0.4995, -0.4995)])
def test_a_quaternion_that_is_a_little_too_long_or_too_short_stretches_nothing(tf2, node, quaternion):  # noqa: F811
    """tf2 divides by the length of what it is told; the stand-in does not."""
    tf, sent = Told(node), transform(NOW_NS)
    turn = sent.transform.rotation
    turn.x, turn.y, turn.z, turn.w = quaternion
    tf.transforms._listener.callback(SimpleNamespace(transforms=[sent]))
    rotation, _, _ = tf.transforms.to_target(header_at(NOW_NS))
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12) and np.linalg.det(rotation) > 0
    tf.transforms.close()


def test_poses_are_as_exact_far_from_the_target_s_origin_as_near_it(tf2, node):  # noqa: F811
    """A map in UTM coordinates: float32 knows places there to half a metre."""
    tf, far = Told(node), (4_500_000.123, 500_000.456, 100.0)
    sent = transform(NOW_NS)
    at = sent.transform.translation
    at.x, at.y, at.z = far
    tf.transforms._listener.callback(SimpleNamespace(transforms=[sent]))
    rig, (metres, mask) = Rigged(FakeFrames(*tf.transforms.to_target(header_at(NOW_NS)))), scene()
    rig.hear("objects/poses", "objects/cloud")
    rig.depth(metres)
    rig.image(mask)
    at = rig.got("objects/poses").poses[0].position
    assert [at.x, at.y, at.z] == pytest.approx(np.add(far, [1.0, 0.04, 0.08]), rel=0, abs=1e-5)
    assert rig.got("objects/cloud").width > 0
    tf.transforms.close()


def test_a_frame_that_nobody_knows_is_told_by_name(tf2, node):  # noqa: F811
    """Without the full stop and the space with which tf2 ends this sentence."""
    tf = Told(node)
    with pytest.raises(Refused, match="no transform to base_link at the image's stamp: .*base_link.* does not exist$"):
        tf.transforms.to_target(header_at(NOW_NS))
    tf.transforms.close()
