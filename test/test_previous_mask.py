"""What a click is handed of the answer before it: logits clamped to +-32, as the official predictors do.

A present object's logits hardly reach that; an absent one's are all -1024, and a click brings it back.
"""

import numpy as np
import pytest
import torch
from golden_mutations import around
from small_stream import CONFIG, SIZE_HW, click, images, made_on, run, small_model

import sam2
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.model import SAM2
from sam2.preprocess import to_model_input
from sam2.prompt_encoder import PromptEncoder
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import VideoState

ABSENT, LOUD = {-32.0}, {-32.0, 32.0}  # what is handed on of an answer that is absent, or a thousand times too sure


@pytest.fixture
def handed(monkeypatch) -> list[torch.Tensor]:
    """The masks that the prompt encoder is given, in order."""
    masks: list[torch.Tensor] = []

    def dense(original, self, mask):
        masks.extend([] if mask is None else [mask.clone()])
        return original(self, mask)

    around(monkeypatch, PromptEncoder, "dense", dense)
    return masks


@pytest.fixture(params=[ABSENT, LOUD], ids=["absent", "loud"])
def extremes(request, monkeypatch) -> set[float]:
    """Tracked answers are absent, or of logits that are a thousand times as large; what is expected of them."""

    def decode(original, self, features, pixels, xy=None, labels=None, mask_input=None):
        decoded = original(self, features, pixels, xy, labels, mask_input)
        if xy is not None:
            return decoded
        if request.param == ABSENT:
            return decoded._replace(object_score=torch.full_like(decoded.object_score, -2.0))
        return decoded._replace(masks=decoded.masks * 1e3, object_score=torch.ones_like(decoded.object_score))

    around(monkeypatch, SAM2, "decode", decode)
    return request.param


def extremes_of(mask: torch.Tensor) -> set[float]:
    return {float(mask.min()), float(mask.max())}


@pytest.mark.parametrize("frame", [2, 1], ids=["on time", "late"])
def test_a_click_in_a_stream_refines_clamped_logits(frame, extremes, handed):
    again = made_on(frame, click("a", 30, 20))
    run(sam2.Tracker(small_model()), range(3), {0: [click("a")], 2: [again]})
    assert [extremes_of(mask) for mask in handed] == [extremes]


def test_a_click_in_a_loaded_clip_refines_clamped_logits(extremes, handed):
    predictor = SAM2VideoPredictor(CONFIG, fill_hole_area=8)
    predictor.load_state_dict(small_model().state_dict())
    cpu = torch.device("cpu")
    state = VideoState([to_model_input(rgb, CONFIG.image_size) for rgb in images()[:4]], *SIZE_HW, cpu, cpu)
    predictor.eval().add_new_points_or_box(state, 0, 1, points=[[20, 15]], labels=[1])
    for _ in predictor.propagate_in_video(state):
        pass
    assert not handed
    predictor.add_new_points_or_box(state, 2, 1, points=[[30, 20]], labels=[1])
    assert [extremes_of(mask) for mask in handed] == [extremes]


@pytest.fixture
def loud_images(monkeypatch) -> SAM2ImagePredictor:
    """An image predictor whose logits are a thousand times as large."""

    def decode(original, *args):
        logits, iou = original(*args)
        return logits * 1e3, iou

    around(monkeypatch, SAM2ImagePredictor, "_decode", decode)
    predictor = SAM2ImagePredictor(small_model())
    predictor.set_image(images()[0])
    return predictor


def test_low_res_logits_of_an_image_are_clamped_and_its_masks_are_not(loud_images):
    point = {"point_coords": np.array([[20, 15]]), "point_labels": np.array([1])}
    logits, _, low_res = loud_images.predict(**point, return_logits=True)
    assert extremes_of(torch.from_numpy(low_res)) == LOUD
    assert abs(logits).max() > 100


def test_a_second_look_of_the_automatic_masks_refines_clamped_logits(loud_images, handed):
    generator = SAM2AutomaticMaskGenerator(
        small_model(), points_per_side=2, use_m2m=True, pred_iou_thresh=-1e9, stability_score_thresh=-1.0
    )
    generator.generate(images()[0])
    assert handed and {value for mask in handed for value in extremes_of(mask)} == LOUD
