"""Renames state dicts between Hugging Face's `facebook/sam2*-hiera-*` (`Sam2VideoModel`) and ours, which are Meta's.

One table of (their name, our name), read in both directions. `{}` stands for a number; a line also covers its `.weight`
and `.bias`.
"""

import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

_DECODER = (
    ("transformer.layers.{}.self_attn.{p}", "transformer.layers.{}.self_attn.{p}"),
    ("transformer.layers.{}.cross_attn_token_to_image.{p}", "transformer.layers.{}.cross_attn_token_to_image.{p}"),
    ("transformer.layers.{}.cross_attn_image_to_token.{p}", "transformer.layers.{}.cross_attn_image_to_token.{p}"),
    ("transformer.final_attn_token_to_image.{p}", "transformer.final_attn_token_to_image.{p}"),
    ("transformer.layers.{}.layer_norm{}", "transformer.layers.{}.norm{}"),
    ("transformer.layers.{}.mlp.proj_in", "transformer.layers.{}.mlp.layers.0"),
    ("transformer.layers.{}.mlp.proj_out", "transformer.layers.{}.mlp.layers.1"),
    ("transformer.layer_norm_final_attn", "transformer.norm_final_attn"),
    ("obj_score_token", "obj_score_token"),
    ("iou_token", "iou_token"),
    ("mask_tokens", "mask_tokens"),
    ("upscale_conv1", "output_upscaling.0"),
    ("upscale_layer_norm", "output_upscaling.1"),
    ("upscale_conv2", "output_upscaling.3"),
    ("conv_s{}", "conv_s{}"),
    ("output_hypernetworks_mlps.{}.{mlp3}", "output_hypernetworks_mlps.{}.{mlp3}"),
    ("iou_prediction_head.{mlp3}", "iou_prediction_head.{mlp3}"),
    ("pred_obj_score_head.{mlp3}", "pred_obj_score_head.{mlp3}"),
)
_THEIR_MASK, _OUR_MASK = "memory_encoder.mask_downsampler.layers", "memory_encoder.mask_downsampler.encoder"
_TABLE = (
    ("no_memory_embedding", "no_mem_embed"),
    ("no_memory_positional_encoding", "no_mem_pos_enc"),
    ("memory_temporal_positional_encoding", "maskmem_tpos_enc"),
    ("no_object_pointer", "no_obj_ptr"),
    ("occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"),
    ("mask_downsample", "mask_downsample"),
    ("object_pointer_proj.{mlp3}", "obj_ptr_proj.{mlp3}"),
    ("temporal_positional_encoding_projection_layer", "obj_ptr_tpos_proj"),
    ("vision_encoder.backbone.pos_embed", "image_encoder.trunk.pos_embed"),
    ("vision_encoder.backbone.pos_embed_window", "image_encoder.trunk.pos_embed_window"),
    ("vision_encoder.backbone.patch_embed.projection", "image_encoder.trunk.patch_embed.proj"),
    ("vision_encoder.backbone.blocks.{}.layer_norm{}", "image_encoder.trunk.blocks.{}.norm{}"),
    ("vision_encoder.backbone.blocks.{}.attn.qkv", "image_encoder.trunk.blocks.{}.attn.qkv"),
    ("vision_encoder.backbone.blocks.{}.attn.proj", "image_encoder.trunk.blocks.{}.attn.proj"),
    ("vision_encoder.backbone.blocks.{}.mlp.proj_in", "image_encoder.trunk.blocks.{}.mlp.layers.0"),
    ("vision_encoder.backbone.blocks.{}.mlp.proj_out", "image_encoder.trunk.blocks.{}.mlp.layers.1"),
    ("vision_encoder.backbone.blocks.{}.proj", "image_encoder.trunk.blocks.{}.proj"),
    ("vision_encoder.neck.convs.{}", "image_encoder.neck.convs.{}.conv"),
    ("prompt_encoder.not_a_point_embed", "sam_prompt_encoder.not_a_point_embed"),
    ("prompt_encoder.no_mask_embed", "sam_prompt_encoder.no_mask_embed"),
    ("prompt_encoder.mask_embed.conv1", "sam_prompt_encoder.mask_downscaling.0"),
    ("prompt_encoder.mask_embed.layer_norm1", "sam_prompt_encoder.mask_downscaling.1"),
    ("prompt_encoder.mask_embed.conv2", "sam_prompt_encoder.mask_downscaling.3"),
    ("prompt_encoder.mask_embed.layer_norm2", "sam_prompt_encoder.mask_downscaling.4"),
    ("prompt_encoder.mask_embed.conv3", "sam_prompt_encoder.mask_downscaling.6"),
    ("memory_attention.layers.{}.self_attn.{p}", "memory_attention.layers.{}.self_attn.{p}"),
    ("memory_attention.layers.{}.cross_attn_image.{p}", "memory_attention.layers.{}.cross_attn_image.{p}"),
    ("memory_attention.layers.{}.linear{}", "memory_attention.layers.{}.linear{}"),
    ("memory_attention.layers.{}.layer_norm{}", "memory_attention.layers.{}.norm{}"),
    ("memory_attention.layer_norm", "memory_attention.norm"),
    *((f"{_THEIR_MASK}.{i}.conv", f"{_OUR_MASK}.{3 * i}") for i in range(4)),
    *((f"{_THEIR_MASK}.{i}.layer_norm", f"{_OUR_MASK}.{3 * i + 1}") for i in range(4)),
    ("memory_encoder.mask_downsampler.final_conv", "memory_encoder.mask_downsampler.encoder.12"),
    ("memory_encoder.feature_projection", "memory_encoder.pix_feat_proj"),
    ("memory_encoder.memory_fuser.layers.{}.scale", "memory_encoder.fuser.layers.{}.gamma"),
    ("memory_encoder.memory_fuser.layers.{}.depthwise_conv", "memory_encoder.fuser.layers.{}.dwconv"),
    ("memory_encoder.memory_fuser.layers.{}.layer_norm", "memory_encoder.fuser.layers.{}.norm"),
    ("memory_encoder.memory_fuser.layers.{}.pointwise_conv{}", "memory_encoder.fuser.layers.{}.pwconv{}"),
    ("memory_encoder.projection", "memory_encoder.out_proj"),
    *((f"mask_decoder.{theirs}", f"sam_mask_decoder.{ours}") for theirs, ours in _DECODER),
)
_EXPANSIONS = {  # placeholders that stand for several lines: (their name, our name)
    "{p}": (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("o_proj", "out_proj")),
    "{mlp3}": (("proj_in", "layers.0"), ("layers.0", "layers.1"), ("proj_out", "layers.2")),
}

