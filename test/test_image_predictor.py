"""The official image predictor's interface, on a nano network with pseudo-random weights (numbers: test_golden.py)."""

import numpy as np
import pytest
import torch
from golden_mutations import around
from nano_video import HEIGHT, WIDTH, frames, nano_predictor
from PIL import Image

from sam2.mask_decoder import MaskDecoder
from sam2.sam2_image_predictor import SAM2ImagePredictor

POINT = {"point_coords": np.array([[18, 30]]), "point_labels": np.array([1])}
BOXES = np.array([[10, 20, 30, 40], [50, 5, 90, 50], [-5, 10, 40, 61]])  # a detector's may stand out of the image


@pytest.fixture(scope="module")
def model():
    return nano_predictor()


@pytest.fixture
def predictor(model):
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(frames()[0])
    return predictor


def close(got, expected) -> bool:
    return all(np.allclose(a, b, atol=1e-4) for a, b in zip(got, expected, strict=True))


def test_existing_script_runs_unchanged(model):
    """The steps of upstream's image example: three masks, the best of them refined by two clicks."""
    from sam2.build_sam import build_sam2

    torch.manual_seed(0)
    sam2_model = build_sam2("configs/sam2.1/sam2.1_hiera_nano.yaml", None, device="cpu")
    predictor = SAM2ImagePredictor(sam2_model)
    predictor.set_image(np.array(Image.fromarray(frames()[0]).convert("RGB")))
    masks, scores, logits = predictor.predict(**POINT, multimask_output=True)
    order = np.argsort(scores)[::-1]
    masks, scores, logits = masks[order], scores[order], logits[order]
    assert masks.shape == (3, HEIGHT, WIDTH) and scores.shape == (3,) and logits.shape == (3, 64, 64)
    masks, scores, _ = predictor.predict(
        point_coords=np.array([[18, 30], [60, 30]]),
        point_labels=np.array([1, 0]),
        mask_input=logits[np.argmax(scores), :, :][None, :, :],
        multimask_output=False,
    )
    assert masks.shape == (1, HEIGHT, WIDTH) and scores.shape == (1,)


