"""The class mask: instances of a class have one value, which keeps its meaning."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from test_track_out import SIZE_HW, FakePublisher, blob, header, track

import sam2
from sam2_ros import track_out, vision
from sam2_ros.classes import Classes
from sam2_ros.outputs import Outputs
from sam2_ros.params import Settings

pytestmark = pytest.mark.ros


def test_the_class_mask_merges_instances_and_its_values_are_stable():
    left, right = blob(left=5), blob(left=40)
    tracks = [track("a", 1, left), track("b", 2, right), track("c", 3, blob(top=30), class_name="")]
    classes = Classes(["floor", "mug"], pytest.fail)
    classes.learn(map(track_out.class_of, tracks))
    assert classes.ids == {"floor": 1, "mug": 2, "object": 3}
    message = track_out.class_mask(header(), tracks, SIZE_HW, classes.ids)
    expected = 2 * (left | right) + 3 * blob(top=30)
    # As the Nav2 semantic layer reads it: uint8 at v * width + u, the step is not looked at.
    flat = np.frombuffer(message.data, np.uint8)
    assert all(flat[v * message.width + u] == expected[v, u] for v in range(48) for u in range(64))
    assert (message.encoding, message.step, message.header) == ("mono8", message.width, header())


def test_classes_are_told_once_and_again_with_each_new_one_and_if_that_failed(monkeypatch):
    monkeypatch.setattr(vision, "label_info", lambda header, ids: dict(ids), raising=False)
    outputs = Outputs(lambda kind, topic, depth, latched=False: FakePublisher(topic), Settings(), str, pytest.fail)
    told = outputs.publishers["label_info"] = FakePublisher("label_info")
    outputs.open()

    def publish(*names):
        tracks = [track(name, class_name=name) for name in names]
        outputs.publish(header(), sam2.Frame(np.zeros((*SIZE_HW, 3))), tracks)
        return [told.sent.get_nowait() for _ in range(told.sent.qsize())]

    assert [publish(), publish(), publish("mug"), publish("mug")] == [[{}], [], [{"mug": 1}], []]
    told.publish = lambda message: 1 / 0
    outputs.publishers["class_mask"].subscribers = 1
    with pytest.raises(ZeroDivisionError):
        publish("mug", "box")
    assert not outputs.publishers["class_mask"].sent.empty(), "the mask comes even so"
    del told.publish
    assert [publish("box"), publish("box")] == [[{"mug": 1, "box": 2}], []]


def test_a_class_named_twice_has_one_value():
    classes = Classes(["mug", "mug", "floor"], pytest.fail)
    classes.learn(["box"])
    assert classes.ids == {"mug": 1, "floor": 2, "box": 3}


def test_there_are_254_classes_and_the_rest_is_unlabelled():
    """It must not be taken for another class, and is told once."""
    told = []
    classes = Classes([""], told.append)
    classes.learn(map(str, range(254)))
    assert told == []
    for _ in range(2):
        classes.learn(map(str, range(300)))
    (sentence,) = told
    assert sentence.startswith("class '254': expected at most 254 classes") and "further ones are 255" in sentence
    assert classes.ids["0"] == 1 and classes.ids["253"] == len(classes.ids) == 254
    late = track("late", 7, blob(left=5), class_name="299")
    assert max(track_out.class_mask(header(), [late], SIZE_HW, classes.ids).data) == 255
