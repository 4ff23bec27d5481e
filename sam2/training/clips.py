"""One forward pass over a batch of short clips, with the tracker's memory.

Knows the model's stages, prompts and masks; nothing of losses, data or schedules. All objects of the batch have the
same history (first prompted on frame 0), so they are batched without padding.
Legend: B clips, M objects per clip, N = B * M, T frames, S input side. Source: SAM 2 paper, §5 and appendix C.2.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sam2.limits import Limits
from sam2.mask_decoder import Decoded
from sam2.memory_attention import concatenate
from sam2.model import NUM_MEMORIES, PROMPTED_CODE, SAM2, Features, Segmentation, is_ambiguous
from sam2.preprocess import as_prompt, logits_to_input_size
from sam2.training import prompts
from sam2.training.tensors import send

MAX_OBJECTS = 16  # of a clip; larger labels are never chosen
POINTER_FRAMES = Limits.pointers


@dataclass(frozen=True)
class ClipPlan:
    """The simulated user's prompts, the same in every clip of a batch."""

    first: str = "click"  # or "box" or "mask", at frame 0
    clicks: dict[int, int] = field(default_factory=dict)  # frame -> number of corrective clicks; none where a mask is
    second: int | None = None  # a later frame kept as a prompted memory: gets a mask if `first` is one, else `clicks`


@dataclass(frozen=True)
class Decoding:
    """One decoding of N objects in frame `index`. `prompted`: it had a prompt. `ambiguous`: its output is the best of
    the three hypotheses, not the single one."""

    index: int
    decoded: Decoded
    prompted: bool
    ambiguous: bool


def draw_plan(rng: np.random.Generator, length: int, prompt_chances: tuple[float, float, float]) -> ClipPlan:
    """Draws the prompts of a batch; in two of five batches a later frame is prompted, too.

    prompt_chances: of a mask, a box and a click, summing to 1.
    """
    first = str(rng.choice(["mask", "box", "click"], p=prompt_chances))
    shortest = 3 if first == "mask" else 2  # one frame must remain to be tracked
    second = int(rng.integers(1, length)) if length >= shortest and rng.random() < 0.4 else None
    clicks = {}
    if first != "mask":
        if rng.random() < 0.3:
            clicks[0] = int(rng.integers(1, 4))
        if second is not None:
            clicks[second] = int(rng.integers(1, 4))
    return ClipPlan(first, clicks, second)


def choose_objects(labels: Tensor, count: int, min_area: int) -> Tensor:
    """Random distinct objects of each clip's first frame, repeated where there are fewer: (B, T, S, S) -> (B, count).

    labels uint8; returns labels, 255 where no object has `min_area` pixels. Objects that vanish in a later frame are
    preferred: they are what memory is for. Does not synchronise with the device.
    """
    area = torch.stack([(labels == label).sum((2, 3)) for label in range(1, MAX_OBJECTS + 1)], 2)  # (B, T, MAX_OBJECTS)
    big = area[:, 0] >= min_area  # (B, MAX_OBJECTS), as the next two
    vanishes = (area == 0).any(1)
    order = (torch.rand(big.shape, device=labels.device) + 2 * big + 0.5 * vanishes).argsort(1, descending=True) + 1
    slot = torch.arange(count, device=labels.device) % big.sum(1, keepdim=True).clamp(min=1)  # (B, count)
    return torch.where(big.any(1, keepdim=True), order.gather(1, slot), 255)


def object_masks(labels: Tensor, chosen: Tensor) -> Tensor:
    """labels (B, T, S, S) uint8, chosen (B, M) -> (B * M, T, S, S) bool."""
    return (labels[:, None] == chosen[:, :, None, None, None]).flatten(0, 1)


