"""The official automatic mask generator's interface: every object of an image, by prompting a grid of points.

Knows the image predictor and what masks are. Drops masks of low predicted IoU before upsampling; the official code
upsamples all of them first, with the same result.
Source: Kirillov et al. 2023 (arXiv 2304.02643), section 5 and appendix B.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import product
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sam2 import preprocess
from sam2.errors import BadInput
from sam2.masks import bounding_box
from sam2.model import SAM2
from sam2.run_lengths import coco_counts, coco_decode, coco_encode
from sam2.sam2_image_predictor import SAM2ImagePredictor

_EDGE = 20  # pixels; a box that ends this close to an inner edge of a crop counts as cut off
_OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


class Crop(NamedTuple):
    """Pixels [x0, x1) x [y0, y1) of the image, prompted at the points of `layer`."""

    x0: int
    y0: int
    x1: int
    y1: int
    layer: int

    @property
    def area(self) -> int:
        return (self.x1 - self.x0) * (self.y1 - self.y0)


@dataclass(frozen=True)
class Found:
    """A mask, in the whole image's pixels."""

    rle: dict[str, Any]  # COCO's, compressed
    box: tuple[int, int, int, int]  # x0 y0 x1 y1 of the first and last pixels, as the official code has it
    iou: float
    stability: float
    point_xy: tuple[float, float]
    crop: Crop


