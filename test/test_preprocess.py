"""Both official image paths, prompts and logits, against recorded official numbers and against one another."""

from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_recipe import synthetic_clip
from PIL import Image

from sam2 import preprocess
from sam2.errors import BadInput
from sam2.model import Features
from sam2.training import clips

GOLDEN = np.load(Path(__file__).parent / "golden" / "preproc.npz")
SIDE = 1024
MEAN, STD = (torch.tensor(values)[:, None, None] for values in (preprocess.MEAN, preprocess.STD))
NOISE = np.random.RandomState(1).randint(0, 256, (120, 168, 3), dtype=np.uint8)


def frame(size: str) -> np.ndarray:
    first = synthetic_clip()[0]
    if size == "480x640":
        return first
    return np.array(Image.fromarray(first).resize((1600, 1200)))


def grey_levels(normalised: torch.Tensor) -> torch.Tensor:
    return normalised * STD * 255


# Images


@pytest.mark.parametrize("size", ["480x640", "1200x1600"])
def test_the_video_path_is_the_official_one_to_the_bit(size):
    ours = preprocess.to_model_input(frame(size), SIDE)
    assert ours.shape == (3, SIDE, SIDE) and ours.dtype == torch.float32 and ours.is_contiguous()
    expected = GOLDEN[f"video_{size}_norm_sub16"]
    assert np.array_equal(ours[:, ::16, ::16].numpy(), expected)
    assert np.array_equal(ours.double().mean(dim=(1, 2)).numpy().round(12), GOLDEN[f"video_{size}_norm_mean"].round(12))
    pixels = (ours * STD + MEAN).mul(255).round().byte()
    resized = pixels.permute(1, 2, 0).contiguous().numpy()
    assert np.array_equal(resized[::8, ::8], GOLDEN[f"video_{size}_u8_sub8"])
    assert sha256(resized.tobytes()).hexdigest() == str(GOLDEN[f"video_{size}_u8_sha256"])


@pytest.mark.parametrize("size", ["480x640", "1200x1600"])
def test_the_image_predictors_path_is_the_official_one(size):
    ours = preprocess.to_image_predictor_input(frame(size), SIDE)
    assert ours.shape == (3, SIDE, SIDE) and ours.dtype == torch.float32
    expected = GOLDEN[f"image_{size}_norm_sub16"]
    assert np.abs(ours[:, ::16, ::16].numpy() - expected).max() < 1e-5
    assert np.abs(ours.double().mean(dim=(1, 2)).numpy() - GOLDEN[f"image_{size}_norm_mean"]).max() < 1e-6


@pytest.mark.parametrize("size", ["480x640", "1200x1600"])
def test_plausible_mistakes_are_seen(size):
    """Each of them is a path somebody took: the recorded numbers tell it from the right one."""
    rgb = frame(size)
    video, image = GOLDEN[f"video_{size}_norm_sub16"], GOLDEN[f"image_{size}_norm_sub16"]
    assert np.abs(preprocess.to_model_input(rgb, SIDE)[:, ::16, ::16].numpy() - image).max() > 1e-3
    assert np.abs(preprocess.to_image_predictor_input(rgb, SIDE)[:, ::16, ::16].numpy() - video).max() > 1e-3
    assert np.abs(preprocess.to_model_input(rgb[..., ::-1], SIDE)[:, ::16, ::16].numpy() - video).max() > 1
    without_antialias = F.interpolate(
        preprocess.as_pixels(rgb).permute(2, 0, 1)[None] / 255, (SIDE, SIDE), mode="bilinear"
    )
    normalised = (without_antialias[0] - MEAN) / STD
    worst = np.abs(normalised[:, ::16, ::16].numpy() - image).max()
    assert worst > 0.1 if size == "1200x1600" else worst < 1e-3  # antialiasing acts only on what shrinks


def levels_off(rgb: np.ndarray, side: int) -> torch.Tensor:
    """How many grey levels the device path is off, per value."""
    exact = preprocess.to_model_input(rgb, side)
    fast = preprocess.to_model_input_on_device(torch.from_numpy(rgb), side)
    assert fast.shape == (1, 3, side, side) and fast.dtype == torch.float32
    return grey_levels(fast[0] - exact).abs()


