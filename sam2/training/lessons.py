"""The three kinds of training step: raw clips in, losses out. Here data, prompts, model and losses meet.

A lesson draws its own augmentation, objects and prompts; the caller seeds. Each returns 0-d tensors by name, "loss"
among them; nothing here waits for the device.
"""

import numpy as np
import torch
from torch import Tensor, nn

from sam2.model import SAM2
from sam2.training import prompts
from sam2.training.augment import augment
from sam2.training.clips import (
    Answer,
    ask_stills,
    choose_objects,
    draw_plan,
    encode_clip,
    normalise,
    object_masks,
    track_clip,
)
from sam2.training.config import Phase
from sam2.training.losses import mean_loss, segmentation_loss
from sam2.training.pretext import Pretext, pretext_loss

Losses = dict[str, Tensor]


class Lessons(nn.Module):
    """The model and what only training needs. One forward for all kinds, so DistributedDataParallel can wrap it."""

    def __init__(self, model: SAM2, min_area: int, loss_side: int):
        super().__init__()
        self.model = model
        self.pretext = Pretext(model.config.d_model)
        self.min_area, self.loss_side = min_area, loss_side

    def forward(self, clips: Tensor, phase: Phase, rng: np.random.Generator) -> Losses:
        """clips (B, T, S, S, 4) uint8 as `data` gives them."""
        device = clips.device.type
        with torch.no_grad():
            rgb, labels = augment(clips, phase.strength)
            images = normalise(rgb)
            chosen = choose_objects(labels, phase.objects, self.min_area)
            targets = object_masks(labels, chosen)  # (B * M, T, S, S)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return getattr(self, f"_{phase.kind}")(images, targets, phase, rng)

    def _pretext(self, images: Tensor, targets: Tensor, phase: Phase, rng: np.random.Generator) -> Losses:
        features = self.model.encode_image(images[:, 0])
        points, _ = prompts.click(targets[:, 0])
        logits = self.pretext(features, points.view(len(images), -1, 2))
        with torch.autocast(images.device.type, enabled=False):
            loss, iou = pretext_loss(logits.float(), targets[:, 0])
        return {"loss": loss, "iou": iou}

    def _stills(self, images: Tensor, targets: Tensor, phase: Phase, rng: np.random.Generator) -> Losses:
        kind = str(rng.choice(["mask", "box", "click"], p=phase.kinds))
        features = encode_clip(self.model, images[:, :1], phase.objects)[0]
        answers, _ = ask_stills(self.model, features, targets[:, 0], kind, int(rng.integers(0, 3)))
        losses, shown = self._score(answers, targets, phase)
        return losses | {"iou": shown}

    def _clips(self, images: Tensor, targets: Tensor, phase: Phase, rng: np.random.Generator) -> Losses:
        plan = draw_plan(rng, images.shape[1], phase.kinds)
        with torch.set_grad_enabled(torch.is_grad_enabled() and phase.encoder > 0):
            features = encode_clip(self.model, images, phase.objects)
        answers, _ = track_clip(self.model, features, targets, plan)
        losses, _ = self._score(answers, targets, phase)
        return losses

    def _score(self, answers: list[Answer], targets: Tensor, phase: Phase) -> tuple[Losses, Tensor]:
        """Mean losses of all answers, with the IoU of the unprompted ones; and the IoU of the first answer."""
        device = targets.device.type
        with torch.autocast(device, enabled=False):
            scored = [
                segmentation_loss(
                    a.decoded.masks, a.decoded.iou, a.decoded.object_score, targets[:, a.time], phase.losses,
                    self.loss_side,
                )
                for a in answers
            ]  # fmt: skip
            mean = mean_loss(scored)
        tracked = [loss.mean_iou for loss, answer in zip(scored, answers, strict=True) if not answer.prompted]
        names = ("focal", "dice", "iou_error", "presence")
        values = (mean.focal, mean.dice, mean.iou, mean.presence)
        losses = {"loss": mean.total, **{name: value.detach() for name, value in zip(names, values, strict=True)}}
        return losses | {"iou": torch.stack(tracked or [scored[0].mean_iou]).mean()}, scored[0].mean_iou
