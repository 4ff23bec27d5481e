"""The official model's options that have a single value here: the one that every official YAML file gives them.

One table for the builders' overrides and for the model's attributes. What upstream does with another value is not
implemented here, so such a value is refused rather than ignored.
"""

from typing import Any

from sam2.errors import BadInput


class Fixed:
    """An attribute that can be read, and set only to the value it has. `value`: that value, or a function of the
    model's config. `instead`: what the error suggests to users who want another value."""

    def __init__(self, value: Any, instead: str = "only Meta's own sam2 has others"):
        self._value, self._instead = value, instead

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: Any, owner: type) -> Any:
        if model is None:
            return self
        return self._value(model.config) if callable(self._value) else self._value

    def __set__(self, model: Any, value: object) -> None:
        """Raises BadInput for another value."""
        if value != (only := self.__get__(model, type(model))):
            raise BadInput(f"{self._name}: expected {only}, the only value here, got {value!r}; {self._instead}")


class FixedOptions:
    """Mixin for the model's class. Names are the official ones."""

    num_maskmem = Fixed(7, "a sam2.Tracker attends to fewer with sam2.Limits(recent_memories=...)")
    max_cond_frames_in_attn = Fixed(-1, "a sam2.Tracker has a limit, sam2.Limits(prompted_memories=...)")
    max_obj_ptrs_in_encoder = Fixed(16, "a sam2.Tracker attends to fewer with sam2.Limits(pointers=...)")
    memory_temporal_stride_for_eval = Fixed(1)
    non_overlap_masks_for_mem_enc = Fixed(False, "non_overlap_masks parts the masks that are returned")
    use_mask_input_as_output_without_sam = Fixed(True)
    sigmoid_scale_for_mem_enc = Fixed(20.0)
    sigmoid_bias_for_mem_enc = Fixed(-10.0)
    directly_add_no_mem_embed = Fixed(True)
    use_high_res_features_in_sam = Fixed(True)
    backbone_stride = Fixed(16)
    iou_prediction_use_sigmoid = Fixed(True)
    multimask_output_in_sam = Fixed(True)
    multimask_output_for_tracking = Fixed(True)
    multimask_min_pt_num = Fixed(0)
    multimask_max_pt_num = Fixed(1)
    use_multimask_token_for_obj_ptr = Fixed(True)
    use_obj_ptrs_in_encoder = Fixed(True)
    only_obj_ptrs_in_the_past_for_eval = Fixed(True)
    add_tpos_enc_to_obj_ptrs = Fixed(lambda config: config.pointers_carry_time)
    proj_tpos_enc_in_obj_ptrs = Fixed(lambda config: config.pointers_carry_time)
    use_signed_tpos_enc_to_obj_ptrs = Fixed(lambda config: config.pointers_carry_time)
    use_mlp_for_obj_ptr_proj = Fixed(True)
    pred_obj_scores = Fixed(True)
    pred_obj_scores_mlp = Fixed(True)
    fixed_no_obj_ptr = Fixed(True)
    soft_no_obj_ptr = Fixed(False)