@pytest.mark.parametrize("hw", [(480, 640), (720, 1280), (1280, 720), (33, 1500), (900, 60), (480, 400), (1024, 1024)])
@pytest.mark.parametrize("side", [256, 1024])
def test_the_device_path_equals_the_exact_one_nearly_everywhere(hw, side):
    """On noise, the worst case: bicubic overshoots everywhere, and rounding to 8 bits between the passes cuts it."""
    off = levels_off(np.random.RandomState(0).randint(0, 256, (*hw, 3), dtype=np.uint8), side)
    assert off.max() < 1.001 and (off > 0.5).float().mean() < 2e-4


def test_the_device_path_in_one_pass_would_not_be():
    one_pass = F.interpolate(
        preprocess.as_pixels(NOISE).permute(2, 0, 1)[None].float(), (SIDE, SIDE), mode="bicubic", antialias=True
    )
    one_pass = (one_pass[0].clamp(0, 255).round() / 255 - MEAN) / STD
    assert grey_levels(one_pass - preprocess.to_model_input(NOISE, SIDE)).abs().max() > 5


@pytest.mark.parametrize("hw", [(120, 168), (900, 60)])
def test_the_order_of_the_axes_matters(hw, monkeypatch):
    rgb = np.random.RandomState(0).randint(0, 256, (*hw, 3), dtype=np.uint8)
    right = preprocess._columns_first(*hw, 256)
    monkeypatch.setattr(preprocess, "_columns_first", lambda *args: not right)
    assert levels_off(rgb, 256).max() > 5


def test_strided_and_read_only_images_are_taken_and_kept():
    bgr = np.ascontiguousarray(NOISE[..., ::-1])
    view = bgr[..., ::-1]
    view.flags.writeable = False
    before = view.copy()
    for path in (preprocess.to_model_input, preprocess.to_image_predictor_input):
        assert torch.equal(path(view, 64), path(NOISE, 64))
    assert torch.equal(preprocess.as_pixels(view), torch.from_numpy(NOISE))
    preprocess.as_pixels(view).zero_()
    assert np.array_equal(view, before)


@pytest.mark.parametrize(
    ("rgb", "got"),
    [
        (np.zeros((4, 4, 3), np.float32), r"\(4, 4, 3\) float32"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\) uint8"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\) uint8"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\) uint8"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\) uint8"),
        (np.zeros((4, 4, 3), bool), r"\(4, 4, 3\) bool"),
        ([[1, 2, 3]], "list"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_image_is_refused(rgb, got):
    for refusing in (
        lambda: preprocess.check_rgb(rgb, "front"),
        lambda: preprocess.to_model_input(rgb, 64),
        lambda: preprocess.to_image_predictor_input(rgb, 64),
    ):
        with pytest.raises(BadInput, match=rf"(front|rgb): expected a non-empty \(H, W, 3\) uint8 .*, got {got}"):
            refusing()


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (1, 4, 4, 3)])
def test_what_is_no_image_tensor_is_refused(shape):
    with pytest.raises(BadInput, match="rgb: expected a non-empty"):
        preprocess.to_model_input_on_device(torch.zeros(shape, dtype=torch.uint8), 64)
    with pytest.raises(BadInput, match=r"float32"):
        preprocess.to_model_input_on_device(torch.zeros(4, 4, 3), 64)


# Prompts and logits


def test_points_and_boxes_scale_each_axis_by_its_own_side():
    points = preprocess.points_to_model([[0, 0], [640, 480], [320, 120]], (480, 640), SIDE)
    assert points.dtype == torch.float32
    assert points.tolist() == [[0, 0], [1024, 1024], [512, 256]]
    assert preprocess.box_to_model([320, 120, 640, 480], (480, 640), SIDE).tolist() == [[512, 256], [1024, 1024]]
    swapped = preprocess.points_to_model([[320, 120]], (640, 480), SIDE)
    assert swapped.tolist() != [[512, 256]]


def test_points_round_as_the_official_code_does():
    """Divide by the image's side, then multiply by the input's, in float32: other orders differ in the last bit."""
    xy = np.random.RandomState(0).uniform(0, 640, (200, 2))
    official = torch.tensor(xy, dtype=torch.float32) / torch.tensor([641, 479], dtype=torch.float32) * SIDE
    ours = preprocess.points_to_model(xy, (479, 641), SIDE)
    assert torch.equal(ours, official)
    other_order = torch.tensor(xy, dtype=torch.float32) * (SIDE / torch.tensor([641, 479], dtype=torch.float32))
    assert not torch.equal(ours, other_order)
    batched = torch.from_numpy(xy).reshape(50, 4, 2)
    assert torch.equal(preprocess.points_to_model(batched, (479, 641), SIDE).reshape(-1, 2), ours)


