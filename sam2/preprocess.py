"""All arithmetic between image pixels and the network's square input: images, points, boxes, masks, logits.

Does not know the network. `S` is the side of its input; images are squashed to S x S whatever their aspect ratio.
The official code has two image paths, which differ by up to 0.47 normalised units on a sharp image, and both are here:
the video predictor resizes 8-bit pixels bicubically with Pillow, the image predictor floats bilinearly with torch.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image

from sam2.errors import BadInput

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's red, green, blue in 0..1
STD = (0.229, 0.224, 0.225)
MASK_LOGIT = 10.0  # logits that stand for a mask prompt: +10 inside, -10 outside
PROMPT_LOGIT_LIMIT = 32.0  # logits of an earlier answer are clamped to this when they become a prompt
LOW_RES_STRIDE = 4  # input pixels per cell of the decoder's masks
_PILLOW_MAJOR = int(PIL.__version__.split(".")[0])


def check_rgb(rgb: np.ndarray, name: str = "rgb") -> None:
    """Raises BadInput naming `name` unless it is a non-empty (H, W, 3) uint8 array."""
    expected = f"{name}: expected a non-empty (H, W, 3) uint8 array in RGB order"
    if not isinstance(rgb, np.ndarray):
        raise BadInput(f"{expected}, got {type(rgb).__name__}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise BadInput(f"{expected}, got {rgb.shape} {rgb.dtype}")


def as_pixels(rgb: np.ndarray) -> torch.Tensor:
    """A copy of (H, W, 3) uint8 pixels as a CPU tensor; takes read-only and strided arrays. Raises BadInput."""
    check_rgb(rgb)
    return torch.from_numpy(np.array(rgb, order="C"))


def to_model_input(rgb: np.ndarray, image_size: int) -> torch.Tensor:
    """The official video path, bit for bit: (H, W, 3) uint8 -> (3, S, S) float32 on the CPU.

    Bicubic with antialiasing on 8-bit pixels, by Pillow itself. Raises BadInput.
    """
    check_rgb(rgb)
    resized = Image.fromarray(rgb).resize((image_size, image_size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized))  # (S, S, 3) uint8
    return normalise(pixels.permute(2, 0, 1).contiguous().float().div_(255))


def to_model_input_on_device(rgb: torch.Tensor, image_size: int) -> torch.Tensor:
    """The video path on the pixels' own device: (H, W, 3) uint8 -> (1, 3, S, S) float32.

    Nearly equal to `to_model_input`: for S = 1024 at most one value in ten thousand differs, by one grey level; for
    64, 128, 256 and 512 at most three in ten thousand; for 320 and 768 at most fifteen, some of them by two levels
    (measured on noise, the hardest image, of 33 x 1500 to 1080 x 1920 pixels). Like Pillow, it resizes one axis after
    the other and rounds to 8 bits in between: otherwise overshoot at edges, of up to 23 levels, would survive.
    Raises BadInput.
    """
    if rgb.dtype != torch.uint8 or rgb.ndim != 3 or rgb.shape[-1] != 3 or rgb.numel() == 0:
        raise BadInput(f"rgb: expected a non-empty (H, W, 3) uint8 tensor, got {tuple(rgb.shape)} {rgb.dtype}")
    pixels = rgb[None].permute(0, 3, 1, 2).float()  # (1, 3, H, W)
    height, width = pixels.shape[2:]
    between = (image_size, width) if _columns_first(height, width, image_size) else (height, image_size)
    for size in (between, (image_size, image_size)):
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).add_(0.5).floor_().clamp_(0, 255)
    return normalise(pixels.div_(255))


def _columns_first(height: int, width: int, image_size: int) -> bool:
    """Whether Pillow resizes along y before x: since version 13, if that saves enough work (Pillow pull request 9549).

    So the official numbers for images taller than wide depend on the version of Pillow.
    """
    return _PILLOW_MAJOR >= 13 and height > image_size and height - image_size > 2 * (width - image_size)


def to_image_predictor_input(rgb: np.ndarray, image_size: int) -> torch.Tensor:
    """The official image predictor's path: (H, W, 3) uint8 -> (3, S, S) float32 on the CPU. Raises BadInput."""
    pixels = as_pixels(rgb).permute(2, 0, 1).float().div_(255)  # (3, H, W)
    return normalise(_resize(pixels[None], image_size, antialias=True)[0])


