"""The four kinds of training step: raw clips in, losses out. This is where data, prompts, model and losses meet.

A lesson draws its own augmentation, objects and prompts; the caller sets the seeds. Each returns 0-d tensors by name,
among them "loss"; nothing here synchronises with the device.
"""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sam2.model import Features
from sam2.preprocess import normalise
from sam2.training import prompts
from sam2.training.augment import augment, window
from sam2.training.clips import (
    Bank,
    ClipPlan,
    Decoding,
    choose_objects,
    draw_plan,
    encode_frames,
    object_masks,
    track_clip,
)
from sam2.training.config import Phase
from sam2.training.losses import mean_loss, segmentation_loss
from sam2.training.pretext import Pretext, pretext_loss
from sam2.training.streams import Stream, Streams, draw_length
from sam2.training.windows import WindowedSAM2

_CORRECTIONS = (0.6, 0.25, 0.15)  # chances of no, one and two corrective clicks in a still

Losses = dict[str, Tensor]
Asked = tuple[Features, Tensor]  # of one frame of B clips, and the masks (N, S, S) of its objects


def has_bfloat16(device: str) -> bool:
    """Whether bfloat16 is faster on the device; on a CPU without its instructions it is many times slower."""
    return device == "cuda" or torch.cpu._is_avx512_bf16_supported()  # it has no public name


