"""What users give: refused in a sentence if malformed, else in network-input pixels; clicks add up."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_stream import SIZE_HW, assert_same, click, disc, fork, frame, images, run, small_model

import sam2
from sam2.checks import check_frame, check_places, check_prompt, check_prompts
from sam2.model_prompt import ModelPrompt, prompt_to_model

LIMITS = sam2.Limits(points_per_prompt=3)
MASK = disc("a").mask
NAN = float("nan")
MALFORMED = {  # prompt, pattern of the sentence
    "no prompt": ("cup", r"prompt: expected sam2\.Prompt, got str"),
    "nothing": (sam2.Prompt("cup"), "prompt for 'cup': expected points, a box or a mask, got none"),
    "id empty": (click(""), "object_id: expected 1 to 128 characters, got ''"),
    "id too long": (click("a" * 129), "object_id: expected 1 to 128 characters"),
    "id no string": (click(3), "object_id: .*, got 3"),
    "id no UTF-8": (click("c\ud800p"), r"object_id: expected 1 to 128 characters, got 'c\\ud800p'"),
    "class too long": (click("a", class_name="k" * 129), "class_name: expected at most 128 characters, got 'kkk"),
    "class no UTF-8": (click("a", class_name="\udcfc"), "class_name: expected at most 128 characters"),
    "class no string": (click("a", class_name=None), "class_name: expected at most 128 characters, got None"),
    "mode no mode": (click("a", mode="replace"), r"mode: expected a sam2\.PromptMode, got 'replace'"),
    "stamp fraction": (click("a", stamp_ns=1.5), "stamp_ns: expected nanoseconds, an integer >= 0, got 1.5"),
    "stamp negative": (click("a", stamp_ns=-1), "stamp_ns: .*, got -1"),
    "points flat": (sam2.Prompt("a", [3, 4], [1]), r"points_xy: expected \(K, 2\) numbers, got \[3, 4\]"),
    "points in 3-D": (sam2.Prompt("a", np.ones((2, 3)), [1, 1, 1]), r"points_xy: expected \(K, 2\) numbers"),
    "points ragged": (sam2.Prompt("a", [(1, 2), (3,)], [1, 1]), "points_xy: expected"),
    "points of words": (sam2.Prompt("a", [("x", "y")], [1]), "points_xy: expected"),
    "point not a number": (click("a", NAN), "points_xy: expected finite numbers"),
    "point infinite": (click("a", float("inf")), "points_xy: expected finite numbers"),
    "point huge": (click("a", 1e300), "points_xy: expected finite numbers"),
    "point beyond all numbers": (click("a", 10**400), "points_xy: expected"),
    "label missing": (sam2.Prompt("a", [(1, 2), (3, 4)], [1]), r"labels: expected one per point \(2\), got 1"),
    "label alone": (sam2.Prompt("a", labels=[1]), r"labels: expected one per point \(0\), got 1"),
    "label of a box": (click("a", label=2), r"labels: expected 1 \(on the object\) or 0 \(not on it\), got \[2"),
    "label padding": (click("a", label=-1), "labels: expected 1"),
    "label fraction": (click("a", label=0.5), "labels: expected 1"),
    "labels in 2-D": (sam2.Prompt("a", [(1, 2)], [[1]]), r"labels: expected \(K,\) integers"),
    "too many points": (sam2.Prompt("a", [(1, 2)] * 4, [1] * 4), "points_xy: expected at most 3 points, got 4"),
    "box short": (sam2.Prompt("a", box_xyxy=[1, 2, 3]), "box_xyxy: expected 4 numbers"),
    "box empty": (sam2.Prompt("a", box_xyxy=[]), "box_xyxy: expected 4 numbers"),
    "box flat": (sam2.Prompt("a", box_xyxy=[1, 2, 9, 2]), "box_xyxy: expected x0 < x1 and y0 < y1"),
    "box inside out": (sam2.Prompt("a", box_xyxy=[9, 2, 1, 8]), "box_xyxy: expected x0 < x1 and y0 < y1"),
    "box not a number": (sam2.Prompt("a", box_xyxy=[1, 2, NAN, 8]), "box_xyxy: expected finite numbers"),
    "mask of bytes": (sam2.Prompt("a", mask=MASK.astype(np.uint8)), "mask: .* bool array, got .* uint8"),
    "mask a list": (sam2.Prompt("a", mask=MASK.tolist()), "mask: .* bool array, got list"),
    "mask in 3-D": (sam2.Prompt("a", mask=MASK[None]), r"mask: expected a non-empty \(H, W\) bool array"),
    "mask empty": (sam2.Prompt("a", mask=MASK[:0]), "mask: expected a non-empty"),
    "mask and points": (replace(click("a"), mask=MASK), "prompt for 'a': expected a mask alone"),
    "mask and box": (sam2.Prompt("a", box_xyxy=[1, 2, 3, 4], mask=MASK), "prompt for 'a': expected a mask alone"),
}
MISPLACED = {
    "left of the image": (click("a", -0.1), r"point 0 at \(-0.1, 15\) is outside the image of 80x48"),
    "on its right edge": (click("a", 80), r"\(80, 15\) is outside"),
    "below it": (sam2.Prompt("a", [(1, 2), (1, 49)], [1, 1]), r"point 1 at \(1, 49\) is outside"),
    "above it": (click("a", 20, -0.1), r"point 0 at \(20, -0.1\) is outside"),
    "on its lower edge": (click("a", 20, 48), r"\(20, 48\) is outside"),
    "far away": (click("a", 1e30), r"\(1e\+30, 15\) is outside"),
    "box left of it": (sam2.Prompt("a", box_xyxy=[-1, 2, 8, 8]), r"\(-1, 2, 8, 8\) leaves the image of 80x48"),
    "box above it": (sam2.Prompt("a", box_xyxy=[1, -2, 8, 8]), r"\(1, -2, 8, 8\) leaves"),
    "box right of it": (sam2.Prompt("a", box_xyxy=[1, 2, 81, 8]), r"\(1, 2, 81, 8\) leaves"),
    "box below it": (sam2.Prompt("a", box_xyxy=[1, 2, 8, 49]), r"\(1, 2, 8, 49\) leaves"),
    "mask of another size": (
        sam2.Prompt("a", mask=MASK[1:]),
        r"mask: expected the image's size \(48, 80\), got \(47, 80\)",
    ),
}
BAD_FRAMES = {
    "no frame": (images()[0], r"frame: expected sam2\.Frame, got ndarray"),
    "no array": (sam2.Frame([[1]]), r"frame\.rgb: .*, got list"),
    "grey": (sam2.Frame(images()[0][..., 0]), r"frame\.rgb: .*\(H, W, 3\) uint8"),
    "four channels": (sam2.Frame(np.zeros((4, 4, 4), np.uint8)), r"frame\.rgb"),
    "floats": (sam2.Frame(images()[0] / 255), r"frame\.rgb: .* float64"),
    "empty": (sam2.Frame(images()[0][:0]), r"frame\.rgb"),
    "stamp no number": (sam2.Frame(images()[0], "now"), r"frame\.stamp_ns: expected nanoseconds.*, got 'now'"),
    "stamp negative": (sam2.Frame(images()[0], -1), r"frame\.stamp_ns"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_prompt_is_refused(name):
    prompt, sentence = MALFORMED[name]
    with pytest.raises(sam2.BadInput, match=sentence):
        check_prompt(prompt, LIMITS)


@pytest.mark.parametrize("name", MISPLACED)
def test_misplaced_prompt_is_refused(name):
    prompt, sentence = MISPLACED[name]
    check_prompt(prompt, LIMITS)
    with pytest.raises(sam2.BadInput, match=sentence):
        check_places(prompt, SIZE_HW)


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frame_is_refused(name):
    bad, sentence = BAD_FRAMES[name]
    with pytest.raises(sam2.BadInput, match=sentence):
        check_frame(bad)


def test_prompts_must_be_a_sequence():
    with pytest.raises(sam2.BadInput, match=r"prompts: expected a sequence of sam2\.Prompt, got Prompt"):
        check_prompts(click("a"), LIMITS)


def test_refusals_leave_the_tracker_as_it_was():
    """Each of them beside a good prompt, which must not be applied either."""
    tracker = sam2.Tracker(small_model(), LIMITS)
    run(tracker, range(2), {0: [click("a")]})
    twin = fork(tracker)
    for prompt, sentence in (MALFORMED | MISPLACED).values():
        with pytest.raises(sam2.BadInput, match=sentence):
            tracker.step(frame(2), [click("b"), prompt])
        with pytest.raises(sam2.BadInput, match=sentence):
            tracker.check(prompt, frame(2))
    for bad, sentence in BAD_FRAMES.values():
        with pytest.raises(sam2.BadInput, match=sentence):
            tracker.step(bad, [click("b")])
    with pytest.raises(sam2.BadInput, match="prompts: expected a sequence"):
        tracker.step(frame(2), click("b"))
    assert_same(run(tracker, range(2, 5), {3: [click("b")]}), run(twin, range(2, 5), {3: [click("b")]}))


def test_good_prompt_passes_before_and_after_the_first_image():
    tracker = sam2.Tracker(small_model())
    tracker.check(click("a", 1e6))  # no image yet that it could be outside of
    run(tracker, range(1))
    tracker.check(click("a"))
    with pytest.raises(sam2.BadInput, match="outside the image"):
        tracker.check(click("a", 1e6))


@pytest.mark.parametrize(
    "prompt",
    [
        sam2.Prompt("a", np.array([[0, 0], [79.9, 47.9]]), np.array([1, 0], np.int8)),
        sam2.Prompt("a", torch.tensor([[3.5, 4.5]]), torch.tensor([1])),
        sam2.Prompt("a", ((3, 4),), (True,)),
        sam2.Prompt("a", np.zeros((0, 2)), [], box_xyxy=(0, 0, 80, 48)),
        sam2.Prompt("a", [], [], box_xyxy=[[1, 2], [3, 4]], stamp_ns=np.int64(5)),
        sam2.Prompt("a", mask=np.zeros(SIZE_HW, bool)),
        sam2.Prompt("a" * 128, [(1, 2)] * 3, [1] * 3, class_name="k" * 128),
    ],
    ids=["arrays", "tensors", "tuples", "box", "corners", "empty mask", "as long as allowed"],
)
def test_good_prompts_of_every_kind(prompt):
    check_prompt(prompt, LIMITS)
    check_places(prompt, SIZE_HW)
    prompt_to_model(prompt, SIZE_HW, 64)


def test_given_in_network_pixels_box_corners_first():
    given = prompt_to_model(sam2.Prompt("a", [(20, 12)], [0], box_xyxy=[0, 24, 80, 48]), SIZE_HW, 64)
    np.testing.assert_allclose(given.xy_model, [[0, 32], [64, 64], [16, 16]])
    assert given.labels.tolist() == [2, 3, 0] and given.mask is None
    points, labels = given.points(torch.device("cpu"))
    assert points.shape == (1, 3, 2) and labels.shape == (1, 3)
    assert not np.allclose(prompt_to_model(sam2.Prompt("a", [(12, 20)], [1]), SIZE_HW, 64).xy_model, [[16, 16]])


def test_given_mask():
    mask = np.zeros(SIZE_HW, bool)
    mask[:24] = True
    given = prompt_to_model(sam2.Prompt("a", mask=mask), SIZE_HW, 64)
    assert given.mask[:32].all() and not given.mask[32:].any()
    assert given.mask_tensor(torch.device("cpu")).shape == (1, 1, 64, 64)
    assert len(given.labels) == 0


def test_a_mask_that_is_lost_at_the_size_of_the_network_is_refused_before_anything_changes():
    tracker = sam2.Tracker(small_model())
    thin = np.zeros((480, 640), bool)
    thin[100, 50:400] = True
    large = sam2.Frame(np.zeros((480, 640, 3), np.uint8), 1)
    sentence = r"mask: expected .* the network's 64x64 pixels, got 350 of 640x480 pixels, .*; give a point or a box"
    for refuse in (tracker.check, lambda prompt, frame: tracker.step(frame, [click("b"), prompt])):
        with pytest.raises(sam2.BadInput, match=sentence):
            refuse(sam2.Prompt("a", mask=thin), large)
    assert tracker.object_ids == []
    tracker.check(sam2.Prompt("a", mask=np.zeros_like(thin)), large)  # which says that it is not there
    thin[95:105, 50:400] = True
    tracker.check(sam2.Prompt("a", mask=thin), large)


def kinds() -> dict[str, ModelPrompt]:
    prompts = {
        "click": click("a"),
        "other": click("a", 9, 9, 0),
        "box": sam2.Prompt("a", box_xyxy=[1, 2, 30, 40]),
        "mask": disc("a"),
    }
    return {name: prompt_to_model(prompt, SIZE_HW, 64) for name, prompt in prompts.items()}


@pytest.mark.parametrize(
    ("first", "second", "labels"),
    [
        ("click", "other", [1, 0]),
        ("box", "other", [2, 3, 0]),
        ("click", "box", [2, 3]),
        ("mask", "click", [1]),
        ("click", "mask", []),
    ],
)
def test_clicks_add_up_box_and_mask_start_over(first, second, labels):
    given = kinds()[first].add(kinds()[second], LIMITS)
    assert given.labels.tolist() == labels and len(given.xy_model) == len(labels)
    assert (given.mask is not None) == (second == "mask")
    if labels:
        np.testing.assert_array_equal(given.xy_model[-1], kinds()[second].xy_model[-1])


def test_adding_is_limited():
    given = kinds()["box"].add(kinds()["click"], LIMITS)
    with pytest.raises(sam2.LimitReached, match="at most 3 points on one frame of one object, got 4 .* REPLACE"):
        given.add(kinds()["click"], LIMITS)
    assert given.add(kinds()["box"], LIMITS).labels.tolist() == [2, 3]
