"""The official image predictor's interface: set an image once, then ask for masks as often as you like.

Knows nothing about video: no memory, and presence does not gate the masks.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL.Image import Image
from torch import Tensor

from sam2 import preprocess
from sam2.errors import BadInput
from sam2.model import SAM2, Features
from sam2.predictor_inputs import check_labels, finite_floats
from sam2.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from sam2.small_holes import small_regions

_LACKING = ("_predict", "_prep_prompts", "_transforms", "_bb_feat_sizes")  # of upstream; fine-tuning scripts use them
Masks = tuple[np.ndarray, np.ndarray, np.ndarray]  # masks (C, H, W), IoUs (C,), low-res logits (C, 4h, 4w)


class SAM2ImagePredictor:
    """`max_hole_area`, `max_sprinkle_area`: holes and islands of up to this many low-res pixels are removed; 0 keeps
    them."""

    def __init__(
        self,
        sam_model: SAM2,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        **kwargs: Any,
    ):
        self.model = sam_model
        self.mask_threshold = mask_threshold
        self.max_hole_area = max_hole_area
        self.max_sprinkle_area = max_sprinkle_area
        self.reset_predictor()

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> "SAM2ImagePredictor":
        """`model_id`: "facebook/sam2.1-hiera-tiny" and its siblings."""
        from sam2.build_sam import build_sam2_hf

        return cls(build_sam2_hf(model_id, **kwargs), **kwargs)

    if not TYPE_CHECKING:  # to a type checker, a class with __getattr__ has attributes of every name

        def __getattr__(self, name: str) -> NoReturn:
            """Python calls this only for attributes that do not exist."""
            if name in _LACKING:
                raise AttributeError(
                    f"SAM2ImagePredictor.{name}: a private part of Meta's own sam2 that this package does not have; "
                    "expected set_image, predict or their batched forms, or that package"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def device(self) -> torch.device:
        return self.model.device

    def reset_predictor(self) -> None:
        """Forgets the image."""
        # Upstream's private names: its notebooks print them, and scripts save and restore them to switch images.
        self._is_image_set = False
        self._features: Any = None  # of one image or several: a dict with upstream's keys
        self._orig_hw: list[tuple[int, int]] = []  # of the source images
        self._is_batch = False

    def set_image(self, image: np.ndarray | Image) -> None:
        """image: (H, W, 3) uint8 RGB, or a PIL image. Raises BadInput, keeping the image set before."""
        self._set([_as_rgb(image)], is_batch=False)

    def set_image_batch(self, image_list: list[np.ndarray]) -> None:
        """Images of any sizes, each (H, W, 3) uint8 RGB. Raises BadInput, keeping the images set before."""
        if not isinstance(image_list, list) or not image_list:
            raise BadInput(f"image_list: expected a non-empty list of images, got {type(image_list).__name__}")
        self._set([_as_rgb(image) for image in image_list], is_batch=True)

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Masks:
        """Masks for one prompt or for N prompts on the image.

        points (K, 2) or (N, K, 2) and boxes (4,) or (N, 4) in source pixels (in 0..1 with `normalize_coords=False`),
        labels (K,) or (N, K), mask_input (1, 4h, 4w) logits from an earlier call or (N, 1, 4h, 4w). As upstream, points
        and boxes may lie outside the image. A single prompt or mask is combined with each of N masks or prompts.

        Returns float32 masks (0 and 1, or logits with `return_logits`), with a leading N for N prompts. C is 3 with
        `multimask_output`, else 1. Raises BadInput for a bad prompt, RuntimeError without an image.
        """
        if not self._is_image_set:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        prompts = point_coords, point_labels, box, mask_input
        return self._predict_one(-1, *prompts, multimask_output, return_logits, normalize_coords)

    def predict_batch(
        self,
        point_coords_batch: Sequence[ArrayLike | None] | None = None,
        point_labels_batch: Sequence[ArrayLike | None] | None = None,
        box_batch: Sequence[ArrayLike | None] | None = None,
        mask_input_batch: Sequence[ArrayLike | None] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """`predict` for each image of `set_image_batch`, prompts given as one entry per image."""
        if not self._is_image_set or not self._is_batch:
            raise RuntimeError("Images must be set with .set_image_batch(...) before batched mask prediction.")
        batches = point_coords_batch, point_labels_batch, box_batch, mask_input_batch
        count = len(self._orig_hw)
        for batch in batches:
            if batch is not None and len(batch) != count:
                raise BadInput(f"predict_batch: expected one entry per image ({count}) in each batch, got {len(batch)}")
        points, labels, boxes, before = ([None] * count if batch is None else batch for batch in batches)
        answers = [
            self._predict_one(
                i, points[i], labels[i], boxes[i], before[i], multimask_output, return_logits, normalize_coords
            )
            for i in range(count)
        ]
        masks, ious, low_res = zip(*answers, strict=True)
        return list(masks), list(ious), list(low_res)

    def get_image_embedding(self) -> Tensor:
        """(B, C, h, w), `no_mem_embed` included. Raises RuntimeError without an image."""
        if not self._is_image_set:
            raise RuntimeError("An image must be set with .set_image(...) to generate an embedding.")
        return self._features["image_embed"]

    @torch.no_grad()
    def _set(self, images: list[np.ndarray], is_batch: bool) -> None:
        side = self.model.image_size
        batch = torch.stack([preprocess.to_image_predictor_input(rgb, side) for rgb in images]).to(self.device)
        stride4, stride8, stride16 = self.model.encode_image(batch)
        self._features = {"image_embed": self.model.no_memory(stride16), "high_res_feats": [stride4, stride8]}
        self._is_image_set = True
        self._orig_hw = [rgb.shape[:2] for rgb in images]
        self._is_batch = is_batch

    @torch.no_grad()
    def _predict_one(
        self,
        index: int,
        points: ArrayLike | None,
        labels: ArrayLike | None,
        box: ArrayLike | None,
        mask_input: ArrayLike | None,
        multimask: bool,
        return_logits: bool,
        in_pixels: bool,
    ) -> Masks:
        size_hw = self._orig_hw[index]
        given = self._point_inputs(points, labels, box, size_hw if in_pixels else (1, 1))
        logits, iou = self._decode(index, given, self._mask_input(mask_input), multimask)
        masks = self.upsample(logits, size_hw)
        masks = masks if return_logits else masks > self.mask_threshold
        return _as_numpy(masks), _as_numpy(iou), _as_numpy(preprocess.as_prompt(logits))

    @torch.no_grad()
    def decode(
        self, points: Tensor, labels: Tensor, mask_input: Tensor | None = None, multimask: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The network's answers to N prompts, not upsampled, on its device: logits (N, C, 4h, 4w) and IoUs (N, C). For
        `sam2.automatic_mask_generator`, which drops most of them before upsampling.

        points (N, K, 2) pixels of the image, labels (N, K), mask_input (N, 1, 4h, 4w) logits. Raises BadInput.
        """
        given = self._point_inputs(points, labels, None, self._orig_hw[-1])
        logits, iou = self._decode(-1, given, self._mask_input(mask_input), multimask)
        return logits.float(), iou.float()

    def upsample(self, logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """(N, C, 4h, 4w) logits -> (N, C, H, W) float32, without small holes and islands."""
        return preprocess.logits_to_pixels(self._without_specks(logits.float()), size_hw)

    def _decode(
        self, index: int, points: tuple[Tensor, Tensor] | None, mask_input: Tensor | None, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """(N, C, 4h, 4w) logits and (N, C) IoUs. `points`: from `_point_inputs`."""
        encoder, decoder = self.model.sam_prompt_encoder, self.model.sam_mask_decoder
        kept = *self._features["high_res_feats"], self._features["image_embed"]
        image = Features(*(feature[index][None] for feature in kept))
        # Without points there is no padding token either, unlike in video.
        sparse = image.stride16.new_zeros(1, 0, image.stride16.shape[1]) if points is None else encoder.sparse(*points)
        pixels = image.stride16 + encoder.dense(mask_input)
        count = max(len(sparse), len(pixels))  # N prompts and one mask, one prompt and N masks, or N of both
        if {len(sparse), len(pixels)} - {1, count}:
            raise BadInput(f"mask_input: expected one, or one for each of {len(sparse)} prompts, got {len(pixels)}")
        sparse, pixels = sparse.expand(count, -1, -1), pixels.expand(count, -1, -1, -1)
        decoded = decoder(pixels, image.stride8, image.stride4, encoder.grid_position(), sparse)
        if multimask:
            logits, iou = decoded.masks[:, 1:], decoded.iou[:, 1:]
        else:
            chosen = decoder.choose(decoded, multimask=False)
            logits, iou = chosen.masks, chosen.iou[:, None]
        return logits, iou

    def _point_inputs(
        self, points: ArrayLike | None, labels: ArrayLike | None, box: ArrayLike | None, size_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor] | None:
        """(N, K, 2) network-input pixels and (N, K) labels, box corners first; None without points or a box. As
        upstream, labels without points are ignored, and K may be 0: then the network gets only the padding point."""
        xy, marks = [], []
        if box is not None:
            corners = finite_floats("box", box)
            if (corners.shape[-1:] != (4,) and corners.shape[-2:] != (2, 2)) or not corners.numel():
                raise BadInput(f"box: expected shape (4,) or (N, 4), N > 0, got {tuple(corners.shape)}")
            xy.append(corners.reshape(-1, 2, 2))
            both = torch.tensor([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]], device="cpu")
            marks.append(both.expand(xy[0].shape[0], -1))
        given = None if points is None else finite_floats("point_coords", points)
        if given is not None and box is not None and 0 in given.shape:
            check_labels([] if labels is None else labels, (0,))
            given = None  # upstream's way of saying "only the box"
        if given is not None:
            count = given.shape[:-2].numel()  # prompts
            if given.dim() not in (2, 3) or given.shape[-1] != 2 or not count:
                raise BadInput(f"point_coords: expected shape (K, 2) or (N, K, 2), N > 0, got {tuple(given.shape)}")
            if labels is None:
                raise BadInput("point_labels: expected one label per point, got none")
            given_marks = check_labels(labels, given.shape[:-1])
            xy.append(given.reshape(count, *given.shape[-2:]))
            marks.append(given_marks.reshape(xy[-1].shape[:-1]))
        if not xy:
            return None
        if len({x.shape[0] for x in xy}) > 1:
            raise BadInput(f"box and point_coords: expected as many prompts in both, got {[x.shape[0] for x in xy]}")
        model_xy = preprocess.points_to_model(torch.cat(xy, dim=1), size_hw, self.model.image_size)
        return model_xy.to(self.device), torch.cat(marks, dim=1).to(self.device)

    def _mask_input(self, mask_input: ArrayLike | None) -> Tensor | None:
        if mask_input is None:
            return None
        side = 4 * self.model.config.grid_size
        logits = finite_floats("mask_input", mask_input)
        if logits.dim() not in (3, 4) or logits.shape[-3:] != (1, side, side):
            raise BadInput(f"mask_input: expected shape (1, {side}, {side}), got {tuple(logits.shape)}")
        return logits.reshape(-1, 1, side, side).to(self.device)

    def _without_specks(self, logits: Tensor) -> Tensor:
        """Sets small holes to 10 above the mask threshold, small islands to 10 below it."""
        flat = logits.flatten(0, 1)[:, None]
        is_inside = flat > self.mask_threshold
        if self.max_hole_area:
            flat = torch.where(small_regions(~is_inside, int(self.max_hole_area)), self.mask_threshold + 10.0, flat)
        if self.max_sprinkle_area:
            flat = torch.where(small_regions(is_inside, int(self.max_sprinkle_area)), self.mask_threshold - 10.0, flat)
        return flat.reshape(logits.shape)


def _as_numpy(x: Tensor) -> np.ndarray:
    return x.squeeze(0).float().cpu().numpy()


def _as_rgb(image: np.ndarray | Image) -> np.ndarray:
    if isinstance(image, Image):
        if image.mode[0] in "IF":  # Pillow would cut them off at 255
            raise BadInput(f"image: expected channels of 8 bits, got a PIL image of mode {image.mode}; scale it first")
        return np.array(image.convert("RGB"))
    preprocess.check_rgb(image, "image")
    return image
