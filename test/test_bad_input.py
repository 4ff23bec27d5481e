"""What the official-style predictors refuse: the argument is named and nothing has changed, by fingerprint."""

import numpy as np
import pytest
import torch
from nano_video import HEIGHT, WIDTH, fingerprint, frames, masks_by_frame, nano_predictor, write_jpegs
from PIL import Image

from sam2.errors import BadInput, UnknownObject
from sam2.sam2_image_predictor import SAM2ImagePredictor

NAN = float("nan")
ONE = {"points": [[10, 10]], "labels": [1]}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A predictor and a state with two objects, one of them tracked, and a prompt not yet propagated."""
    predictor = nano_predictor()
    state = predictor.init_state(str(write_jpegs(tmp_path_factory.mktemp("clip"))))
    predictor.add_new_points_or_box(state, 0, 1, **ONE)
    masks_by_frame(predictor, state, max_frame_num_to_track=2)
    predictor.add_new_points_or_box(state, 3, 2, **ONE)
    return predictor, state


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"points": [[10, 10]]}, r"points and labels: expected both or neither, got one"),
        ({"labels": [1]}, r"points and labels: expected both or neither, got one"),
        ({}, r"prompt: expected points, a box, or both, got neither"),
        ({"points": [[10, NAN]], "labels": [1]}, r"points: expected finite .*got NaN"),
        ({"points": [10, 10], "labels": [1]}, r"points: expected shape \(K, 2\), got \(2,\)"),
        ({"points": [[10]], "labels": [1]}, r"points: expected shape \(K, 2\), got \(1, 1\)"),
        ({"points": [[[10, 10]]] * 2, "labels": [1]}, r"points: expected shape \(K, 2\), got \(2, 1, 2\)"),
        ({"points": [["a", "b"]], "labels": [1]}, r"points: expected numbers"),
        ({"points": [[10, 10]], "labels": [1, 0]}, r"labels: expected one per point, shape \(1,\), got \(2,\)"),
        ({"points": [[10, 10]], "labels": [4]}, r"labels: expected 1, 0 .*got 4"),
        ({"points": [[10, 10]], "labels": [0.5]}, r"labels: expected 1, 0 .*got 0.5"),
        ({"box": [10, 10, 20]}, r"box: expected 4 numbers .*got 3"),
        ({"box": [10, NAN, 20, 20]}, r"box: expected finite .*got NaN"),
        ({"box": [10, 10, 20, 20], "clear_old_points": False}, r"box: .*clear_old_points=True"),
        (ONE | {"frame_idx": 6}, r"frame_idx: expected an integer in 0..5, got 6"),
        (ONE | {"frame_idx": -1}, r"frame_idx: .*got -1"),
        (ONE | {"frame_idx": 1.0}, r"frame_idx: expected an integer .*got 1.0"),
    ],
)
@pytest.mark.parametrize("obj_id", [1, "new"])
def test_video_points(session, arguments, says, obj_id):
    predictor, state = session
    before = fingerprint(state)
    with pytest.raises(BadInput, match=says):
        predictor.add_new_points_or_box(state, **{"frame_idx": 1, "obj_id": obj_id} | arguments)
    assert fingerprint(state) == before


@pytest.mark.parametrize(
    ("mask", "frame", "says"),
    [
        (np.zeros((HEIGHT, WIDTH - 1), bool), 0, r"mask: expected the video's size \(60, 96\) .*got shape \(60, 95\)"),
        (np.zeros((1, HEIGHT, WIDTH), bool), 0, r"mask: .*got shape \(1, 60, 96\)"),
        (np.zeros((0, 0), bool), 0, r"mask: .*got shape \(0, 0\)"),
        (np.full((HEIGHT, WIDTH), NAN), 0, r"mask: expected finite"),
        (None, 0, r"mask: expected an array or a tensor of numbers, got NoneType"),
        ("cup", 0, r"mask: expected an array or a tensor of numbers, got str"),
        (np.zeros((HEIGHT, WIDTH), complex), 0, r"mask: expected real numbers, got torch.complex128"),
        (np.zeros((HEIGHT, WIDTH), bool), 6, r"frame_idx: .*got 6"),
    ],
)
def test_video_mask(session, mask, frame, says):
    predictor, state = session
    before = fingerprint(state)
    with pytest.raises(BadInput, match=says):
        predictor.add_new_mask(state, frame, "new", mask)
    assert fingerprint(state) == before


def test_video_objects_and_frames(session):
    predictor, state = session
    before = fingerprint(state)
    with pytest.raises(UnknownObject, match=r"obj_id: expected one of \[1, 2\], got 'cup'"):
        predictor.remove_object(state, "cup", strict=True)
    with pytest.raises(UnknownObject, match="got 3"):
        predictor.clear_all_prompts_in_frame(state, 0, 3)
    with pytest.raises(BadInput, match="frame_idx: .*got 9"):
        predictor.clear_all_prompts_in_frame(state, 9, 1)
    with pytest.raises(BadInput, match="start_frame_idx: expected an integer >= 0, got -1"):
        next(predictor.propagate_in_video(state, start_frame_idx=-1))
    with pytest.raises(BadInput, match="start_frame_idx: expected an integer up to 5, got 6"):
        next(predictor.propagate_in_video(state, start_frame_idx=6, reverse=True))
    with pytest.raises(BadInput, match="start_frame_idx: .*got 1.0"):
        next(predictor.propagate_in_video(state, start_frame_idx=1.0))
    assert fingerprint(state) == before


def test_the_fingerprint_sees_a_change(session):
    predictor, state = session
    before = fingerprint(state)
    assert fingerprint(state) == before
    result = state.objects[2].new_prompted[3]
    with torch.inference_mode():
        result.logits[0, 0, 0, 0] += 1
    assert fingerprint(state) != before
    with torch.inference_mode():
        result.logits[0, 0, 0, 0] -= 1


@pytest.fixture(scope="module")
def image_predictor(session):
    predictor = SAM2ImagePredictor(session[0])
    predictor.set_image(frames()[0])
    return predictor


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (frames()[0].astype(np.float32), r"\(60, 96, 3\) float32"),
        (frames()[0][..., 0], r"\(60, 96\) uint8"),
        (np.zeros((60, 96, 4), np.uint8), r"\(60, 96, 4\) uint8"),
        (np.zeros((0, 96, 3), np.uint8), r"\(0, 96, 3\) uint8"),
        (torch.zeros(60, 96, 3, dtype=torch.uint8), "Tensor"),
        ("cat.jpg", "str"),
    ],
)
def test_images(image_predictor, image, got):
    before = fingerprint(image_predictor._features)
    says = r"image: expected a non-empty \(H, W, 3\) uint8 array in RGB order, got " + got
    with pytest.raises(BadInput, match=says):
        image_predictor.set_image(image)
    with pytest.raises(BadInput, match=says):
        image_predictor.set_image_batch([frames()[1], image])
    assert fingerprint(image_predictor._features) == before


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_pil_images_of_more_than_8_bits(image_predictor, dtype):
    before = fingerprint(image_predictor._features)
    with pytest.raises(BadInput, match="image: expected channels of 8 bits, got a PIL image of mode [IF]"):
        image_predictor.set_image(Image.fromarray(frames()[0][..., 0].astype(dtype)))
    assert fingerprint(image_predictor._features) == before


def test_image_batches(image_predictor):
    with pytest.raises(BadInput, match="image_list: expected a non-empty list"):
        image_predictor.set_image_batch([])
    with pytest.raises(BadInput, match="image_list: expected a non-empty list of images, got ndarray"):
        image_predictor.set_image_batch(frames())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"point_coords": [[10, 10]]}, r"point_labels: expected one label per point, got none"),
        ({"point_coords": [[10, NAN]], "point_labels": [1]}, r"point_coords: expected finite"),
        ({"point_coords": [], "point_labels": []}, r"point_coords: .*N > 0, got \(0,\)"),
        ({"point_coords": np.zeros((0, 1, 2)), "point_labels": []}, r"point_coords: .*N > 0, got \(0, 1, 2\)"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": [1]}, r"labels: expected one per point"),
        ({"point_coords": [10, 10], "point_labels": [1]}, r"point_coords: expected shape \(K, 2\) or \(N, K, 2\)"),
        ({"point_coords": [[10, 10]], "point_labels": [1, 1]}, r"labels: expected one per point"),
        ({"point_coords": [[10, 10]], "point_labels": [7]}, r"labels: expected 1, 0 .*got 7"),
        ({"box": [[1, 1, 9, 9], [10, NAN, 20, 20]]}, r"box: expected finite .*got NaN"),
        ({"box": [1, 1, 9]}, r"box: expected shape \(4,\) or \(N, 4\), N > 0, got \(3,\)"),
        ({"box": np.zeros((0, 4))}, r"box: expected shape \(4,\) or \(N, 4\), N > 0, got \(0, 4\)"),
        ({"box": [1, 1, 9, 9], "point_coords": [], "point_labels": [1]}, r"labels: expected one per point"),
        (
            {"box": [[1, 1, 9, 9]] * 2, "point_coords": [[10, 10]], "point_labels": [1]},
            r"box and point_coords: expected as many prompts in both, got \[2, 1\]",
        ),
        ({"mask_input": np.zeros((1, 60, 96))}, r"mask_input: expected shape \(1, 64, 64\), got \(1, 60, 96\)"),
        (
            {"mask_input": np.zeros((3, 1, 64, 64)), "box": [[1, 1, 9, 9]] * 2},
            r"mask_input: expected one, or one for each of 2 prompts, got 3",
        ),
        ({"mask_input": np.full((1, 64, 64), NAN)}, r"mask_input: expected finite"),
    ],
)
def test_image_prompts(image_predictor, arguments, says):
    before = fingerprint(image_predictor._features)
    with pytest.raises(BadInput, match=says):
        image_predictor.predict(**arguments)
    assert fingerprint(image_predictor._features) == before


def test_prompts_before_an_image(session):
    predictor = SAM2ImagePredictor(session[0])
    for ask in (predictor.predict, predictor.predict_batch, predictor.get_image_embedding):
        with pytest.raises(RuntimeError, match="must be set"):
            ask()
    predictor.set_image(Image.fromarray(frames()[0]))
    with pytest.raises(RuntimeError, match="set_image_batch"):
        predictor.predict_batch()
