"""Validates the current weights on a few held-out clips tracked from one click, the same clips and clicks every time.

A quick look while training runs, not the published evaluation (`sam2.evaluate`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sam2.errors import BadInput
from sam2.model import SAM2
from sam2.preprocess import logits_to_input_size, normalise
from sam2.training.augment import split
from sam2.training.clips import ClipPlan, choose_objects, encode_frames, object_masks, track_clip
from sam2.training.draws import Maker, label_areas
from sam2.training.losses import mask_iou
from sam2.training.synthetic import HELD_OUT_SEED

CLIPS, FRAMES = 12, 24
SEED = 3 * HELD_OUT_SEED  # far from the seeds of published figures, which must not influence decisions


@dataclass(frozen=True)
class Validation:
    """Figures are in 0..1."""

    first_iou: float  # on the clicked frame
    tracked_iou: float  # J: over later frames in which the object is present
    presence: float  # share of later frames whose presence is predicted correctly, of objects that were clicked
    masks: np.ndarray  # (B, M, T, S, S) bool, predicted
    targets: np.ndarray  # (B, M, T, S, S) bool, true

    def __str__(self) -> str:
        return (
            f"clicked frame IoU {100 * self.first_iou:.1f}, tracked IoU {100 * self.tracked_iou:.1f}, "
            f"presence right {100 * self.presence:.1f} %"
        )


def held_out_clips(maker: Maker, min_area: int) -> np.ndarray:
    """(B, T, S, S, 4) uint8. Raises BadInput if none begins with an object of `min_area` pixels: training would find
    nothing to learn either."""
    clips = np.stack([maker(SEED + i)[:FRAMES] for i in range(CLIPS)])
    largest = label_areas(clips[:, 0]).max()
    if largest < min_area:
        found = f"one of {largest}" if largest else "none"
        raise BadInput(
            f"{maker}: expected objects of {min_area} pixels or more, of {clips.shape[2]} x {clips.shape[3]}, in the "
            f"first masks of {CLIPS} clips, found {found}; give a larger --size if they are small. In a mask 0 is "
            "background, 1 to 254 are objects, and 255 is the one object where it is gray"
        )
    return clips


@torch.no_grad()
def validate(model: SAM2, clips: Tensor, objects: int, min_area: int) -> Validation:
    """Tracks and scores clips (B, T, S, S, 4) uint8 on the model's device. Restores the random state and the model's
    mode."""
    device, was_training = clips.device, model.training
    model.eval()
    found, true = [], []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for clip in clips.split(4):
            rgb, labels = split(clip)
            images, targets = normalise(rgb), object_masks(labels, choose_objects(labels, objects, min_area))
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                _, final = track_clip(model, encode_frames(model, images), targets, ClipPlan("click"))
            logits = torch.stack([logits_to_input_size(f.low_res_logits, targets.shape[-1])[:, 0] for f in final], 1)
            found.append(logits > 0)
            true.append(targets)
    model.train(was_training)
    masks, targets = torch.cat(found), torch.cat(true)  # (N, T, S, S)
    iou = mask_iou(masks.float() - 0.5, targets.float())  # (N, T)
    there, seen = targets.flatten(2).any(2), masks.flatten(2).any(2)
    clicked = there[:, :1]  # a clip without objects is tracked from a click on nothing
    scored, right = there[:, 1:] & clicked, (there == seen)[:, 1:] & clicked
    shape = (len(clips), objects, *masks.shape[1:])
    return Validation(
        first_iou=(iou[:, 0] * there[:, 0]).sum().item() / max(there[:, 0].sum().item(), 1),
        tracked_iou=(iou[:, 1:] * scored).sum().item() / max(scored.sum().item(), 1),
        presence=right.sum().item() / max(clicked.sum().item() * right.shape[1], 1),
        masks=masks.view(shape).cpu().numpy(),
        targets=targets.view(shape).cpu().numpy(),
    )
