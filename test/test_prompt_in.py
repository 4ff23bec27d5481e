"""Prompts are understood or refused with field, index and value. No message, however wrong, raises anything else."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sam2
from sam2_ros import prompt_in
from sam2_ros.refused import Refused

SIZE_HW = (48, 64)


def mask_like(pixels=None, **change):
    if pixels is None:
        fields = dict(width=0, height=0, step=0, encoding="", data=b"")
    else:
        height, width = pixels.shape
        fields = dict(width=width, height=height, step=width, encoding="mono8", data=pixels.tobytes())
    return SimpleNamespace(**{**fields, **change})


def message(**change):
    fields = dict(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=12, nanosec=345), frame_id=""), object_id="cup",
        class_name="mug", points_xy=[10.0, 20.0], point_labels=[1], box_xyxy=[], mask=mask_like(), mode=0,
    )  # fmt: skip
    return SimpleNamespace(**{**fields, **change})


def refusal(msg):
    with pytest.raises(Refused) as caught:
        prompt_in.from_message(msg)
    return caught.value


def test_every_field_arrives():
    prompt = prompt_in.from_message(
        message(points_xy=[1.5, 2.0, 3.0, 4.0], point_labels=[1, 0], box_xyxy=[0.0, 1.0, 30.0, 40.0], mode=1)
    )
    assert (prompt.object_id, prompt.class_name) == ("cup", "mug")
    assert prompt.points_xy.tolist() == [[1.5, 2.0], [3.0, 4.0]] and prompt.labels.tolist() == [1, 0]
    assert prompt.box_xyxy.tolist() == [0, 1, 30, 40] and prompt.mask is None
    assert prompt.stamp_ns == 12_000_000_345 and prompt.mode is sam2.PromptMode.REPLACE


def test_a_mask_with_padded_rows():
    pixels = np.zeros((48, 70), np.uint8)
    pixels[5:9, 10:20] = 255
    pixels[:, 64:] = 1  # the padding is not part of the mask
    prompt = prompt_in.from_message(message(points_xy=[], point_labels=[], mask=mask_like(pixels, width=64)))
    assert np.array_equal(prompt.mask, pixels[:, :64] != 0)
    assert prompt.points_xy.shape == (0, 2) and prompt.box_xyxy is None


@pytest.mark.parametrize(
    "change, reason, words",
    [
        (dict(points_xy=[1.0, math.nan]), "points", ["points_xy[1]", "nan"]),
        (dict(points_xy=[math.inf, 1.0]), "points", ["points_xy[0]", "inf"]),
        (dict(points_xy=[1.0, 2.0, 3.0]), "points", ["3 numbers", "1 labels"]),
        (dict(points_xy=[1.0, 2.0], point_labels=[]), "points", ["0 labels"]),
        (dict(point_labels=[2]), "labels", ["point_labels[0]", "2"]),
        (dict(point_labels=[-1]), "labels", ["-1"]),
        (dict(box_xyxy=[1.0, 2.0, 3.0]), "box", ["3 numbers"]),
        (dict(box_xyxy=[1.0, 2.0, math.nan, 4.0]), "box", ["box_xyxy[2]", "nan"]),
        (dict(box_xyxy=[5.0, 2.0, 3.0, 4.0]), "box", ["no area"]),
        (dict(box_xyxy=[1.0, 2.0, 1.0, 4.0]), "box", ["no area"]),
        (dict(points_xy=[], point_labels=[]), "nothing", ["no point"]),
        (dict(object_id="", point_labels=[0]), "labels", ["new object"]),
        (dict(mode=7), "mode", ["7"]),
        (dict(mask=mask_like(np.ones((48, 64), np.uint8))), "mask", ["together"]),
    ],
)
def test_impossible_prompts_are_refused(change, reason, words):
    error = refusal(message(**change))
    assert error.reason == reason and all(word in str(error) for word in words)


@pytest.mark.parametrize(
    "mask",
    [
        mask_like(np.zeros((48, 64), np.uint8)),
        mask_like(np.ones((48, 64), np.uint8), encoding="rgb8"),
        mask_like(np.ones((48, 64), np.uint8), step=63),
        mask_like(np.ones((48, 64), np.uint8), height=49),
        mask_like(np.ones((48, 64), np.uint8), data=b"1"),
        mask_like(np.ones((48, 64), np.uint8), width=0),
        mask_like(np.ones((48, 64), np.uint8), data=b""),
    ],
)
def test_impossible_masks_are_refused(mask):
    assert refusal(message(points_xy=[], point_labels=[], mask=mask)).reason == "mask"


@pytest.mark.parametrize("xy", [(-0.1, 5), (64, 5), (5, 48), (5, -3), (1e30, 5)])
def test_points_outside_are_refused_with_index_and_value(xy):
    prompt = sam2.Prompt("cup", points_xy=[(1, 1), xy], labels=[1, 1])
    with pytest.raises(Refused, match="point 1 at .*64x48"):
        prompt_in.check_inside(prompt, SIZE_HW)


def test_the_edges_of_the_image_are_inside():
    prompt_in.check_inside(sam2.Prompt("cup", points_xy=[(0, 0), (63.9, 47.9)], labels=[1, 1]), SIZE_HW)
    prompt_in.check_inside(sam2.Prompt("cup", box_xyxy=[0, 0, 64, 48]), SIZE_HW)
    prompt_in.check_inside(sam2.Prompt("cup", mask=np.ones(SIZE_HW, bool)), SIZE_HW)


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 65, 5), (0, 0, 5, 49)])
def test_boxes_beyond_the_edge_are_refused(box):
    with pytest.raises(Refused, match="leaves the image"):
        prompt_in.check_inside(sam2.Prompt("cup", box_xyxy=box), SIZE_HW)


def test_a_mask_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(Refused, match="32x24.*64x48"):
        prompt_in.check_inside(sam2.Prompt("cup", mask=np.ones((24, 32), bool)), SIZE_HW)


def test_clicks():
    click = prompt_in.from_click(3.0, 4.0, stamp=7)
    assert click.points_xy.tolist() == [[3, 4]] and click.labels.tolist() == [1]
    assert (click.object_id, click.stamp_ns) == ("", 7)
    with pytest.raises(Refused, match=r"click\[1\] is nan"):
        prompt_in.from_click(1.0, math.nan)


def test_a_prompt_made_in_another_frame_is_refused():
    prompt_in.check_frame("", "camera")
    prompt_in.check_frame("camera", "")
    prompt_in.check_frame("camera", "camera")
    with pytest.raises(Refused, match="'map'.*'camera'"):
        prompt_in.check_frame("map", "camera")


NUMBER = st.floats(width=32)


@given(
    points=st.lists(NUMBER, max_size=6), labels=st.lists(st.integers(-128, 127), max_size=3),
    box=st.lists(NUMBER, max_size=5), mode=st.integers(0, 255), name=st.text(max_size=3),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_message_is_understood_or_refused(points, labels, box, mode, name):
    try:
        prompt = prompt_in.from_message(
            message(points_xy=points, point_labels=labels, box_xyxy=box, mode=mode, object_id=name)
        )
        prompt_in.check_inside(prompt, SIZE_HW)
    except Refused as error:
        assert error.reason and str(error)
    else:
        assert np.isfinite(prompt.points_xy).all() and set(prompt.labels.tolist()) <= {0, 1}
