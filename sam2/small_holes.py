"""Small regions of a mask, by OpenCV on a CPU and by pooling on a GPU, and how the official predictor closes holes."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from sam2.errors import BadInput

FILLED_HOLE_LOGIT = 0.1  # the official value: barely inside


def fill_small_holes(logits: torch.Tensor, max_area: int = 8) -> torch.Tensor:
    """Closes small holes: 8-connected regions of logits <= 0 of at most `max_area` pixels become 0.1.

    logits: (N, 1, h, w) float, any device. Returns a new tensor or, if `max_area` is 0, the logits themselves. This is
    the rule of the official predictor's `fill_holes_in_mask_scores`, which does nothing where its CUDA extension is not
    built. Regions at the border count too. On a GPU the host does not wait for the device.
    """
    if logits.ndim != 4 or logits.shape[1] != 1:
        raise BadInput(f"logits: expected (N, 1, h, w), got {tuple(logits.shape)}")
    if max_area < 1:
        return logits
    return torch.where(small_regions(logits <= 0, max_area), FILLED_HOLE_LOGIT, logits)


def small_regions(regions: torch.Tensor, max_area: int) -> torch.Tensor:
    """(N, 1, h, w) bool -> the same: the pixels of 8-connected True regions of at most `max_area` pixels."""
    return (_small_regions_opencv if regions.device.type == "cpu" else _small_regions_torch)(regions, max_area)


def _small_regions_opencv(regions: torch.Tensor, max_area: int) -> torch.Tensor:
    small = np.zeros(regions.shape, dtype=bool)
    for image, out in zip(regions.numpy()[:, 0], small[:, 0], strict=True):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(image.view(np.uint8), connectivity=8)
        is_small = stats[:, cv2.CC_STAT_AREA] <= max_area  # by label; 0 is the background
        is_small[0] = False
        if is_small.any():
            np.take(is_small, labels, out=out)
    return torch.from_numpy(small)


def _small_regions_torch(regions: torch.Tensor, max_area: int) -> torch.Tensor:
    """Uses a fixed number of operations of fixed size, so that the host does not wait for a GPU.

    Every pixel takes the largest pixel number of its region within `max_area - 1` steps, enough to cross any small
    region. Pixels that then share a number are connected, and are a whole region unless one of them touches a pixel of
    the region with another number; such a set gets a weight above `max_area`.
    """
    num, _, height, width = regions.shape
    # float32 counts exactly to 2**24 pixels, and max_pool2d has no integer form on CUDA
    numbers = torch.arange(1, height * width + 1, device=regions.device, dtype=torch.float32)
    numbers = numbers.view(1, 1, height, width)
    labels = numbers * regions  # (N, 1, h, w), 0 outside
    for _ in range(max_area - 1):
        labels = F.max_pool2d(labels, 3, stride=1, padding=1) * regions
    highest = F.max_pool2d(labels, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(torch.where(regions, -labels, -torch.inf), 3, stride=1, padding=1)
    weight = torch.where(highest == lowest, 1, max_area + 1).flatten(1)  # (N, h*w) int64
    index = labels.flatten(1).long()  # (N, h*w)
    areas = weight.new_zeros(num, height * width + 1).scatter_add_(1, index, weight)
    return regions & (areas.gather(1, index) <= max_area).view_as(regions)