# Stored differently: theirs keeps one random projection twice, and the four label embeddings as one tensor.
_THEIR_PROJECTIONS = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)
_OUR_PROJECTION = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_THEIR_LABELS, _OUR_LABEL = "prompt_encoder.point_embed.weight", "sam_prompt_encoder.point_embeddings.{}.weight"


def is_hugging_face(names: Iterable[str]) -> bool:
    """Whether a state dict's names are Hugging Face's."""
    return any(name.startswith("vision_encoder.backbone.") for name in names)


def from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their state dict under our names; names that are not in the table stay as they are."""
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == _THEIR_LABELS and tensor.dim() == 2:
            ours |= {_OUR_LABEL.format(label): row[None] for label, row in enumerate(tensor)}
        elif name in _THEIR_PROJECTIONS:
            ours[_OUR_PROJECTION] = tensor
        else:
            ours[_rename(name, _TO_OURS)] = tensor
    return ours


def to_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under their names."""
    theirs = {_rename(n, _TO_THEIRS): t for n, t in state.items() if not n.startswith("sam_prompt_encoder.p")}
    theirs |= dict.fromkeys(_THEIR_PROJECTIONS, state[_OUR_PROJECTION])
    theirs[_THEIR_LABELS] = torch.cat([state[_OUR_LABEL.format(label)] for label in range(4)])
    return theirs


def _expanded(table: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for theirs, ours in table:
        placeholder = next((key for key in _EXPANSIONS if key in theirs), None)
        if placeholder is None:
            yield theirs, ours
        else:
            yield from (
                (theirs.replace(placeholder, a), ours.replace(placeholder, b)) for a, b in _EXPANSIONS[placeholder]
            )


def _patterns(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern, str]]:
    return [(re.compile(re.escape(a).replace(r"\{\}", r"(\d+)") + r"(\.weight|\.bias)?"), b + "{}") for a, b in pairs]


def _rename(name: str, patterns: list[tuple[re.Pattern, str]]) -> str:
    for pattern, template in patterns:
        match = pattern.fullmatch(name)
        if match:
            return template.format(*(group or "" for group in match.groups()))
    return name


_PAIRS = tuple(_expanded(_TABLE))
_TO_OURS = _patterns(_PAIRS)
_TO_THEIRS = _patterns((ours, theirs) for theirs, ours in _PAIRS)
