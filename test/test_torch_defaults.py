"""Programs that change PyTorch's default number format or device get the same numbers: sums of robotics and of Gaussian
processes run in float64, language models are loaded in bfloat16, and some programs put every new tensor on the GPU."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import pytest
import torch
from nano_video import HEIGHT, WIDTH, fingerprint, frames, nano_predictor, write_jpegs
from small_stream import click, disc, frame, small_model, stamp

import sam2
from sam2 import preprocess
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS: dict[str, Callable[[], AbstractContextManager]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    # In the place of a GPU beside the model's device: what is put there by mistake fails wherever it is used.
    "device": lambda: torch.device("meta"),
}


def stream(_, tmp_path) -> object:
    tracker = sam2.Tracker(small_model())
    answers = [tracker.step(frame(0), [click("cup"), disc("mug"), sam2.Prompt("box", box_xyxy=[5, 5, 40, 30])])]
    answers.append(tracker.step(frame(1), [click("cup", 25)]))
    answers += [tracker.prompt([click("mug", stamp_ns=stamp(0))]), tracker.step(frame(2))]
    tracker.save(tmp_path / "objects")
    tracker.reset()
    tracker.restore(tmp_path / "objects")
    answers.append(tracker.step(frame(3)))
    return [[vars(track) for track in tracks] for tracks in answers]


def image(model, _) -> object:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(frames()[0])
    points = {"point_coords": np.array([[18, 30]]), "point_labels": np.array([1])}
    answer = predictor.predict(**points)
    more = [predictor.predict(**points, box=np.array([10, 20, 30, 40]), mask_input=answer[2][:1]), predictor.predict()]
    options = {"points_per_side": 3, "pred_iou_thresh": 0.1, "stability_score_thresh": 0.1, "use_m2m": True}
    return answer, more, SAM2AutomaticMaskGenerator(model, **options).generate(frames()[0])


def video(predictor, tmp_path) -> object:
    state = predictor.init_state(write_jpegs(tmp_path / "clip"))
    answers = [predictor.add_new_points_or_box(state, 0, 1, points=[[18, 30]], labels=[1])[2].clone()]
    answers.append(predictor.add_new_points_or_box(state, 0, 2, box=[10, 20, 30, 40])[2].clone())
    answers.append(predictor.add_new_mask(state, 2, 3, np.ones((HEIGHT, WIDTH), bool))[2].clone())
    return answers + [masks for _, _, masks in predictor.propagate_in_video(state, max_frame_num_to_track=2)]


@pytest.fixture(scope="module")
def predictor():
    return nano_predictor(hydra_overrides_extra=["++model.image_size=64"])  # a quarter of its side: faster


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("use", [stream, image, video])
def test_the_numbers_are_those_of_pytorchs_own_defaults(use, default, predictor, tmp_path):
    expected = use(predictor, tmp_path)
    preprocess._statistics.cache_clear()  # as in a program whose first image comes while another default holds
    with DEFAULTS[default]():
        got = use(predictor, tmp_path)
    preprocess._statistics.cache_clear()
    assert fingerprint(arrays_as_tensors(got)) == fingerprint(arrays_as_tensors(expected))


def arrays_as_tensors(value: object) -> object:
    if isinstance(value, dict):
        return {key: arrays_as_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [arrays_as_tensors(item) for item in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16, None], ids=str)
def test_a_model_is_built_in_float32(default):
    with default_dtype(default) if default else nullcontext():
        model = build_sam2("nano", device="cpu")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
