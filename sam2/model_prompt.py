"""A checked prompt in network-input pixels, and how later clicks add to it. Knows nothing about frames or memories."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sam2.errors import LimitReached, MaskTooThin
from sam2.limits import Limits
from sam2.preprocess import box_to_model, masks_to_model, points_to_model
from sam2.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE
from sam2.types import Prompt


@dataclass(frozen=True)
class ModelPrompt:
    """Points, box corners first, or a mask; kept as numpy so that remembering it costs no device memory."""

    xy_model: np.ndarray  # (K, 2) float32
    labels: np.ndarray  # (K,) int32
    mask: np.ndarray | None  # (S, S) bool

    @property
    def begins(self) -> bool:
        """Whether it can start an object: it is a mask, or not all of its points are off the object."""
        return self.mask is not None or bool((self.labels != NEGATIVE).any())

    def points(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(1, K, 2) and (1, K), for the decoder."""
        return torch.from_numpy(self.xy_model)[None].to(device), torch.from_numpy(self.labels)[None].to(device)

    def mask_tensor(self, device: torch.device) -> Tensor:
        """(1, 1, S, S) float32 of zeros and ones."""
        return torch.from_numpy(self.mask)[None, None].to(device, torch.float32)

    def add(self, other: "ModelPrompt", limits: Limits) -> "ModelPrompt":
        """Combines this prompt with a later one. Clicks add to points and a box; a box or a mask replaces everything
        before it, and clicks replace a mask. Raises LimitReached."""
        if other.mask is not None or self.mask is not None or BOX_TOP_LEFT in other.labels:
            return other
        total = len(self.labels) + len(other.labels)
        if total > limits.points_per_prompt:
            raise LimitReached(
                f"prompt.points_xy: expected at most {limits.points_per_prompt} points on one frame of one object, "
                f"got {total} with those given before; start over with a box or with mode REPLACE"
            )
        return ModelPrompt(
            np.concatenate((self.xy_model, other.xy_model)), np.concatenate((self.labels, other.labels)), None
        )


def prompt_to_model(prompt: Prompt, size_hw: tuple[int, int], image_size: int) -> ModelPrompt:
    """A checked prompt on an image of `size_hw` -> network-input pixels. Raises MaskTooThin.

    As upstream, an empty mask says that the object is not in the image.
    """
    if prompt.mask is not None:
        mask = masks_to_model(prompt.mask[None], image_size)[0, 0].bool().numpy()
        if prompt.mask.any() and not mask.any():
            raise MaskTooThin(
                f"prompt.mask: expected one that is not lost at the network's {image_size}x{image_size} pixels, got "
                f"{np.count_nonzero(prompt.mask)} of {size_hw[1]}x{size_hw[0]} pixels, too few or too thin; give a "
                "point or a box"
            )
        return ModelPrompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int32), mask)
    xy = points_to_model(np.asarray(prompt.points_xy, np.float32).reshape(-1, 2), size_hw, image_size)
    labels = np.asarray(prompt.labels, np.float32).reshape(-1).astype(np.int32)  # a copy, since it is stored
    if prompt.box_xyxy is not None:
        xy = torch.cat((box_to_model(prompt.box_xyxy, size_hw, image_size), xy))
        labels = np.concatenate((np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], np.int32), labels))
    return ModelPrompt(xy.numpy(), labels, None)
