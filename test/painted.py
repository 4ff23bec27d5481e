"""A picture of uniform patches and a predictor that segments them, for tests of the automatic mask generator."""

import cv2
import numpy as np
import torch
from torch import Tensor

from sam2.sam2_image_predictor import SAM2ImagePredictor

SIZE_HW = (120, 200)
LOW_RES = 64
DISC, BAR, CORNER, SPECK = 1, 2, 3, 4


def picture() -> np.ndarray:
    """(H, W, 3) uint8; the label of each pixel is its red value over 50."""
    labels = np.zeros(SIZE_HW, np.uint8)
    cv2.circle(labels, (50, 40), 22, DISC, cv2.FILLED)
    labels[80:100, 60:190] = BAR
    labels[:30, 160:] = CORNER
    labels[100:106, 20:26] = SPECK
    return np.stack([labels * 50] * 3, axis=-1)


class Painted(SAM2ImagePredictor):
    """Predicts three masks per point: the patch, the patch with all above it (lower IoU), a faint blur (unstable)."""

    def __init__(self, **kwargs):
        super().__init__(None, **kwargs)
        self.asked: list[tuple[int, bool, bool]] = []  # points, whether a mask came with them, and whether for several
        self.upsampled = 0

    def set_image(self, image: np.ndarray) -> None:
        self.labels = image[..., 0] // 50

    def reset_predictor(self) -> None:
        self.labels = None

    def decode(self, points: Tensor, labels: Tensor, mask_input: Tensor | None = None, multimask: bool = True):
        self.asked.append((len(points), mask_input is not None, multimask))
        answers = [self._answer(*point.tolist()) for point in points[:, 0]]
        logits, iou = (torch.stack([answer[i] for answer in answers]) for i in (0, 1))
        if mask_input is not None:
            logits, iou = logits + 0.01 * mask_input, iou + 0.02
        return (logits, iou) if multimask else (logits[:, :1], iou[:, :1])

    def _answer(self, x: float, y: float) -> tuple[Tensor, Tensor]:
        label = self.labels[int(y), int(x)]
        patch = (self.labels == label).astype(np.float32)
        above = np.maximum.accumulate(patch[::-1])[::-1]
        small = [cv2.resize(m, (LOW_RES, LOW_RES), interpolation=cv2.INTER_AREA) for m in (patch, above, patch)]
        logits = np.stack([12 * small[0] - 6, 12 * small[1] - 6, 2 * cv2.blur(small[2], (9, 9)) - 1])
        best = 0.95 - 0.1 * (label == 0) + 1e-4 * x - 2e-4 * y
        return torch.from_numpy(logits), torch.tensor([best, best - 0.1, best - 0.02], dtype=torch.float32)

    def upsample(self, logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
        self.upsampled += len(logits)
        return super().upsample(logits, size_hw)
