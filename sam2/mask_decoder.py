"""The mask decoder: features and prompt tokens become four masks, their quality, presence and mask tokens.

Token 0 answers an unambiguous prompt; tokens 1 to 3 are the alternatives for an ambiguous one.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sam2.attention import Attention
from sam2.config import ModelConfig
from sam2.layers import MLP, LayerNorm2d
from sam2.linear import Conv1x1

NUM_MASK_TOKENS = 4


class Decoded(NamedTuple):
    """The decoder's raw output, before one mask is chosen and before gating by presence."""

    masks: Tensor  # (N, 4, 4h, 4w) logits
    iou: Tensor  # (N, 4) estimated quality, 0..1
    mask_tokens: Tensor  # (N, 4, C)
    object_score: Tensor  # (N, 1) presence logit


class Chosen(NamedTuple):
    """One mask per object, not yet gated by presence."""

    masks: Tensor  # (N, 1, 4h, 4w) logits
    iou: Tensor  # (N,) estimated quality of that mask
    token: Tensor  # (N,) 0..3, where the mask came from
    pointer_token: Tensor  # (N, C) the mask token that the object pointer is made of


class MaskDecoder(nn.Module):
    """The three `dynamic_multimask_*` attributes are the official ones: when a prompt asks for one mask and token 0 is
    unstable (its area changes too much with the threshold), the best alternative answers instead."""

    dynamic_multimask_via_stability = True
    dynamic_multimask_stability_delta = 0.05
    dynamic_multimask_stability_thresh = 0.98

    def __init__(self, config: ModelConfig):
        super().__init__()
        dim = config.d_model
        self.transformer = TwoWayTransformer(config)
        self.obj_score_token = nn.Embedding(1, dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(NUM_MASK_TOKENS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = Conv1x1(dim, dim // 8)
        self.conv_s1 = Conv1x1(dim, dim // 4)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(NUM_MASK_TOKENS))
        self.iou_prediction_head = MLP(dim, dim, NUM_MASK_TOKENS, 3)
        self.pred_obj_score_head = MLP(dim, dim, 1, 3)

    def forward(
        self, pixels: Tensor, stride8: Tensor, stride4: Tensor, grid_position: Tensor, sparse: Tensor
    ) -> Decoded:
        """pixels (N, C, h, w) with the dense prompt added; stride8 (B, C/4, 2h, 2w) and stride4 (B, C/8, 4h, 4w) after
        `conv_s1` and `conv_s0`, B in {1, N}; grid_position (1, C, h, w); sparse (N, K, C)."""
        height, width = pixels.shape[2:]
        outputs = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((outputs.expand(sparse.shape[0], -1, -1), sparse), dim=1)  # (N, 6 + K, C)
        tokens, pixels = self.transformer(
            tokens, pixels.flatten(2).transpose(1, 2), grid_position.flatten(2).transpose(1, 2)
        )
        object_token, iou_token, mask_tokens = tokens[:, 0], tokens[:, 1], tokens[:, 2 : 2 + NUM_MASK_TOKENS]
        up1, norm, act1, up2, act2 = self.output_upscaling
        pixels = pixels.transpose(1, 2).unflatten(2, (height, width))
        pixels = act1(norm(up1(pixels) + stride8))  # (N, C/4, 2h, 2w)
        pixels = act2(up2(pixels) + stride4)  # (N, C/8, 4h, 4w)
        weights = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )  # (N, 4, C/8)
        masks = (weights @ pixels.flatten(2)).unflatten(2, pixels.shape[2:])  # (N, 4, 4h, 4w)
        return Decoded(
            masks, self.iou_prediction_head(iou_token).sigmoid(), mask_tokens, self.pred_obj_score_head(object_token)
        )

    def choose(self, decoded: Decoded, multimask: bool) -> Chosen:
        """Best of the alternatives for an ambiguous prompt, else token 0 with the stability fallback."""
        best = decoded.iou[:, 1:].argmax(dim=-1) + 1  # (N,) 1..3: by the decoder's own estimate
        if multimask:
            token, pointer_token = best, take(decoded.mask_tokens, best)
        else:
            token = torch.zeros_like(best)
            if self.dynamic_multimask_via_stability and not self.training:
                share = stability(decoded.masks[:, 0], self.dynamic_multimask_stability_delta)
                token = torch.where(share >= self.dynamic_multimask_stability_thresh, token, best)
            pointer_token = decoded.mask_tokens[:, 0]  # even when an alternative supplies the mask
        return Chosen(take(decoded.masks, token)[:, None], take(decoded.iou, token), token, pointer_token)


class TwoWayTransformer(nn.Module):
    """Tokens attend to pixels and pixels to tokens, twice."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        dim = config.d_model
        self.layers = nn.ModuleList(TwoWayBlock(config, is_first=i == 0) for i in range(2))
        self.final_attn_token_to_image = Attention(dim, num_heads=8, dim_inside=dim // 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, pixels: Tensor, pixel_pos: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (N, T, C), pixels (N, hw, C), pixel_pos (1, hw, C) -> both updated."""
        token_pos = tokens  # the prompt itself serves as its position throughout
        for layer in self.layers:
            tokens, pixels = layer(tokens, pixels, token_pos, pixel_pos)
        attended = self.final_attn_token_to_image(tokens + token_pos, pixels + pixel_pos, pixels)
        return self.norm_final_attn(tokens + attended), pixels


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, then to pixels, pass an MLP, and pixels attend to them (arXiv 2304.02643, A)."""

    def __init__(self, config: ModelConfig, is_first: bool):
        super().__init__()
        dim = config.d_model
        self.is_first = is_first
        self.self_attn = Attention(dim, num_heads=8)
        self.cross_attn_token_to_image = Attention(dim, num_heads=8, dim_inside=dim // 2)
        self.mlp = MLP(dim, config.feedforward_dim, dim, num_layers=2)
        self.cross_attn_image_to_token = Attention(dim, num_heads=8, dim_inside=dim // 2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))

    def forward(self, tokens: Tensor, pixels: Tensor, token_pos: Tensor, pixel_pos: Tensor) -> tuple[Tensor, Tensor]:
        """tokens and token_pos (N, T, C), pixels (N, hw, C), pixel_pos (1, hw, C) -> tokens and pixels, updated."""
        if self.is_first:  # tokens still equal their position: neither it nor a residual is added
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            query = tokens + token_pos
            tokens = tokens + self.self_attn(query, query, tokens)
        tokens = self.norm1(tokens)
        placed_pixels = pixels + pixel_pos
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pos, placed_pixels, pixels))
        tokens = self.norm3(tokens + self.mlp(tokens))
        pixels = self.norm4(pixels + self.cross_attn_image_to_token(placed_pixels, tokens + token_pos, tokens))
        return tokens, pixels


def stability(masks: Tensor, delta: float) -> Tensor:
    """(...,) of logits (..., H, W): the area above +delta over the area above -delta; 1 where both are empty."""
    inner = (masks > delta).sum(dim=(-2, -1)).float()
    outer = (masks > -delta).sum(dim=(-2, -1)).float()
    return torch.where(outer > 0, inner / outer, 1.0)


def take(x: Tensor, token: Tensor) -> Tensor:
    """x (N, 4, ...) at one token per object (N,) -> (N, ...)."""
    return x[torch.arange(x.shape[0], device=x.device), token]