def test_what_upstream_keeps_of_an_image_has_its_private_name(model, predictor):
    """Its notebooks print it; scripts for fine-tuning decode it."""
    kept = predictor._features
    assert torch.equal(kept["image_embed"], predictor.get_image_embedding())
    sides = [feature.shape[-1] for feature in (*kept["high_res_feats"], kept["image_embed"])]
    assert sides == [model.image_size // stride for stride in (4, 8, 16)]
    assert predictor._is_image_set
    predictor.reset_predictor()
    assert predictor._features is None and not predictor._is_image_set


@pytest.mark.parametrize("name", ["_predict", "_prep_prompts", "_transforms", "_bb_feat_sizes"])
def test_upstream_s_private_parts_are_missing_in_a_sentence(predictor, name):
    assert not hasattr(predictor, name)
    with pytest.raises(AttributeError, match=f"SAM2ImagePredictor.{name}: a private part of Meta's own sam2"):
        getattr(predictor, name)
    with pytest.raises(AttributeError, match="'SAM2ImagePredictor' object has no attribute 'predict_torch'"):
        predictor.predict_torch  # noqa: B018


def test_what_was_kept_of_an_image_can_be_put_back(model, predictor):
    """As scripts do that encode images once, in another process or predictor."""
    other = SAM2ImagePredictor(model)
    other._features, other._orig_hw, other._is_image_set = predictor._features, predictor._orig_hw, True
    assert close(other.predict(**POINT, return_logits=True), predictor.predict(**POINT, return_logits=True))
    assert torch.equal(other.get_image_embedding(), predictor.get_image_embedding())


def test_masks_are_the_thresholded_logits(predictor):
    masks, iou, low_res = predictor.predict(**POINT)
    logits, same_iou, same_low_res = predictor.predict(**POINT, return_logits=True)
    assert masks.dtype == logits.dtype == iou.dtype == low_res.dtype == np.float32
    assert (masks == (logits > 0)).all() and 0 < masks.mean() < 1
    assert (iou == same_iou).all() and (low_res == same_low_res).all()
    assert abs(low_res).max() <= 32


def test_threshold(model):
    predictor = SAM2ImagePredictor(model, mask_threshold=0.5)
    predictor.set_image(frames()[0])
    assert (predictor.predict(**POINT)[0] == (predictor.predict(**POINT, return_logits=True)[0] > 0.5)).all()


def test_pil_image_is_the_same_image(model, predictor):
    other = SAM2ImagePredictor(model)
    other.set_image(Image.fromarray(frames()[0]))
    assert torch.equal(other.get_image_embedding(), predictor.get_image_embedding())
    assert other.get_image_embedding().shape == (1, 128, 16, 16)


def test_boxes_together_equal_boxes_alone(predictor):
    masks, iou, low_res = predictor.predict(box=BOXES, multimask_output=False)
    assert masks.shape == (3, 1, HEIGHT, WIDTH) and iou.shape == (3, 1) and low_res.shape == (3, 1, 64, 64)
    together = predictor.predict(box=BOXES, multimask_output=False, return_logits=True)
    for i, box in enumerate(BOXES):
        alone = predictor.predict(box=box, multimask_output=False, return_logits=True)
        assert close(alone, [part[i] for part in together])
    assert not close([together[0][0]], [together[0][1]])


def test_points_of_several_prompts(predictor):
    coords = np.array([[[18, 30], [60, 10]], [[70, 30], [20, 10]]])  # (N, K, 2)
    labels = np.array([[1, 0], [1, 0]])
    together = predictor.predict(coords, labels, return_logits=True)
    assert together[0].shape == (2, 3, HEIGHT, WIDTH)
    alone = predictor.predict(coords[1], labels[1], return_logits=True)
    assert close(alone, [part[1] for part in together])


def test_a_box_comes_with_its_points(predictor):
    both = predictor.predict(**POINT, box=BOXES[0], multimask_output=False, return_logits=True)
    as_points = predictor.predict(
        point_coords=np.concatenate((BOXES[0].reshape(2, 2), POINT["point_coords"])),
        point_labels=np.array([2, 3, 1]),
        multimask_output=False,
        return_logits=True,
    )
    assert close(both, as_points)


def test_a_mask_alone_comes_with_no_token(predictor, monkeypatch):
    """A point comes with its padding; in video there is padding without a point, too."""
    tokens = []

    def decode(original, self, pixels, stride8, stride4, position, sparse):
        tokens.append(sparse.shape[1])
        return original(self, pixels, stride8, stride4, position, sparse)

    around(monkeypatch, MaskDecoder, "forward", decode)
    predictor.predict(mask_input=predictor.predict(**POINT)[2][:1])
    assert tokens == [2, 0]


def test_previous_mask_matters(predictor):
    low_res = predictor.predict(**POINT)[2]
    without = predictor.predict(**POINT, return_logits=True)
    given = predictor.predict(**POINT, mask_input=low_res[:1], return_logits=True)
    alone = predictor.predict(mask_input=low_res[:1], return_logits=True)
    assert not close(given[:1], without[:1]) and not close(given[:1], alone[:1])


@pytest.mark.parametrize("prompt", [POINT, {}], ids=["a point", "nothing else"])
def test_one_prompt_meets_several_masks(predictor, prompt):
    low_res = predictor.predict(**POINT)[2][:, None]  # (3, 1, 64, 64)
    together = predictor.predict(**prompt, mask_input=low_res, return_logits=True)
    assert together[0].shape == (3, 3, HEIGHT, WIDTH)
    for i, one in enumerate(low_res):
        alone = predictor.predict(**prompt, mask_input=one, return_logits=True)
        assert close(alone, [part[i] for part in together])
    assert not close([together[0][0]], [together[0][1]])


def test_several_prompts_meet_one_mask_or_one_each(predictor):
    low_res = predictor.predict(**POINT)[2][:2]  # (2, 64, 64)
    for masks in (low_res[:1], low_res[:, None]):
        together = predictor.predict(box=BOXES[:2], mask_input=masks, return_logits=True)
        for i, box in enumerate(BOXES[:2]):
            alone = predictor.predict(
                box=box, mask_input=masks.reshape(-1, 1, 64, 64)[i % len(masks)], return_logits=True
            )
            assert close(alone, [part[i] for part in together])


@pytest.mark.parametrize("shape", [(2, 2), (1, 4), (1, 1, 4), (3, 1, 4), (3, 2, 2)])
def test_boxes_come_in_any_shape_that_upstream_reshapes(predictor, shape):
    boxes = BOXES if shape[0] == 3 else BOXES[0]
    expected = predictor.predict(box=boxes, return_logits=True)
    assert close(predictor.predict(box=boxes.reshape(shape), return_logits=True), expected)


@pytest.mark.parametrize("box", [[50, 20, 50, 40], [90, 50, 50, 20], [100, 10, 120, 20]])
def test_any_box_is_answered(predictor, box):
    """As upstream: of a mask one pixel wide, with its corners the other way round, or out of the image."""
    alone = predictor.predict(box=np.array(box), return_logits=True)
    among = predictor.predict(box=np.array([BOXES[0], box]), return_logits=True)
    assert np.isfinite(alone[0]).all() and close(alone, [part[1] for part in among])
    assert not close(alone, [part[0] for part in among])


def test_a_box_with_no_point_is_a_box(predictor):
    expected = predictor.predict(box=BOXES[0], return_logits=True)
    for points in (np.zeros((0, 2)), np.zeros((1, 0, 2)), []):
        assert close(predictor.predict(points, np.zeros(0), box=BOXES[0], return_logits=True), expected)


def test_a_list_of_no_points_is_a_prompt(predictor):
    """As upstream: the padding that follows every list of points, which is missing if there is none."""
    mask = predictor.predict(**POINT)[2][:1]
    for given in ({}, {"mask_input": mask}):
        empty, batched = (
            predictor.predict(points, np.zeros(0), **given, return_logits=True)
            for points in (np.zeros((0, 2)), np.zeros((1, 0, 2)))
        )
        assert np.isfinite(empty[0]).all() and close(empty, batched)
        assert not close(empty, predictor.predict(**given, return_logits=True))


def test_labels_without_points_are_ignored(predictor):
    for prompt in ({"box": BOXES}, {"mask_input": predictor.predict(**POINT)[2][:1]}):
        expected = predictor.predict(**prompt, return_logits=True)
        assert close(predictor.predict(point_labels=np.array([1]), **prompt, return_logits=True), expected)


def test_padding_may_lie_anywhere(predictor):
    coords = np.array([[[18, 30], [60, 10]], [[70, 30], [-1, -1]]])
    labels = np.array([[1, 0], [1, -1]])
    outside = predictor.predict(coords, labels, return_logits=True)
    coords[1, 1] = 5
    assert close(outside, predictor.predict(coords, labels, return_logits=True))


def test_points_may_lie_outside_the_image_as_upstream(predictor):
    """As of a rectangle that reaches beyond the edge; each place has an answer of its own."""
    inside, beyond, far = (
        predictor.predict(np.array([[x, 30]]), np.array([1]), return_logits=True) for x in (WIDTH, WIDTH + 1, 3 * WIDTH)
    )
    assert not close(inside, beyond) and not close(beyond, far) and np.isfinite(far[0]).all()


def test_prompts_may_be_flipped_arrays(predictor):
    """As of rows and columns, which become x and y."""
    rows_and_columns, logits = np.array([[30, 24]], np.float32), np.eye(64, dtype=np.float32)[None]
    flipped = predictor.predict(rows_and_columns[:, ::-1], np.array([1]), mask_input=logits[..., ::-1])
    plain = predictor.predict([[24, 30]], [1], mask_input=logits[..., ::-1].copy())
    assert close(flipped, plain)


def test_points_in_fractions_of_the_image(predictor):
    in_pixels = predictor.predict(np.array([[24, 30]]), np.array([1]), return_logits=True)
    in_fractions = predictor.predict(np.array([[0.25, 0.5]]), np.array([1]), return_logits=True, normalize_coords=False)
    assert close(in_pixels, in_fractions)


def test_batch_equals_one_by_one(model):
    images = [frames()[0], np.ascontiguousarray(frames()[3][:, :64])]
    predictor = SAM2ImagePredictor(model)
    predictor.set_image_batch(images)
    masks, ious, low_res = predictor.predict_batch(
        [POINT["point_coords"]] * 2, [POINT["point_labels"]] * 2, return_logits=True
    )
    assert [m.shape for m in masks] == [(3, HEIGHT, WIDTH), (3, HEIGHT, 64)]
    stacked = predictor.predict_batch(
        np.stack([POINT["point_coords"]] * 2), np.stack([POINT["point_labels"]] * 2), return_logits=True
    )
    assert all(close(one, other) for one, other in zip(stacked, (masks, ious, low_res), strict=True))
    with pytest.raises(ValueError, match=r"one entry per image \(2\) in each batch, got 1"):
        predictor.predict_batch(box_batch=[BOXES])
    boxed = predictor.predict_batch(box_batch=[BOXES, BOXES[:1]], multimask_output=False)[0]
    assert [m.shape for m in boxed] == [(3, 1, HEIGHT, WIDTH), (1, HEIGHT, 64)]
    for i, image in enumerate(images):
        predictor.set_image(image)
        assert close(predictor.predict(**POINT, return_logits=True), (masks[i], ious[i], low_res[i]))


def test_a_new_image_replaces_the_old(predictor):
    before = predictor.predict(**POINT, return_logits=True)
    predictor.set_image(frames()[4])
    assert not close(predictor.predict(**POINT, return_logits=True)[:1], before[:1])
    predictor.set_image(frames()[0])
    assert close(predictor.predict(**POINT, return_logits=True), before)
    predictor.reset_predictor()
    with pytest.raises(RuntimeError, match="must be set"):
        predictor.predict(**POINT)


@pytest.mark.parametrize(
    ("option", "value", "turned"), [("max_hole_area", -1.0, 10.0), ("max_sprinkle_area", 1.0, -10.0)]
)
def test_specks_are_turned_over(model, option, value, turned):
    """A patch of 2 x 2 low-res pixels: turned over up to its area, left alone below."""
    logits = torch.full((1, 1, 64, 64), -value)
    logits[..., 5:7, 5:7] = value
    at_limit = SAM2ImagePredictor(model, **{option: 4})._without_specks(logits)
    below = SAM2ImagePredictor(model, **{option: 3})._without_specks(logits)
    assert (at_limit[..., 5:7, 5:7] == turned).all() and (at_limit == -value).sum() == 64 * 64 - 4
    assert torch.equal(below, logits)
