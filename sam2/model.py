"""SAM 2 as stages: encode -> attend -> decode -> remember. Stateless: the caller keeps the memories.

Legend: B images, N objects, S side of the network's input, h w the stride-16 grid, C model channels, D memory
channels, M memory tokens, P pointers. Attribute names are the official ones, so official files load strictly.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from sam2.config import ModelConfig
from sam2.fixed_options import FixedOptions
from sam2.image_encoder import ImageEncoder
from sam2.layers import MLP
from sam2.linear import Linear
from sam2.mask_decoder import Decoded, MaskDecoder
from sam2.memory_attention import MemoryAttention
from sam2.memory_encoder import MemoryEncoder
from sam2.position import sine_grid, sine_time
from sam2.precision import Precision
from sam2.preprocess import logits_to_input_size, mask_logits
from sam2.prompt_encoder import PADDING, PromptEncoder

NUM_MEMORIES = 7  # one prompted and six recent frames; length of the table of temporal codes
PROMPTED_CODE = NUM_MEMORIES - 1  # the temporal code every prompted frame carries, whatever its age
ABSENT_LOGIT = -1024.0  # mask logits of an object that is not in the frame


class Features(NamedTuple):
    """The encoder's output for B images, ready for the decoder."""

    stride4: Tensor  # (B, C/8, 4h, 4w)
    stride8: Tensor  # (B, C/4, 2h, 2w)
    stride16: Tensor  # (B, C, h, w)


class Segmentation(NamedTuple):
    """The answer for N objects in one frame."""

    low_res_logits: Tensor  # (N, 1, 4h, 4w) float32, ABSENT_LOGIT where the object is absent
    iou: Tensor  # (N,) the decoder's own estimate of the mask's quality
    token: Tensor  # (N,) the mask token used; -1 for a mask prompt
    pointer: Tensor  # (N, C) object pointer
    object_score: Tensor  # (N, 1) presence logit


