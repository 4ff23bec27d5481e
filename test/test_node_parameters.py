"""A parameter has an effect: it reaches what it is for, when the node starts and, if it is live, while it runs."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from fakes import FakeTracker
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_rig import NodeProcess, click, start_tracking
from sensor_msgs.msg import CompressedImage, Image
from test_track_out import header

import sam2
from sam2_ros import vision
from sam2_ros.image_out import image_message
from sam2_ros.load_tracker import load_tracker
from sam2_ros.node import TrackNode
from sam2_ros.overlay import colour_of
from sam2_ros.params import FIELDS, Settings
from sam2_ros.ros_time import time_message
from sam2_ros.srv import AddObjects

pytestmark = pytest.mark.ros

LIMITS = dict(
    max_objects=3, prompted_memories=2, recent_memories=5, history_frames=7, history_s=1.5, occluded_after=4,
    lost_after_s=9.0,
)  # fmt: skip
NETWORK = dict(
    model="tiny", checkpoint="/w.pt", device="cuda:1", precision="fp32", image_size=512, memory_pooling=2, cpu_threads=3
)


@pytest.fixture
def loaded(monkeypatch):
    """What the loading functions of `sam2` were called with, by their names."""
    calls = {}

    def record(name, result=None):
        def called(*args, **kwargs):
            calls[name] = (args, kwargs)
            return result

        monkeypatch.setattr(sam2, name, called)

    record("load_model", "the model")
    record("Tracker", "the tracker")
    record("set_cpu_threads")
    return calls


def test_every_parameter_of_the_network_reaches_it(loaded):
    settings = Settings(**NETWORK, **LIMITS)
    assert not [name for name in (*NETWORK, *LIMITS) if getattr(settings, name) == getattr(Settings(), name)]
    assert load_tracker(settings) == "the tracker"
    network = {name: NETWORK[name] for name in NETWORK if name not in ("model", "cpu_threads")}
    assert loaded["load_model"] == (("tiny",), network)
    assert loaded["set_cpu_threads"] == ((3, "tiny"), {})
    args, options = loaded["Tracker"]
    assert args == ("the model",) and vars(options.pop("limits")) == vars(sam2.Limits(**LIMITS))
    assert options == {"sticky_corrections": True, "batched": True}
    assert not [name for name, value in LIMITS.items() if value == getattr(sam2.Limits(), name)]


def test_what_is_empty_or_0_is_the_models_own_choice(loaded):
    load_tracker(Settings(cameras=("front", "wrist")))
    _, network = loaded["load_model"]
    assert network["checkpoint"] is network["image_size"] is None
    assert loaded["Tracker"][1]["batched"] is None  # with several cameras it is the device that decides


def test_a_checkpoint_may_be_at_home(loaded):
    load_tracker(Settings(checkpoint="~/w.pt"))  # a launch argument and a parameter file leave it as it is
    assert loaded["load_model"][1]["checkpoint"] == str(Path.home() / "w.pt")


@pytest.mark.parametrize("device, there", [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:77", 1)])
def test_a_gpu_that_is_not_there_is_refused_with_the_remedy_and_the_cpu_is_not_taken(device, there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    with pytest.raises(sam2.BadInput, match=rf"device '{device}': .* finds {there or 'no'} CUDA.*use 'auto' or 'cpu'"):
        load_tracker(Settings(device=device))


def test_a_node_loads_what_its_parameters_say(rig):
    given = [Parameter(name, value=value) for name, value in (NETWORK | LIMITS).items()]
    asked = []

    def make(settings):
        asked.append(settings)
        return FakeTracker()

    node = TrackNode(make, context=rig.context, parameter_overrides=given)
    node.trigger_configure()
    rig.until(lambda: asked)
    assert asked == [Settings(**NETWORK, **LIMITS)]
    node.stop()
    node.destroy_node()


@pytest.fixture
def active(rig):
    """A function that makes an active node in this process with parameters, and depth."""
    nodes = []

    def make(**parameters):
        given = [Parameter(name, value=value) for name, value in parameters.items()]
        depth = Parameter("depth.enabled", value=True)
        nodes.append(
            TrackNode(lambda settings: FakeTracker(), context=rig.context, parameter_overrides=[*given, depth])
        )
        nodes[-1].autostart()
        return nodes[-1]

    yield make
    for node in nodes:
        node.stop()
        node.destroy_node()


def picture(side, stamp_ns, encoding="rgb8"):
    message = image_message(header(), np.zeros((side, side, 3 if encoding == "rgb8" else 4), np.uint8), encoding)
    message.header.stamp = time_message(stamp_ns)
    if encoding == "32FC1":
        message.width = side
    return message


def test_the_largest_image_is_the_parameters(active):
    node = active(max_pixels=400)
    channel = node.channels[0]
    for number, side in enumerate((20, 21), start=1):
        channel.camera._on_image(picture(side, number * 10**9))
        channel.depth._on_depth(picture(side, number * 10**9, "32FC1"))
    assert channel.counters.refused == channel.counters.depth_refused == {"too_large": 1}
    assert channel.counters.depth_received == 1


@pytest.mark.parametrize("jump_s, is_jump", [(1.0, True), (100.0, False)])
def test_what_is_a_jump_of_the_clock_is_the_parameters(active, jump_s, is_jump):
    channel = active(clock_jump_s=jump_s).channels[0]
    for watch in (channel.camera._watch, channel.depth.buffer._watch):
        watch.judge(10**12, now_ns=10**9)
        assert watch.judge(10**12 + 10 * 10**9, now_ns=10**9 + 1).is_jump == is_jump


def other_value(row):
    """Allowed, and not the default."""
    if row.type is str:
        return "other"
    low, high = row.metadata["span"]
    return low if low != row.default else high


def test_a_live_parameter_reaches_all_who_read_it(active):
    node = active(cameras=["front", "wrist"])
    live = {name: row for name, row in FIELDS.items() if row.metadata["live"]}
    assert len(live) > 5
    for name, row in live.items():
        (result,) = node.set_parameters([Parameter(name, value=other_value(row))])
        assert result.successful, result.reason
        for part in (node, *node._worker._pipelines, *(c.pipeline.outputs for c in node.channels)):
            assert getattr(part.settings, row.name) == other_value(row), name
    for channel in node.channels:
        assert channel.target == "other" and channel.pipeline.auto.settings is node.settings


def test_a_chosen_target_outlives_the_network(active):
    """Whoever grasps it would be shown another object after a manager has cleaned up and configured the node again."""
    node = active()
    channel = node.channels[0]

    def rounds(while_unconfigured=lambda: None) -> str:
        for trigger in (node.trigger_deactivate, node.trigger_cleanup, while_unconfigured, node.trigger_configure):
            trigger()
        node.trigger_activate()
        return channel.target

    channel.target = "chosen"
    assert rounds() == "chosen" == rounds()
    node.set_parameters([Parameter("jpeg_quality", value=50)])
    assert channel.target == "chosen", "until the parameter `target` is set"
    assert rounds(lambda: node.set_parameters([Parameter("target", value="set")])) == "set"
    channel.target = "chosen"
    node.set_parameters([Parameter("target", value="set")])
    assert channel.target == "set", "to what it was all the time"


def pixel(image, x, y):
    rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, -1)
    return tuple(int(value) for value in rows[y, x])


@pytest.mark.skipif(vision.INSTALLED, reason="vision_msgs is installed")
def test_a_detector_that_cannot_be_heard_is_warned_of(rig):
    with NodeProcess(parameters={"detector.confirm": 3}) as node:
        rig.wait_for_state("active")
        node.end()
        assert "detector.confirm is set, and there are no detections: install vision_msgs" in node.output


def test_live_parameters_change_what_a_running_node_publishes(rig):
    with NodeProcess(parameters={"jpeg_quality": 100}) as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a")  # at (30, 20)
        adding = rig.start_call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[click("b", x=55.0)]))
        number = camera.publish_until(adding.done, first=number)
        masks, overlays = rig.collect(Image, "/sam2/target_mask"), rig.collect(Image, "/sam2/overlay")
        jpegs = rig.collect(CompressedImage, "/sam2/overlay/compressed")
        number = camera.publish_until(lambda: masks and overlays and jpegs, first=number)
        assert (pixel(masks[-1], 30, 20), pixel(masks[-1], 55, 20)) == ((255,), (0,))
        assert pixel(overlays[-1], 30, 20) != colour_of(1)
        fine = len(jpegs[-1].data)

        def set_live(name, value):
            request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
            assert rig.call(SetParameters, "/sam2/set_parameters", request).results[0].successful

        for name, value in (("target", "b"), ("overlay_opacity", 1.0), ("jpeg_quality", 1)):
            set_live(name, value)
        number = camera.publish_until(lambda: pixel(masks[-1], 55, 20) == (255,), first=number)
        assert pixel(masks[-1], 30, 20) == (0,)
        number = camera.publish_until(lambda: pixel(overlays[-1], 30, 20) == colour_of(1), first=number)
        number = camera.publish_until(lambda: len(jpegs[-1].data) < fine / 2, first=number)
        set_live("overlay_opacity", 0.0)
        camera.publish_until(lambda: len(set(pixel(overlays[-1], 30, 20))) == 1, first=number)  # grey, as it came
        node.end()
