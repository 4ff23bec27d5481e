"""Which QoS an input takes, by what its publishers offer."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from rclpy.qos import ReliabilityPolicy
from test_camera_inside import BEST_EFFORT, IMAGE, RELIABLE, Rigged

from sam2_ros.matched_subscription import matching_reliability

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(("asked", "alone"), [("auto", BEST_EFFORT), ("auto_reliable", RELIABLE)])
def test_reliability_follows_the_publishers_and_differs_only_without_one(asked, alone):
    """A best effort subscription may miss the first message of a publisher that it does not know yet."""
    offers = {policy: SimpleNamespace(qos_profile=SimpleNamespace(reliability=policy)) for policy in ReliabilityPolicy}
    for there, wanted in (
        ([], alone), ([RELIABLE], RELIABLE), ([BEST_EFFORT], BEST_EFFORT), ([RELIABLE, BEST_EFFORT], BEST_EFFORT),
    ):  # fmt: skip
        assert matching_reliability([offers[policy] for policy in there], asked) == wanted


@pytest.mark.parametrize("before", [RELIABLE, BEST_EFFORT])
def test_a_subscription_that_could_not_be_made_again_is_tried_at_the_next_tick(before, monkeypatch):
    """Also if the publishers are by then as they were before it."""
    rig = Rigged(("/image", IMAGE, before))
    rig.node.offers[:] = [("/image", IMAGE, RELIABLE)] if before == BEST_EFFORT else []
    with monkeypatch.context() as broken, pytest.raises(RuntimeError):
        broken.setattr(rig.node, "create_subscription", lambda *given, **more: (_ for _ in ()).throw(RuntimeError()))
        rig.camera.tick()
    assert rig.node.subscriptions == []
    rig.node.offers[:] = [("/image", IMAGE, RELIABLE)]
    rig.camera.tick()
    assert rig.subscription.qos.reliability == RELIABLE and rig.source.reliability == "reliable"