class SAM2(FixedOptions, nn.Module):
    """The network, untrained until weights are loaded. Source: SAM 2 (arXiv 2408.00714), facebookresearch/sam2."""

    binarize_mask_from_pts_for_mem_enc = True  # official name; False reproduces `apply_postprocessing=False`
    precision = Precision(torch.float32, "as built")

    def __init__(self, config: ModelConfig):
        super().__init__()
        dim, memory_dim = config.d_model, config.memory_dim
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.memory_attention = MemoryAttention(config)
        self.memory_encoder = MemoryEncoder(config)
        self.sam_prompt_encoder = PromptEncoder(config)
        self.sam_mask_decoder = MaskDecoder(config)
        self.obj_ptr_proj = MLP(dim, dim, dim, num_layers=3)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.maskmem_tpos_enc = Parameter(torch.zeros(NUM_MEMORIES, 1, 1, memory_dim))
        self.no_mem_embed = Parameter(torch.zeros(1, 1, dim))
        self.no_mem_pos_enc = Parameter(torch.zeros(1, 1, dim))  # in every official checkpoint, but unused
        self.no_obj_ptr = Parameter(torch.zeros(1, dim))
        if config.stores_occlusion:
            self.no_obj_embed_spatial = Parameter(torch.zeros(1, memory_dim))
        if config.pointers_carry_time:
            self.obj_ptr_tpos_proj = Linear(dim, memory_dim)

    @property
    def device(self) -> torch.device:
        return self.no_mem_embed.device

    @property
    def description(self) -> str:
        """Which network runs where, in which number format and why in that one; for logs."""
        return f"{self.config.name} on {self.device} in {self.precision.name} ({self.precision.reason})"

    @property
    def image_size(self) -> int:
        return self.config.image_size

    def encode_image(self, images: Tensor) -> Features:
        """images (B, 3, S, S) float32, normalised as `preprocess` does."""
        stride4, stride8, stride16 = self.image_encoder(images)
        return Features(self.sam_mask_decoder.conv_s0(stride4), self.sam_mask_decoder.conv_s1(stride8), stride16)

    def no_memory(self, stride16: Tensor) -> Tensor:
        """(B, C, h, w): the features as the decoder takes them for an object without memories."""
        return stride16 + self.no_mem_embed[..., None].transpose(1, 2)

    def self_attend(self, stride16: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, hw, C): the part of `attend` that is the same for all objects of an image."""
        return self.memory_attention.self_attend(stride16)

    def attend(self, self_attended: Tensor, memory: Tensor, memory_pos: Tensor, num_pointer_tokens: int) -> Tensor:
        """(B, hw, C) from `self_attend`, memory (N, M, D), pointer tokens last -> (N, C, h, w); B in {1, N}."""
        return self.memory_attention(self_attended, memory, memory_pos, num_pointer_tokens)

    def spatial_memory(self, maskmem: Tensor, code: int) -> tuple[Tensor, Tensor]:
        """(N, D, h, w) -> tokens and positions, each (N, hw, D).

        code: PROMPTED_CODE for a prompted frame, t - 1 for the frame t back.
        """
        position = self.memory_position(maskmem).flatten(2).transpose(1, 2)
        tokens = maskmem.flatten(2).transpose(1, 2).to(position.dtype)
        return tokens, (position + self.maskmem_tpos_enc[code]).expand_as(tokens)

    def memory_position(self, maskmem: Tensor) -> Tensor:
        """(1, D, h, w): the position code of every cell of a spatial memory (N, D, h, w)."""
        return sine_grid(*maskmem.shape[1:], maskmem.device)

    def pointer_memory(self, pointers: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """pointers (N, P, C), time (P,) or (N, P) in units of the longest pointer memory -> each (N, P * C / D, D).

        A pointer of C channels is split into C / D tokens that share one time code.
        """
        memory_dim = self.config.memory_dim
        tokens = pointers.unflatten(2, (-1, memory_dim)).flatten(1, 2)
        if not self.config.pointers_carry_time:
            return tokens, torch.zeros_like(tokens)
        position = self.obj_ptr_tpos_proj.plain(sine_time(time, pointers.shape[2]))  # (P, D) or (N, P, D)
        return tokens, position.repeat_interleave(pointers.shape[2] // memory_dim, dim=-2).expand_as(tokens)

    def decode(
        self,
        features: Features,
        pixels: Tensor,
        points_xy_model: Tensor | None = None,
        labels: Tensor | None = None,
        mask_input: Tensor | None = None,
    ) -> Decoded:
        """pixels (N, C, h, w) from `attend` or `no_memory`; points (N, K, 2), labels (N, K);
        mask_input (N, 1, 4h, 4w) logits.

        Without points, as in every tracked frame, the prompt is a single padding point.
        """
        if points_xy_model is None:
            points_xy_model = pixels.new_zeros(pixels.shape[0], 1, 2, dtype=torch.float32)
            labels = torch.full((pixels.shape[0], 1), PADDING, device=pixels.device)
        elif labels is None:
            raise TypeError("decode: expected labels with the points, got none")
        encoder = self.sam_prompt_encoder
        sparse = encoder.sparse(points_xy_model, labels)
        pixels = pixels + encoder.dense(mask_input)
        return self.sam_mask_decoder(pixels, features.stride8, features.stride4, encoder.grid_position(), sparse)

    def select(self, decoded: Decoded, multimask: bool) -> Segmentation:
        """Chooses one mask per object and gates mask and pointer by presence."""
        chosen = self.sam_mask_decoder.choose(decoded, multimask)
        is_present = decoded.object_score > 0  # (N, 1)
        logits = torch.where(is_present[..., None, None], chosen.masks, ABSENT_LOGIT).float()
        pointer = self._gate_pointer(self.obj_ptr_proj(chosen.pointer_token), is_present)
        return Segmentation(logits, chosen.iou, chosen.token, pointer, decoded.object_score)

    def segment_mask(self, features: Features, mask: Tensor) -> Segmentation:
        """A mask prompt (N, 1, S, S), 1 inside and 0 outside, is itself the answer; the decoder only supplies the
        pointer."""
        pixels = features.stride16.expand(mask.shape[0], -1, -1, -1)  # without `no_mem_embed`, as upstream
        decoded = self.decode(features, pixels, mask_input=self.mask_downsample(mask))
        pointer = self.select(decoded, multimask=False).pointer
        is_present = (mask > 0).flatten(1).any(dim=1, keepdim=True)  # (N, 1)
        iou = torch.ones(mask.shape[0], dtype=torch.float32, device=mask.device)
        token = torch.full_like(iou, -1, dtype=torch.long)
        pointer = self._gate_pointer(pointer, is_present)
        return Segmentation(mask_logits(mask), iou, token, pointer, is_present.float() * 20.0 - 10.0)

    def encode_memory(
        self, stride16: Tensor, low_res_logits: Tensor, object_score: Tensor, from_prompt: bool
    ) -> Tensor:
        """Raw features (B, C, h, w), B in {1, N}, logits (N, 1, 4h, 4w), scores (N, 1) -> memory (N, D, h, w)."""
        logits = logits_to_input_size(low_res_logits, self.image_size)
        if from_prompt and self.binarize_mask_from_pts_for_mem_enc:
            mask = (logits > 0).to(logits.dtype)
        else:
            mask = logits.sigmoid()
        memory = self.memory_encoder(stride16, mask * 20.0 - 10.0)
        if self.config.stores_occlusion:
            is_absent = (object_score <= 0).to(memory.dtype)
            memory = memory + (is_absent * self.no_obj_embed_spatial)[..., None, None]
        return memory

    def _gate_pointer(self, pointer: Tensor, is_present: Tensor) -> Tensor:
        return torch.where(is_present, pointer, self.no_obj_ptr.to(pointer.dtype))


def is_ambiguous(num_points: int) -> bool:
    """Whether to take the best of three masks: with no point (tracking) or one, several masks are plausible. A box
    counts as two points."""
    return num_points <= 1
