"""Random changes to a batch of clips, the same for every frame of a clip, on whatever device the batch is on.

Knows pixels and label maps only. Sources: SAM 2 training set-up (horizontal flip, affine, colour jitter, grayscale, and
for look-alikes the 2 x 2 mosaic of one clip of which one tile is the target); the crop on small objects and the
interruption (a few frames of another scene, so that the object is gone and comes back) are ours.
Clips are (B, T, S, S, 4) uint8: RGB and a label map, 0 background, 1..K the visible pixels of object k.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2.training.tensors import constant


def _uniform(shape: tuple[int, ...], low: float, high: float, device: torch.device) -> Tensor:
    return torch.rand(shape, device=device) * (high - low) + low


def _chance(count: int, probability: float, device: torch.device) -> Tensor:
    return torch.rand(count, device=device) < probability


def split(clips: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, S, S, 4) uint8 -> rgb (B, T, 3, S, S) float32 0..1 and labels (B, T, S, S) uint8."""
    return clips[..., :3].permute(0, 1, 4, 2, 3).float() / 255, clips[..., 3]


def interrupt(clips: Tensor, probability: float) -> Tensor:
    """Replaces a run of frames (never the first) in some clips by those of another clip of the batch, unlabelled."""
    count, length = clips.shape[:2]
    device = clips.device
    start = torch.randint(1, max(length, 2), (count,), device=device)
    stop = start + torch.randint(1, max(length // 2, 2), (count,), device=device)
    time = torch.arange(length, device=device)
    gone = (time >= start[:, None]) & (time < stop[:, None]) & _chance(count, probability, device)[:, None]
    other = clips.roll(1, 0)
    other[..., 3] = 0
    return torch.where(gone[:, :, None, None, None], other, clips)


def window(clips: Tensor, side: int) -> Tensor:
    """The same square cut out of every frame of a clip, around a random pixel of a random object of its first frame.

    (B, T, S, S, 4) uint8 -> (B, T, side, side, 4): objects keep the size that they have in the whole image.
    """
    count, length, full = clips.shape[:3]
    first, device = clips[:, 0, ..., 3].flatten(1), clips.device  # (B, S * S)
    wanted = first.gather(1, (torch.rand(first.shape, device=device) * (first > 0)).argmax(1, keepdim=True))
    pixel = (torch.rand(first.shape, device=device) * (1 + (first == wanted))).argmax(1)
    shift = (torch.rand(count, 2, device=device) - 0.5) * side / 2
    corner = torch.stack([pixel // full, pixel % full], 1) + shift - side / 2  # (B, 2) row, column
    corner = corner.long().clamp(0, full - side)
    rows, columns = (corner[:, i, None] + torch.arange(side, device=device) for i in (0, 1))  # (B, side)
    clip, time = torch.arange(count, device=device), torch.arange(length, device=device)
    return clips[clip[:, None, None, None], time[:, None, None], rows[:, None, :, None], columns[:, None, None]]


def _focus(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where to crop: the centre (B, 2) in -1..1 and the relative side (B,) of one random object of each first frame."""
    count, side = labels.shape[0], labels.shape[-1]
    first = labels[:, 0]
    pick = torch.rand(first.shape, device=labels.device) * (first > 0)
    chosen = first.flatten(1).gather(1, pick.flatten(1).argmax(1, keepdim=True))  # (B, 1)
    mask = ((first.flatten(1) == chosen) & (chosen > 0)).view(count, side, side).float()  # (B, S, S)
    area = mask.sum((1, 2))  # (B,)
    axis = (torch.arange(side, device=labels.device) + 0.5) * 2 / side - 1  # (S,)
    centre = torch.stack([(mask.sum(1) * axis).sum(1), (mask.sum(2) * axis).sum(1)], 1) / area.clamp(min=1)[:, None]
    return centre, torch.where(area > 0, area.sqrt() / side, 1.0)


def affine(rgb: Tensor, labels: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Flip, rotate, scale, shear and crop each clip; small objects are zoomed in on.

    rgb (B, T, 3, S, S) float, labels (B, T, S, S) uint8 -> the same shapes. strength 0 only flips, 1 turns by up to
    25 degrees and zooms 0.8 to 1.6. What comes in from outside the image is black and unlabelled.
    """
    count, side, device = rgb.shape[0], rgb.shape[-1], rgb.device
    centre, size = _focus(labels)  # (B, 2), (B,)
    angle = _uniform((count,), -25, 25, device) * math.pi / 180 * strength  # (B,), as all of these
    zoom = torch.exp2(_uniform((count,), -0.3, 0.7, device) * strength)
    small = _chance(count, 0.3 * strength, device) & (size < 0.1)
    zoom = torch.where(small, zoom * 1.5, zoom)
    shear = _uniform((count,), -0.15, 0.15, device) * strength
    flip = torch.where(_chance(count, 0.5, device), -1.0, 1.0)
    spare = (1 - 1 / zoom).abs()[:, None]  # (B, 1)
    wanted = torch.where(small[:, None], centre, _uniform((count, 2), -1, 1, device) * spare)
    offset = wanted.clamp(-spare, spare) * (zoom > 1)[:, None]  # (B, 2)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    rows = [torch.stack([flip * cos, -sin + shear, offset[:, 0]], 1), torch.stack([flip * sin, cos, offset[:, 1]], 1)]
    theta = torch.stack(rows, 1)  # (B, 2, 3) output to input, in -1..1
    grid = F.affine_grid(theta, [count, 1, side, side], align_corners=False)  # (B, S, S, 2)
    rgb = F.grid_sample(rgb.flatten(1, 2), grid, align_corners=False).view_as(rgb)
    flat = F.grid_sample(labels.float(), grid, mode="nearest", align_corners=False)
    return rgb.clamp(0, 1), flat.round().to(torch.uint8)


def _halved(images: Tensor) -> Tensor:
    """(N, C, S, S) -> (N, C, S / 2, S / 2), blurred around the pixels that `[..., ::2, ::2]` keeps."""
    padded = F.pad(images, (1, 0, 1, 0), mode="replicate")
    rows = padded[..., :-1:2, :] + 2 * padded[..., 1::2, :] + padded[..., 2::2, :]
    return (rows[..., :-1:2] + 2 * rows[..., 1::2] + rows[..., 2::2]) / 16


def mosaic(rgb: Tensor, labels: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Some clips become a 2 x 2 mosaic of themselves, of which one tile keeps its labels: the rest are look-alikes.

    Shapes as in `affine`; S even.
    """
    count, side = rgb.shape[0], rgb.shape[-1]
    device = rgb.device
    chosen = _chance(count, probability, device)
    half = _halved(rgb.flatten(0, 1)).view(*rgb.shape[:3], side // 2, side // 2)
    mirrored = half.flip(-1)
    tiled = torch.cat([torch.cat([half, mirrored], -1), torch.cat([mirrored, half], -1)], -2)
    small = labels[..., ::2, ::2]
    nothing = torch.zeros_like(small)
    keep = _chance(count, 0.5, device).view(-1, 1, 1, 1)
    top = torch.cat([torch.where(keep, small, nothing), nothing], -1)
    bottom = torch.cat([nothing, torch.where(keep, nothing, small)], -1)
    tiled_labels = torch.cat([top, bottom], -2)
    chosen_rgb = chosen.view(-1, 1, 1, 1, 1)
    return torch.where(chosen_rgb, tiled, rgb), torch.where(chosen_rgb[:, 0], tiled_labels, labels)


def jitter(rgb: Tensor, strength: float) -> Tensor:
    """Changes brightness, contrast, saturation and tint per clip, brightness slightly per frame; 5 % of clips are gray.

    rgb (B, T, 3, S, S) in 0..1 -> the same.
    """
    count, length = rgb.shape[:2]
    device = rgb.device
    shape = (count, 1, 1, 1, 1)
    gray = (rgb * constant((0.299, 0.587, 0.114), device).view(3, 1, 1)).sum(2, keepdim=True)
    saturation = _uniform(shape, 1 - 0.5 * strength, 1 + 0.5 * strength, device)
    is_gray = _chance(count, 0.05, device).view(shape)
    rgb = gray + (rgb - gray) * torch.where(is_gray, 0.0, saturation)
    tint = _uniform((count, 1, 3, 1, 1), 1 - 0.1 * strength, 1 + 0.1 * strength, device)
    tint = torch.where(is_gray, 1.0, tint)
    contrast = _uniform(shape, 1 - 0.3 * strength, 1 + 0.3 * strength, device)
    brightness = _uniform(shape, -0.15, 0.15, device) * strength
    flicker = _uniform((count, length, 1, 1, 1), -0.03, 0.03, device) * strength
    middle = gray.mean((1, 2, 3, 4), keepdim=True)
    return ((rgb * tint - middle) * contrast + middle + brightness + flicker).clamp(0, 1)


def augment(clips: Tensor, strength: float, is_varied: bool = True) -> tuple[Tensor, Tensor]:
    """All augmentations: (B, T, S, S, 4) uint8 -> rgb (B, T, 3, S, S) float32 0..1, labels (B, T, S, S) uint8.

    strength 0 changes nothing but the type. is_varied: whether the clips are of different scenes; if not, none is
    interrupted by another, which may show the same object, and what can be seen must not be taught as away.
    """
    if strength <= 0:
        return split(clips)
    if is_varied and clips.shape[0] > 1 and clips.shape[1] > 2:  # a single clip has no other scene to show
        clips = interrupt(clips, 0.08 * strength)
    rgb, labels = split(clips)
    rgb, labels = affine(rgb, labels, strength)
    rgb, labels = mosaic(rgb, labels, 0.08 * strength)
    return jitter(rgb, strength), labels