def fast_attention(device: str) -> AbstractContextManager[object]:
    """On a CPU, disables fused attention: its backward pass is several times slower for short sequences."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()


def _begins_in_sight(targets: Tensor) -> Tensor:
    """(N, T, S, S) bool -> (N,) bool: which objects the first frame shows. Empty targets, which pad clips that have too
    few objects, must not teach absence."""
    return targets[:, 0].flatten(1).any(1)


class Lessons(nn.Module):
    """The model and the modules that only training needs, with one `forward` for all kinds of step, so that
    DistributedDataParallel can wrap it. is_varied: as `augment` takes it."""

    def __init__(self, model: WindowedSAM2, min_area: int, loss_stride: int, is_varied: bool = True):
        super().__init__()
        self.model = model
        self.pretext = Pretext(model.config.d_model)
        self.min_area, self.loss_stride, self.is_varied = min_area, loss_stride, is_varied
        self.streams = Streams()
        self.segmentation_loss = segmentation_loss  # `fuse` puts a compiled one here

    def forward(self, clips: Tensor | None, phase: Phase, rng: np.random.Generator) -> Losses:
        """clips (B, T, S, S, 4) uint8 as `data` gives them; `phase` as `Phase.draw` gives it.

        For kind "streams", clips are needed only when `streams.is_due`; None continues an open stream.
        """
        learnt = self._prepare(clips, phase, rng) if clips is not None else None
        device = self.model.device.type
        with torch.autocast(device, torch.bfloat16, enabled=has_bfloat16(device)), fast_attention(device):
            if phase.kind == "streams" or learnt is None:
                return self._stream(learnt, phase, rng)
            return getattr(self, f"_{phase.kind}")(*learnt, phase, rng)

    @torch.no_grad()
    def _prepare(self, clips: Tensor, phase: Phase, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Returns augmented images (B, T, 3, S, S), normalised, and targets (B * M, T, S, S) bool."""
        clips = self._crop_windows(clips, phase.window, rng)
        rgb, labels = augment(clips, phase.strength, self.is_varied)
        chosen = choose_objects(labels, phase.objects, self.min_area)
        return normalise(rgb), object_masks(labels, chosen)

    def _crop_windows(self, clips: Tensor, side: int, rng: np.random.Generator) -> Tensor:
        """Crops windows of `side` pixels, and places the model's view anywhere in the whole image; 0: no cropping."""
        whole = clips.shape[-2]
        if not side:
            self.model.view.move(whole)
            return clips
        self.model.view.move(side, *(32 * rng.integers(0, (whole - side) // 32 + 1, 2)).tolist())
        return window(clips, side)

    def _pretext(self, images: Tensor, targets: Tensor, phase: Phase, rng: np.random.Generator) -> Losses:
        asked = self.model.encode_image(images[:, 0]), targets[:, 0]
        loss, iou = self._find_alike(asked, asked)
        return {"loss": loss, "iou": iou}

    def _stills(self, images: Tensor, targets: Tensor, phase: Phase, rng: np.random.Generator) -> Losses:
        kind = "box" if rng.random() * sum(phase.prompt_chances[1:]) < phase.prompt_chances[1] else "click"
        single = self.model.encode_image(images[:, 0])
        plan = ClipPlan(kind, {0: int(rng.choice(3, p=_CORRECTIONS))})
        decodings, _ = track_clip(self.model, [single], targets, plan)
        asked = single, targets[:, 0]
        return self._add_alike(self._score(decodings, targets, phase), phase, asked, asked)

    def _clips(self, images: Tensor, targets: Tensor, phase: Phase, rng: np.random.Generator) -> Losses:
        plan = draw_plan(rng, images.shape[1], phase.prompt_chances)
        with torch.set_grad_enabled(torch.is_grad_enabled() and phase.encoder > 0):
            singles = encode_frames(self.model, images)
        decodings, _ = track_clip(self.model, singles, targets, plan)
        losses = self._score(decodings, targets, phase)
        other = int(rng.integers(1, images.shape[1]))
        return self._add_alike(losses, phase, (singles[0], targets[:, 0]), (singles[other], targets[:, other]))

    def _stream(self, begun: tuple[Tensor, Tensor] | None, phase: Phase, rng: np.random.Generator) -> Losses:
        view = self.model.view
        if begun is not None:
            plan = draw_plan(rng, 1, phase.prompt_chances)  # prompts frame 0 only
            place, length = (view.side, view.row, view.column), draw_length(rng, begun[0].shape[1], phase.frames)
            self.streams.begin(phase.window, Stream(*begun, plan, Bank(self.model), place, length))
        stream = self.streams.take(phase.window)
        view.move(*stream.place)
        images, targets = stream.next_frames(phase.frames)
        with torch.set_grad_enabled(torch.is_grad_enabled() and phase.encoder > 0):
            features = encode_frames(self.model, images)
        decodings, _ = track_clip(self.model, features, targets, stream.plan, stream.bank, stream.time)
        stream.advance(images.shape[1])
        return self._score(decodings, targets, phase, _begins_in_sight(stream.targets))

    def _add_alike(self, losses: Losses, phase: Phase, asked: Asked, shown: Asked) -> Losses:
        if not phase.alike:
            return losses
        loss, iou = self._find_alike(asked, shown)
        return losses | {"loss": losses["loss"] + phase.alike * loss, "alike_iou": iou}

    def _find_alike(self, asked: Asked, shown: Asked) -> tuple[Tensor, Tensor]:
        """Returns the pretext's loss and IoU: clicks in one frame of each clip, masks in that frame or another one."""
        (features, clicked), (others, targets) = asked, shown
        points, _ = prompts.click(clicked)
        logits = self.pretext(features, points.view(len(features.stride16), -1, 2), others)
        with torch.autocast(logits.device.type, enabled=False):
            return pretext_loss(logits.float(), targets)

    def _score(self, decodings: list[Decoding], targets: Tensor, phase: Phase, begun: Tensor | None = None) -> Losses:
        """Mean losses of all decodings, and the IoU of the unprompted ones or, if there are none, of the first one.

        begun: (N,) bool, the objects visible at the first prompt; None: those in the first frame of `targets`.
        """
        begun = _begins_in_sight(targets) if begun is None else begun
        with torch.autocast(targets.device.type, enabled=False):
            scored = [
                self.segmentation_loss(
                    one.decoded.masks, one.decoded.iou, one.decoded.object_score, targets[:, one.index], phase.losses,
                    targets.shape[-1] // self.loss_stride, may_be_absent=begun & (not one.prompted),
                    is_ambiguous=torch.full_like(begun, one.ambiguous),
                )
                for one in decodings
            ]  # fmt: skip
            mean = mean_loss(scored)
        tracked = [loss.mean_iou for loss, one in zip(scored, decodings, strict=True) if not one.prompted]
        terms = ("focal", "dice", "iou_error", "presence")
        losses = {"loss": mean.total, **{name: getattr(mean, name).detach() for name in terms}}
        return losses | {"iou": torch.stack(tracked or [scored[0].mean_iou]).mean()}