def disc(cx: int, cy: int, radius: int) -> np.ndarray:
    y, x = np.mgrid[:480, :640]
    return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2


def test_mask_prompts_are_the_official_ones():
    given = disc(500, 300, 45)
    assert given.sum() == GOLDEN["mask_disc_500_300_45_video_area"]
    at_input = preprocess.masks_to_model(given[None], SIDE)
    assert at_input.shape == (1, 1, SIDE, SIDE) and at_input.dtype == torch.float32
    assert np.array_equal(np.packbits(at_input[0, 0].bool().numpy()), GOLDEN["mask_1024_packbits"])
    assert at_input.sum() == GOLDEN["mask_1024_area"]
    low_res = preprocess.mask_logits(at_input)
    assert low_res.shape == (1, 1, SIDE // 4, SIDE // 4)
    crop = low_res[0, 0, 120:204, 160:240].numpy()
    assert np.abs(crop - GOLDEN["mask_low256_f32_crop"]).max() < 1e-5
    assert (low_res > 0).sum() == GOLDEN["mask_low_area_pos"]
    nearest = F.interpolate(20 * at_input - 10, scale_factor=0.25, mode="nearest")[0, 0, 120:204, 160:240].numpy()
    assert np.abs(nearest - GOLDEN["mask_low256_f32_crop"]).max() > 1


def test_a_correction_in_training_goes_back_as_a_prompt_within_the_trackers_limit():
    """`test_previous_mask.py` has the same of the stream and the predictors."""
    asked = []
    answer = SimpleNamespace(low_res_logits=torch.tensor([[-1024.0, -32.0], [0.5, 40.0]])[None, None])
    model = SimpleNamespace(
        no_memory=lambda stride16: None,
        decode=lambda *args: asked.append(args[-1]),
        select=lambda decoded, multimask: answer,
    )
    image, plan = Features(*[torch.zeros(1, 1, 1, 1)] * 3), clips.ClipPlan("click", {0: 1})
    clips.track_clip(model, [image], torch.ones(1, 1, 8, 8, dtype=torch.bool), plan)
    assert asked[0] is None and asked[1].tolist() == [[[[-32.0, -32.0], [0.5, 32.0]]]]


def test_a_shrinking_mask_prompt_is_antialiased_and_halves_count_as_inside():
    stripes = np.zeros((1, 64, 64), bool)
    stripes[:, :, 3::8] = stripes[:, :, 4::8] = True  # a quarter of the area, and just where samples are taken
    assert preprocess.masks_to_model(stripes, 8).sum() == 0
    half = np.zeros((1, 2, 2), bool)
    half[0, 0, :] = True
    assert preprocess.masks_to_model(half, 1).item() == 1


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_a_mask_prompt_of_the_inputs_size_stays_as_it_is(dtype):
    given = (np.random.RandomState(0).rand(2, 64, 64) < 0.5).astype(dtype)
    given.flags.writeable = False
    assert np.array_equal(preprocess.masks_to_model(given, 64)[:, 0].numpy(), given.astype(np.float32))
    assert torch.equal(preprocess.masks_to_model(torch.tensor(given), 64), preprocess.masks_to_model(given, 64))


def test_logits_grow_bilinearly_without_aligned_corners():
    ramp = torch.tensor([[0.0, 4.0]])[None, None]  # (1, 1, 1, 2)
    assert preprocess.logits_to_pixels(ramp, (1, 4)).tolist() == [[[[0, 1, 3, 4]]]]
    square = torch.tensor([[0.0, 4.0], [0.0, 4.0]])[None, None]
    assert preprocess.logits_to_input_size(square, 4)[0, 0, 0].tolist() == [0, 1, 3, 4]
    assert preprocess.logits_to_input_size(torch.zeros(3, 1, 64, 64), 256).shape == (3, 1, 256, 256)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("hw", [(480, 640), (1280, 720)])
def test_the_device_path_on_a_gpu(hw):
    rgb = np.random.RandomState(0).randint(0, 256, (*hw, 3), dtype=np.uint8)
    pixels = preprocess.as_pixels(rgb).cuda()
    off = grey_levels(preprocess.to_model_input_on_device(pixels, SIDE)[0].cpu() - preprocess.to_model_input(rgb, SIDE))
    assert off.abs().max() < 1.001 and (off.abs() > 0.5).float().mean() < 1e-3