def normalise(images: torch.Tensor) -> torch.Tensor:
    """(..., 3, S, S) float32 in 0..1 -> what `SAM2.encode_image` takes, in place."""
    mean, std = _statistics(images.device)
    return images.sub_(mean).div_(std)


def points_to_model(
    xy_pixels: np.ndarray | torch.Tensor | Sequence[Any], size_hw: tuple[int, int], image_size: int
) -> torch.Tensor:
    """(..., 2) x, y in source pixels -> the same shape, float32, in input pixels (0..S)."""
    xy = _as_float(xy_pixels)
    return xy / xy.new_tensor([size_hw[1], size_hw[0]]) * image_size


def box_to_model(
    box_xyxy: np.ndarray | torch.Tensor | Sequence[Any], size_hw: tuple[int, int], image_size: int
) -> torch.Tensor:
    """(4,) x0, y0, x1, y1 source pixels -> (2, 2) float32: its two corners in input pixels, for labels 2 and 3."""
    return points_to_model(_as_float(box_xyxy).reshape(2, 2), size_hw, image_size)


def masks_to_model(masks: np.ndarray | torch.Tensor, image_size: int) -> torch.Tensor:
    """Mask prompts: (N, H, W) bool of source pixels -> (N, 1, S, S) float32 of zeros and ones.

    A pixel is inside where antialiased bilinear resizing gives at least one half.
    """
    return (_resize(_as_float(masks)[:, None], image_size, antialias=True) >= 0.5).float()


def mask_logits(masks: torch.Tensor) -> torch.Tensor:
    """The logits that stand for mask prompts: (N, 1, S, S) zeros and ones -> (N, 1, S/4, S/4).

    +10 inside and -10 outside, downsampled bilinearly with antialiasing.
    """
    return _resize(masks * (2 * MASK_LOGIT) - MASK_LOGIT, masks.shape[-1] // LOW_RES_STRIDE, antialias=True)


def as_prompt(low_res_logits: torch.Tensor) -> torch.Tensor:
    """An earlier answer as a mask prompt: logits of any shape -> the same, clamped to +-32."""
    return low_res_logits.clamp(-PROMPT_LOGIT_LIMIT, PROMPT_LOGIT_LIMIT)


def logits_to_input_size(low_res_logits: torch.Tensor, image_size: int) -> torch.Tensor:
    """(N, 1, S/4, S/4) -> (N, 1, S, S), bilinear: the memory encoder's input size."""
    return _resize(low_res_logits, image_size, antialias=False)


def logits_to_pixels(low_res_logits: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """(N, C, h, w) -> (N, C, H, W), bilinear: logits per source pixel. For numpy see `masks.upsample_logits`."""
    return F.interpolate(low_res_logits, tuple(size_hw), mode="bilinear", align_corners=False)


def _as_float(values: np.ndarray | torch.Tensor | Sequence[Any]) -> torch.Tensor:
    """float32; a tensor stays on its device, anything else is copied."""
    if isinstance(values, torch.Tensor):
        return values.float()
    return torch.from_numpy(np.array(values, dtype=np.float32))


@lru_cache(maxsize=8)
def _statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """MEAN and STD, each (3, 1, 1) float32; cached, because copying them to a GPU each time would wait for it."""
    with torch.inference_mode(False):
        mean, std = torch.tensor((MEAN, STD), dtype=torch.float32, device=device)[..., None, None]
        return mean, std


def _resize(images: torch.Tensor, side: int, antialias: bool) -> torch.Tensor:
    """(N, C, h, w) -> (N, C, side, side), bilinear."""
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=antialias)
