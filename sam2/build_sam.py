"""The official builders, without hydra: same names, arguments and config paths, so existing scripts run unchanged."""

import re
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import torch

from sam2.checkpoint import load_weights, resized
from sam2.config import ModelConfig, find_config, official_yaml
from sam2.device import check_kernels
from sam2.errors import BadInput
from sam2.fixed_options import Fixed, FixedOptions
from sam2.model import SAM2
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.weights_cache import OFFICIAL_SHA256, download_weights, find_in_hub_cache

_Model = TypeVar("_Model", bound=SAM2)
_DEFAULT_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # upstream: "cuda", which fails without a GPU

HF_MODEL_ID_TO_FILENAMES = {  # upstream's name, which scripts import: model id -> (config path, weights file)
    f"facebook/{name.replace('_', '-')}": (official_yaml(name), f"{name}.pt")
    for name in (file.removesuffix(".pt") for file in OFFICIAL_SHA256)
}

_SIZE = re.compile(r"\+*model\.image_size=(\d+)")  # the one override that must be known at construction
_OPTIONS = {  # overrides that can be set afterwards
    "fill_hole_area": int,
    "non_overlap_masks": bool,
    "clear_non_cond_mem_around_input": bool,
    "add_all_frames_to_correct_as_cond": bool,
    "binarize_mask_from_pts_for_mem_enc": bool,
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": bool,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": float,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": float,
}

_CLASSES = {  # what `_target_` may name -> what is built here; upstream's compiled predictor is not a separate class
    "sam2.modeling.sam2_base.SAM2Base": SAM2,
    "sam2.sam2_video_predictor.SAM2VideoPredictor": SAM2VideoPredictor,
    "sam2.sam2_video_predictor.SAM2VideoPredictorVOS": SAM2VideoPredictor,
}


def build_sam2(
    config_file: str,
    ckpt_path: str | Path | None = None,
    device: str | torch.device = _DEFAULT_DEVICE,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    **kwargs: Any,
) -> SAM2:
    """Builds the model, for example for `SAM2ImagePredictor`.

    `config_file`: "configs/sam2.1/sam2.1_hiera_t.yaml" or any name that `find_config` takes. Without `ckpt_path` the
    weights are untrained. `apply_postprocessing`: an unstable single mask falls back to the best of three; as upstream,
    its options win over those of `hydra_overrides_extra`. Raises BadInput for an unknown config or override,
    BadCheckpoint for unusable weights.
    """
    config = _sized(find_config(config_file), hydra_overrides_extra)
    return _finish(SAM2(config), ckpt_path, device, mode, hydra_overrides_extra, apply_postprocessing)


def build_sam2_video_predictor(
    config_file: str,
    ckpt_path: str | Path | None = None,
    device: str | torch.device = _DEFAULT_DEVICE,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    **kwargs: Any,
) -> SAM2VideoPredictor:
    """Like `build_sam2`; `apply_postprocessing` also closes holes of up to 8 pixels and binarises the masks of prompted
    frames for the memory encoder. `vos_optimized` is accepted and changes nothing: upstream's compilation changes
    numbers slightly, and the fast path here is `sam2.Tracker`."""
    predictor = SAM2VideoPredictor(_sized(find_config(config_file), hydra_overrides_extra))
    predictor.binarize_mask_from_pts_for_mem_enc = False
    return _finish(predictor, ckpt_path, device, mode, hydra_overrides_extra, apply_postprocessing)


def build_sam2_hf(model_id: str, **kwargs: Any) -> SAM2:
    """`model_id`: "facebook/sam2.1-hiera-tiny" and its siblings; weights come from Hugging Face's cache or ours, or are
    downloaded."""
    return build_sam2(model_id, ckpt_path=_hub_weights(model_id), **kwargs)


def build_sam2_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
    """Like `build_sam2_hf`, for video."""
    return build_sam2_video_predictor(model_id, ckpt_path=_hub_weights(model_id), **kwargs)


def _hub_weights(model_id: str) -> Path:
    return find_in_hub_cache(model_id) or download_weights(model_id)


def _finish(
    model: _Model,
    ckpt_path: str | Path | None,
    device: str | torch.device,
    mode: str,
    overrides: Sequence[str],
    apply_postprocessing: bool,
) -> _Model:
    decoder = model.sam_mask_decoder
    decoder.dynamic_multimask_via_stability = False
    for override in overrides:
        if not _SIZE.fullmatch(override):
            _apply_override(model, override)
    if apply_postprocessing:
        decoder.dynamic_multimask_via_stability = True
        decoder.dynamic_multimask_stability_delta = 0.05
        decoder.dynamic_multimask_stability_thresh = 0.98
        if isinstance(model, SAM2VideoPredictor):
            model.binarize_mask_from_pts_for_mem_enc, model.fill_hole_area = True, 8
    if ckpt_path is not None:
        load_weights(model, ckpt_path)
    check_kernels(torch.device(device))
    return model.to(device, torch.float32).train(mode != "eval")


def _sized(config: ModelConfig, overrides: Sequence[str]) -> ModelConfig:
    """The config with the input size that the overrides ask for, which a built model cannot change."""
    sizes = [int(found[1]) for found in map(_SIZE.fullmatch, overrides) if found]
    return resized(config, sizes[-1] if sizes else None)


def _apply_override(model: SAM2, override: str) -> None:
    """Applies one override: "++model.fill_hole_area=8" sets `model.fill_hole_area`. Raises BadInput for an option that
    does not exist here, a bad value, or a value of `FixedOptions` other than its own."""
    path, _, text = override.lstrip("+").partition("=")
    path, text = path.removeprefix("model."), text.strip()
    part, _, name = path.rpartition(".")
    owner = model.sam_mask_decoder if part else model
    if isinstance(getattr(FixedOptions, path, None), Fixed):
        return setattr(model, path, _any_value(text))
    if _changes_nothing(model, path, text):
        return
    if path not in _OPTIONS or not hasattr(owner, name):
        known = ", ".join(("image_size", *_OPTIONS))
        raise BadInput(
            f"hydra_overrides_extra: expected an option such as ++model.fill_hole_area=8, of {known}, got {override!r}"
        )
    value = _value(text, _OPTIONS[path])
    if value is None:
        wanted = {bool: "true or false", int: "an integer >= 0", float: "a finite number"}[_OPTIONS[path]]
        raise BadInput(f"hydra_overrides_extra: expected {wanted} for {path}, got {override!r}")
    setattr(owner, name, value)


def _changes_nothing(model: SAM2, path: str, text: str) -> bool:
    """Whether an override that sets no attribute states what holds here anyway, or affects only upstream's speed."""
    match path:
        case "compile_image_encoder":  # as `vos_optimized`
            return _value(text, bool) is not None
        case "no_obj_embed_spatial":  # the attribute of this name is the Parameter, not the option
            return _value(text, bool) is model.config.stores_occlusion
        case "_target_":
            return _CLASSES.get(text) is type(model)
    return False


def _any_value(text: str) -> bool | int | float | str:
    values = (_value(text, kind) for kind in (bool, int, float))
    return next((value for value in values if value is not None), text)


def _value(text: str, kind: type) -> bool | int | float | None:
    """None if `text` does not spell a value of this kind."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    if kind is int:
        return int(text) if text.isdecimal() else None
    with suppress(ValueError):
        return float(text) if isfinite(float(text)) else None
    return None