class Bank:
    """The memory bank of a batch's N objects: prompted frames and recent ones."""

    def __init__(self, model: SAM2):
        self.model = model
        self.prompted: list[tuple[int, Tensor, Tensor]] = []  # time, memory (N, D, h, w), pointer (N, C)
        self.tracked: list[tuple[int, Tensor, Tensor]] = []

    def read(self, time: int) -> tuple[Tensor, Tensor, int]:
        """Memory and positions for frame `time`, each (N, tokens, D), and how many of the last tokens are pointers."""
        parts = [self.model.spatial_memory(memory, PROMPTED_CODE) for _, memory, _ in self.prompted]
        for then, memory, _ in self.tracked:  # oldest first
            if time - then < NUM_MEMORIES:
                parts.append(self.model.spatial_memory(memory, time - then - 1))
        pointers = [(then, p) for then, _, p in self.prompted]
        pointers += [(then, p) for then, _, p in reversed(self.tracked) if time - then <= POINTER_FRAMES]
        ages = send(np.array([time - then for then, _ in pointers], np.float32), self.model.device)
        tokens = self.model.pointer_memory(torch.stack([p for _, p in pointers], 1), ages / POINTER_FRAMES)
        return concatenate(parts, tokens)

    def detach(self) -> None:
        """Cuts gradients at the memories, and drops those that `read` no longer uses."""
        self.prompted = [(then, m.detach(), p.detach()) for then, m, p in self.prompted]
        self.tracked = [(then, m.detach(), p.detach()) for then, m, p in self.tracked[-POINTER_FRAMES:]]


def encode_frames(model: SAM2, images: Tensor) -> list[Features]:
    """images (B, T, 3, S, S) normalised -> per frame the features of B images."""
    maps = [x.unflatten(0, images.shape[:2]) for x in model.encode_image(images.flatten(0, 1))]  # (B, T, ...)
    return [Features(*(x[:, t] for x in maps)) for t in range(images.shape[1])]


def track_clip(
    model: SAM2, features: list[Features], targets: Tensor, plan: ClipPlan, bank: Bank | None = None, start: int = 0
) -> tuple[list[Decoding], list[Segmentation]]:
    """Tracks N objects through T frames: per-frame features of B images, targets (N, T, S, S) bool, those of one image
    adjacent.

    With `bank`, which holds the memories before frame `start`, continues a clip; the last frame is then remembered,
    too. Returns every decoding made (to be scored) and the T final segmentations. Through pointers and memories,
    gradients reach the features of all frames, but only the masks of tracked frames: masks of prompted frames are
    binarised before memory encoding, unless `model.binarize_mask_from_pts_for_mem_enc` is off.
    """
    last = len(features) - 1 if bank is None else None
    bank, decodings, final = bank or Bank(model), [], []
    for index, image in enumerate(features):
        time, target = start + index, targets[:, index]
        frame = Features(*(x.repeat_interleave(len(target) // len(x), 0) for x in image))  # of N objects
        is_prompted = time == 0 or time == plan.second
        if is_prompted and plan.first == "mask":
            result = model.segment_mask(frame, target[:, None].float())
        else:
            points = labels = previous = None
            if time == 0:
                pixels = model.no_memory(frame.stride16)
                points, labels = (prompts.click if plan.first == "click" else prompts.box)(target)
            else:
                pixels = model.attend(model.self_attend(frame.stride16), *bank.read(time))
            for correction in range(1 + plan.clicks.get(time, 0)):
                if correction:
                    points, labels = _add_correction(points, labels, result, target)
                    previous = as_prompt(result.low_res_logits)
                ambiguous = is_ambiguous(0 if points is None else points.shape[1])
                decoded = model.decode(frame, pixels, points, labels, previous)
                result = model.select(decoded, ambiguous)
                decodings.append(Decoding(index, decoded, points is not None, ambiguous))
        final.append(result)
        if index != last:
            memory = model.encode_memory(frame.stride16, result.low_res_logits, result.object_score, is_prompted)
            (bank.prompted if is_prompted else bank.tracked).append((time, memory, result.pointer))
    return decodings, final


@torch.no_grad()
def _add_correction(
    points: Tensor | None, labels: Tensor | None, answer: Segmentation, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Adds a click where `answer` is wrong to the points (N, K, 2) and labels (N, K), if there are any."""
    seen = logits_to_input_size(answer.low_res_logits, target.shape[-1])[:, 0] > 0  # (N, S, S)
    point, label = prompts.corrective_click(seen, target)
    if points is None or labels is None:
        return point, label
    return torch.cat([points, point], 1), torch.cat([labels, label], 1)
