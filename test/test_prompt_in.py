"""Prompts are understood or refused with field, index and value. No message, however wrong, raises anything else."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sam2
from sam2_ros import prompt_in

SIZE_HW = (48, 64)
read = partial(prompt_in.from_message, max_pixels=48 * 70)


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
    with pytest.raises(sam2.BadInput) as caught:
        read(msg)
    return str(caught.value)


def test_every_field_arrives():
    prompt = read(message(points_xy=[1.5, 2.0, 3.0, 4.0], point_labels=[1, 0], box_xyxy=[0.0, 1.0, 30.0, 40.0], mode=1))
    assert (prompt.object_id, prompt.class_name) == ("cup", "mug")
    assert prompt.points_xy.tolist() == [[1.5, 2.0], [3.0, 4.0]] and prompt.labels.tolist() == [1, 0]
    assert prompt.box_xyxy.tolist() == [0, 1, 30, 40] and prompt.mask is None
    assert prompt.stamp_ns == 12_000_000_345 and prompt.mode is sam2.PromptMode.REPLACE


def test_a_mask_with_padded_rows():
    pixels = np.zeros((48, 70), np.uint8)
    pixels[5:9, 10:20] = 255
    pixels[:, 64:] = 1  # the padding is not part of the mask
    prompt = read(message(points_xy=[], point_labels=[], mask=mask_like(pixels, width=64)))
    assert np.array_equal(prompt.mask, pixels[:, :64] != 0)
    assert prompt.points_xy.shape == (0, 2) and prompt.box_xyxy is None


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(points_xy=[1.0, math.nan]), ["points_xy[1]", "nan"]),
        (dict(points_xy=[math.inf, 1.0]), ["points_xy[0]", "inf"]),
        (dict(points_xy=[1.0, 2.0, 3.0]), ["3 numbers", "1 labels"]),
        (dict(points_xy=[1.0, 2.0], point_labels=[]), ["0 labels"]),
        (dict(point_labels=[2]), ["point_labels[0]", "2"]),
        (dict(point_labels=[-1]), ["-1"]),
        (dict(box_xyxy=[1.0, 2.0, 3.0]), ["3 numbers"]),
        (dict(box_xyxy=[1.0, 2.0, math.nan, 4.0]), ["box_xyxy[2]", "nan"]),
        (dict(box_xyxy=[5.0, 2.0, 3.0, 4.0]), ["no area"]),
        (dict(box_xyxy=[1.0, 2.0, 1.0, 4.0]), ["no area"]),
        (dict(box_xyxy=[1.0, 2.0, 3.0, 2.0]), ["no area"]),
        (dict(box_xyxy=[1.0, 4.0, 3.0, 2.0]), ["no area"]),
        (dict(points_xy=[], point_labels=[]), ["no point"]),
        (dict(mask=mask_like(width=64)), ["64x0", "without data"]),
        (dict(mask=mask_like(height=48)), ["0x48", "without data"]),
        (dict(object_id="", point_labels=[0]), ["new object"]),
        (dict(mode=7), ["7"]),
        (dict(mask=mask_like(np.ones((48, 64), np.uint8))), ["together"]),
        (
            dict(points_xy=[], point_labels=[], box_xyxy=[1.0, 2.0, 3.0, 4.0], mask=mask_like(np.ones((4, 4), bool))),
            ["together"],
        ),
    ],
)
def test_impossible_prompts_are_refused(change, words):
    sentence = refusal(message(**change))
    assert all(word in sentence for word in words)


@pytest.mark.parametrize(
    "mask",
    [
        mask_like(np.zeros((48, 64), np.uint8)),
        mask_like(np.ones((48, 64), np.uint8), encoding="rgb8"),
        mask_like(np.ones((48, 64), np.uint8), step=63),
        mask_like(np.ones((48, 64), np.uint8), height=49),
        mask_like(np.ones((48, 64), np.uint8), data=b"1"),
        mask_like(np.ones((48, 64), np.uint8), width=0),
        mask_like(np.ones((48, 63), np.uint8), width=64),
        mask_like(np.ones((48, 64), np.uint8), data=b""),
    ],
)
def test_impossible_masks_are_refused(mask):
    assert "mask" in refusal(message(points_xy=[], point_labels=[], mask=mask))


def test_a_mask_larger_than_any_image_is_refused_before_it_waits_for_one():
    for mask in (mask_like(np.ones((49, 70), np.uint8)), mask_like(np.ones((4, 900), np.uint8), width=2)):
        assert "at most max_pixels = 3360" in refusal(message(points_xy=[], point_labels=[], mask=mask))


def test_what_begins_an_object_and_what_only_goes_on_with_one():
    """Points beside it say where a new object is not; with a box, or for an object that is known, they are enough."""
    beside = dict(point_labels=[0])
    assert read(message(**beside)).labels.tolist() == [0]
    boxed = read(message(object_id="", box_xyxy=[1.0, 2.0, 3.0, 4.0], **beside))
    assert boxed.object_id == "" and boxed.points_xy.tolist() == [[10, 20]]
    mixed = message(object_id="", points_xy=[1.0, 2.0, 3.0, 4.0], point_labels=[0, 1])
    assert read(mixed).labels.tolist() == [0, 1]
    for name in ("", "cup"):
        mask = mask_like(np.eye(3, dtype=np.uint8), encoding="8UC1")
        whole = message(object_id=name, points_xy=[], point_labels=[], mask=mask)
        assert read(whole).mask.tolist() == np.eye(3, dtype=bool).tolist()


def test_a_refusal_says_which_prompt_of_several_and_stays_of_its_kind():
    for index, total, sentence in ((0, 1, "full"), (0, 2, "prompt 0: full"), (3, 4, "prompt 3: full")):
        with pytest.raises(sam2.LimitReached) as caught, prompt_in.numbered(index, total):
            raise sam2.LimitReached("full")
        assert str(caught.value) == sentence


def test_clicks():
    click = prompt_in.from_click(SimpleNamespace(x=3.0, y=4.0, z=0.0), stamp=7)
    assert click.points_xy.tolist() == [[3, 4]] and click.labels.tolist() == [1]
    assert (click.object_id, click.stamp_ns) == ("", 7)
    with pytest.raises(sam2.BadInput, match=r"click\[1\] is nan"):
        prompt_in.from_click(SimpleNamespace(x=1.0, y=math.nan, z=0.0))
    for z in (0.9, math.nan):  # metres, from RViz; they would be a pixel in the corner
        with pytest.raises(sam2.BadInput, match=r"click \(0.12, 0.08, .*expected a pixel, with z = 0"):
            prompt_in.from_click(SimpleNamespace(x=0.12, y=0.08, z=z))


def test_a_prompt_made_in_another_frame_is_refused():
    prompt_in.check_frame("", "camera")
    prompt_in.check_frame("camera", "")
    prompt_in.check_frame("camera", "camera")
    with pytest.raises(sam2.BadInput, match="'map'.*'camera'"):
        prompt_in.check_frame("map", "camera")


NUMBER = st.floats(width=32)


@given(
    points=st.lists(NUMBER, max_size=6), labels=st.lists(st.integers(-128, 127), max_size=3),
    box=st.lists(NUMBER, max_size=5), mode=st.integers(0, 255), name=st.text(max_size=3),
)  # fmt: skip
@settings(max_examples=300)
def test_any_message_is_understood_or_refused(points, labels, box, mode, name):
    try:
        prompt = read(message(points_xy=points, point_labels=labels, box_xyxy=box, mode=mode, object_id=name))
    except sam2.BadInput as error:
        assert str(error)
    else:
        assert np.isfinite(prompt.points_xy).all() and set(prompt.labels.tolist()) <= {0, 1}