class SAM2AutomaticMaskGenerator:
    """The options are attributes, read by every `generate`: as upstream, they can be set between calls. Only
    `point_grids`, for each layer (K, 2) xy in 0..1, is computed at construction, from `points_per_side`,
    `crop_n_layers` and `crop_n_points_downscale_factor`.

    The default thresholds are upstream's, meant for its large model. `nano` is less sure and less stable: it needs
    `pred_iou_thresh=0.6, stability_score_thresh=0.8`. On frame 0 of its own world, seeds 3000001 to 3000012, 57 objects
    and 16 x 16 points, it finds (IoU above 0.5) none with the defaults, 8 with 0.8 and 0.9, 20 with 0.7 and 0.85, 28
    with 0.6 and 0.8 (45 of 90 masks show an object), 42 with 0.5 and 0.7 (88 of 220).
    """

    def __init__(
        self,
        model: SAM2,
        points_per_side: int | None = 32,  # of the grid over the whole image; None: `point_grids` is given
        points_per_batch: int = 64,  # points prompted at once
        pred_iou_thresh: float = 0.8,  # keeps masks whose predicted IoU is above this; 0 keeps all
        stability_score_thresh: float = 0.95,  # keeps masks whose stability score is at least this; 0 keeps all
        stability_score_offset: float = 1.0,  # logits; how far up and down the threshold moves for the score
        mask_threshold: float = 0.0,  # logit above which a pixel is inside
        box_nms_thresh: float = 0.7,  # within a crop, box IoU above which the worse mask is dropped
        crop_n_layers: int = 0,  # layer k repeats the search in 4 ** k crops
        crop_nms_thresh: float = 0.7,  # as `box_nms_thresh`, between crops; masks of smaller crops win
        crop_overlap_ratio: float = 512 / 1500,  # of two crops of layer 1, share of the image's shorter side
        crop_n_points_downscale_factor: int = 1,  # points per side in layer k are divided by this ** k
        point_grids: Sequence[np.ndarray] | None = None,  # per layer (K, 2) xy in 0..1, instead of `points_per_side`
        min_mask_region_area: int = 0,  # holes and islands of up to this many low-res pixels are removed
        output_mode: str = "binary_mask",
        use_m2m: bool = False,  # prompt a second time, with the first answer as the mask prompt
        multimask_output: bool = True,  # three answers per point
    ):
        """Raises BadInput for a value out of range. Upstream ignores a keyword that it does not know; here that is a
        TypeError."""
        if point_grids is None and points_per_side is not None:
            point_grids = _grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)
        elif point_grids is None or points_per_side is not None:
            raise BadInput("points_per_side, point_grids: expected one of them, the other None")
        self.point_grids = point_grids
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.mask_threshold = mask_threshold
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.use_m2m = use_m2m
        self.multimask_output = multimask_output
        self.predictor = SAM2ImagePredictor(model)
        self._check()

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> "SAM2AutomaticMaskGenerator":
        """`model_id`: "facebook/sam2.1-hiera-tiny" and its siblings; `kwargs`: options and the builder's arguments."""
        from sam2.build_sam import build_sam2_hf

        options = {name: value for name, value in kwargs.items() if name in signature(cls).parameters}
        model = build_sam2_hf(model_id, **{name: value for name, value in kwargs.items() if name not in options})
        return cls(model, **options)

    @torch.no_grad()
    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        """Every mask of an (H, W, 3) uint8 RGB image, smaller crops first, the best masks of each first. Raises
        BadInput.

        Each is a dict: `segmentation`, (H, W) bool or a COCO run-length object by `output_mode`; `area`, pixels; `bbox`
        and `crop_box`, x y width height (a `bbox` ends at its last pixel's centre, so that of a single pixel has width
        0); `predicted_iou`; `stability_score`; `point_coords`, [[x, y]].
        """
        preprocess.check_rgb(image, "image")
        self._check()
        self.predictor.max_hole_area = self.predictor.max_sprinkle_area = self.min_mask_region_area
        found = []
        for crop in crops(image.shape[:2], self.crop_n_layers, self.crop_overlap_ratio):
            found += self._find_in(image, crop)
        if self.crop_n_layers:
            found = _distinct(found, [1 / one.crop.area for one in found], self.crop_nms_thresh)
        return [self._record(one) for one in found]

    def _check(self) -> None:
        """Raises BadInput for an option out of range."""
        if self.output_mode not in _OUTPUT_MODES:
            raise BadInput(f"output_mode: expected one of {', '.join(_OUTPUT_MODES)}, got {self.output_mode!r}")
        _check_at_least(1, points_per_batch=self.points_per_batch)
        _check_at_least(0, crop_n_layers=self.crop_n_layers, min_mask_region_area=self.min_mask_region_area)
        if not 0 <= self.crop_overlap_ratio < 1:
            raise BadInput(f"crop_overlap_ratio: expected from 0 to below 1, got {self.crop_overlap_ratio}")
        if len(self.point_grids) <= self.crop_n_layers:
            raise BadInput(f"point_grids: expected one for each of {self.crop_n_layers + 1} layers")
        for layer in range(self.crop_n_layers + 1):
            xy = np.asarray(self.point_grids[layer])
            if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy):
                raise BadInput(f"point_grids[{layer}]: expected shape (K, 2), K > 0, got {xy.shape}")
            if not ((xy >= 0) & (xy <= 1)).all():
                raise BadInput(
                    f"point_grids[{layer}]: expected x y in 0..1 of the crop, got {xy.min():g} to {xy.max():g}"
                )

    def _find_in(self, image: np.ndarray, crop: Crop) -> list[Found]:
        self.predictor.set_image(np.ascontiguousarray(image[crop.y0 : crop.y1, crop.x0 : crop.x1]))
        xy = np.asarray(self.point_grids[crop.layer], np.float64) * (crop.x1 - crop.x0, crop.y1 - crop.y0)
        points = torch.from_numpy(xy.astype(np.float32))  # (K, 2) pixels of the crop
        found = []
        for asked in points.split(self.points_per_batch):
            found += self._ask(asked, crop, image.shape[:2])
        self.predictor.reset_predictor()
        return _distinct(found, [one.iou for one in found], self.box_nms_thresh)

    def _ask(self, points: Tensor, crop: Crop, size_hw: tuple[int, int]) -> list[Found]:
        ones = torch.ones_like(points[:, :1])
        logits, iou = self.predictor.decode(points[:, None], ones, multimask=self.multimask_output)
        points = points.repeat_interleave(logits.shape[1], 0)  # (M, 2), M answers
        logits, iou = logits.flatten(0, 1), iou.flatten()  # (M, 4h, 4w), (M,)
        if self.use_m2m:
            logits, iou = self._ask_again(points, logits)
        if self.pred_iou_thresh > 0:
            sure = iou > self.pred_iou_thresh
            points, logits, iou = points[sure.cpu()], logits[sure], iou[sure]
        found = []
        for xy, masks, quality in zip(*(x.split(self.points_per_batch) for x in (points, logits, iou)), strict=True):
            found += self._keep(xy, masks, quality, crop, size_hw)
        return found

    def _ask_again(self, points: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts again with M points, each with its logits (M, 4h, 4w) as mask prompt -> logits (M, 4h, 4w), IoUs
        (M,)."""
        parts = []
        for xy, before in zip(*(x.split(self.points_per_batch) for x in (points, logits)), strict=True):
            ones = torch.ones_like(xy[:, :1])
            before = preprocess.as_prompt(before[:, None])
            parts.append(self.predictor.decode(xy[:, None], ones, mask_input=before, multimask=False))
        answers, ious = zip(*parts, strict=True)
        return torch.cat(answers)[:, 0], torch.cat(ious)[:, 0]

    def _keep(self, points: Tensor, logits: Tensor, iou: Tensor, crop: Crop, size_hw: tuple[int, int]) -> list[Found]:
        """Those of M masks that are stable and not cut off by the crop's edge."""
        crop_hw = crop.y1 - crop.y0, crop.x1 - crop.x0
        logits = self.predictor.upsample(logits[:, None], crop_hw)[:, 0]  # (M, crop height, crop width)
        stability = _stability(logits, self.mask_threshold, self.stability_score_offset)  # (M,)
        wanted = self.stability_score_thresh
        stable = (stability >= wanted) | (wanted <= 0)  # stability is NaN for an empty mask
        masks = (logits[stable] > self.mask_threshold).cpu().numpy()
        rows = zip(masks, points[stable.cpu()].tolist(), iou[stable].tolist(), stability[stable].tolist(), strict=True)
        found = []
        for inside, (x, y), quality, steadiness in rows:
            box = _corners(inside, crop)
            if _is_cut(box, crop, size_hw):
                continue
            mask = np.zeros(size_hw, bool)
            mask[crop.y0 : crop.y1, crop.x0 : crop.x1] = inside
            found.append(Found(coco_encode(mask), box, quality, steadiness, (x + crop.x0, y + crop.y0), crop))
        return found

    def _record(self, one: Found) -> dict[str, Any]:
        mask = coco_decode(one.rle)
        rle = one.rle
        if self.output_mode == "uncompressed_rle":
            rle = {"size": list(mask.shape), "counts": coco_counts(mask).tolist()}
        x0, y0, x1, y1 = one.box
        return {
            "segmentation": mask if self.output_mode == "binary_mask" else rle,
            "area": int(mask.sum()),
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "predicted_iou": one.iou,
            "point_coords": [list(one.point_xy)],
            "stability_score": one.stability,
            "crop_box": list(
                map(float, (one.crop.x0, one.crop.y0, one.crop.x1 - one.crop.x0, one.crop.y1 - one.crop.y0))
            ),
        }


def _grids(points_per_side: int, num_layers: int, downscale_factor: int) -> list[np.ndarray]:
    """Per layer 0..num_layers, (K, 2) xy in 0..1: the centres of equal cells, row by row. Raises BadInput."""
    _check_at_least(1, points_per_side=points_per_side, crop_n_points_downscale_factor=downscale_factor)
    grids = []
    for layer in range(num_layers + 1):
        side = int(points_per_side / downscale_factor**layer)
        if not side:
            raise BadInput(
                f"points_per_side: expected enough for a point in layer {layer}, got {points_per_side} / "
                f"{downscale_factor} ** {layer}; ask for more points or fewer layers"
            )
        centres = (np.arange(side) + 0.5) / side
        grids.append(np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2))
    return grids


def _check_at_least(least: int, **options: int) -> None:
    for name, value in options.items():
        if value < least:
            raise BadInput(f"{name}: expected at least {least}, got {value}")


def crops(size_hw: tuple[int, int], num_layers: int, overlap_ratio: float) -> Iterator[Crop]:
    """Yields the whole image, then for k = 1..num_layers 2 ** k x 2 ** k equal, overlapping crops, without those that
    have no pixels in a very small image."""
    height, width = size_hw
    yield Crop(0, 0, width, height, 0)
    for layer in range(1, num_layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size_hw) * 2 / count)
        crop_w, crop_h = (ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for column, row in product(range(count), range(count)):
            x0, y0 = (crop_w - overlap) * column, (crop_h - overlap) * row
            if x0 < width and y0 < height:
                yield Crop(x0, y0, min(x0 + crop_w, width), min(y0 + crop_h, height), layer)


def _stability(logits: Tensor, threshold: float, offset: float) -> Tensor:
    """(M, H, W) -> (M,): area above the higher threshold over area above the lower one."""
    small, large = ((logits > threshold + step).sum((-2, -1)).float() for step in (offset, -offset))
    return small / large


def _corners(inside: np.ndarray, crop: Crop) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a mask in a crop, in the image's pixels; for an empty mask the crop's top left pixel."""
    x, y, width, height = bounding_box(inside) or (0, 0, 1, 1)
    return x + crop.x0, y + crop.y0, x + crop.x0 + width - 1, y + crop.y0 + height - 1


def _is_cut(box: tuple[int, int, int, int], crop: Crop, size_hw: tuple[int, int]) -> bool:
    """Whether a box ends at an edge of its crop that is not an edge of the image."""
    whole = (0, 0, size_hw[1], size_hw[0])
    edges = zip(box, crop[:4], whole, strict=True)
    return any(abs(end - edge) <= _EDGE < abs(end - border) for end, edge, border in edges)


def _distinct(found: list[Found], scores: list[float], threshold: float) -> list[Found]:
    """Greedy non-maximum suppression by box: the best first, without those that overlap a better one too much."""
    boxes = np.array([one.box for one in found], np.float64).reshape(-1, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    area = size[:, 0] * size[:, 1]
    order, kept = np.argsort(-np.array(scores), kind="stable"), []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(found[best])
        shared = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        shared = shared.clip(min=0).prod(1)
        order = order[shared <= threshold * (area[best] + area[order] - shared)]
    return kept
