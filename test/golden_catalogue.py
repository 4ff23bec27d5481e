"""Which golden arrays catch which mistake, and the smallest part of the case to run again for it."""

from collections.abc import Callable
from dataclasses import dataclass

import golden_mutations as m
from golden_cases import Cut, VideoRun


@dataclass(frozen=True)
class Mutation:
    """A mistake and what to run again with it: steps `first` to `last` of the case, or one `frame` of step `last`."""

    plant: Callable
    case: str
    caught_by: str  # array names, all of which must be beyond their limits
    first: int = 0
    last: int = 0
    frames: int | None = None  # of step `last`
    frame: int | None = None

    def __str__(self) -> str:
        return f"{self.case}-{self.plant.__name__}"

    def arrays(self, run: VideoRun) -> dict:
        if self.frame is not None:
            return run.retrack(self.last, self.frame)
        cut = Cut(self.last + 1, {self.last: self.frames}, self.first)
        return run.fork(before=self.first).run(cut).arrays


QUICK = [
    Mutation(m.no_padding_point, "A", "f00_o1_prompt_sparse s0_low64"),
    Mutation(m.points_at_pixel_corners, "A", "f00_o1_prompt_sparse s0_low64"),
    Mutation(m.no_memory_embedding_forgotten, "A", "s0_low64 s0_obj_ptr"),
    Mutation(m.single_mask_for_one_point, "A", "s0_obj_ptr"),
    Mutation(m.presence_shifted, "A", "s0_score f00_o1_dec_obj_score"),
    Mutation(m.quality_of_the_wrong_mask, "A", "s1_iou_selected", last=1, frame=1),
    Mutation(m.corners_aligned, "A", "s0_f00_o1_videomask_packbits"),
    Mutation(m.no_position_under_the_image, "A", "f01_o1_memattn_out_seq_b_c s1_low64", last=1, frame=1),
    Mutation(m.prompted_memory_with_a_recent_code, "A", "f01_o1_memattn_in_memory_pos s1_low64", last=1, frame=1),
    Mutation(m.pointers_without_time, "A", "f01_o1_memattn_ptr_pos s1_low64", last=1, frame=1),
    Mutation(m.pointers_one_frame_older, "A", "f01_o1_memattn_ptr_pos s1_low64", last=1, frame=1),
    Mutation(m.pointer_time_divided_by_14, "A", "s1_low64", last=1, frame=2),
    Mutation(m.recent_codes_reversed, "A", "s1_low64", last=1, frame=2),
    Mutation(m.prompted_memory_not_binarised, "A", "s1_low64", last=1, frames=2),
    Mutation(m.memory_of_conditioned_features, "A", "s1_low64", last=1, frames=2),
    Mutation(m.tracked_memory_binarised, "A", "f01_o1_maskmem_fp32", last=1, frame=1),
    Mutation(m.no_stability_fallback, "B", "s0_token s0_low64"),
    Mutation(m.pointer_from_the_fallback_mask, "B", "s0_obj_ptr"),
    Mutation(m.mask_prompt_pointer_with_memory_embedding, "B", "s1_obj_ptr", first=1, last=1),
    Mutation(m.mask_prompt_reduced_without_antialiasing, "B", "s1_low64", first=1, last=1),
    Mutation(m.absence_not_remembered, "D2", "s1_f00_o1_maskmem_bf16", last=1, frames=1),
    Mutation(m.absent_mask_not_gated, "D2", "s0_low64"),
    Mutation(m.absent_pointer_not_gated, "D2", "s0_obj_ptr"),
    Mutation(m.holes_left_open, "H", "s0_area s0_f00_o1_low256_f16"),
    Mutation(m.always_falling_back, "J", "s0_token s0_low64"),
    Mutation(m.pointer_from_the_best_alternative, "J", "s0_obj_ptr"),
    Mutation(m.prompted_memory_binarised, "K", "s1_f00_o1_maskmem_bf16", last=1, frames=1),
]
AFTER_THE_WHOLE_CASE = [
    Mutation(m.seven_pointers, "A", "f09_o1_memattn_lens s1_low64 s1_obj_ptr", last=1, frame=9),
    Mutation(m.memories_newest_first, "A", "f09_o1_memattn_in_memory_seq_b_c", last=1, frame=9),
    Mutation(m.one_pointer_too_many, "A", "s1_low64", last=1, frame=23),
    Mutation(m.time_codes_in_2_0, "F", "s1_low64", last=1, frame=1),
    Mutation(m.reverse_taken_as_forward, "G", "s2_low64", last=2, frame=4),
    Mutation(m.correction_ignores_the_previous_mask, "I", "s2_low64 s2_obj_ptr", first=2, last=2),
    Mutation(m.correction_ignores_memory, "I", "s2_low64 s2_obj_ptr", first=2, last=2),
    Mutation(m.correction_fades, "I", "s3_is_cond", first=2, last=3, frames=1),
]

ENCODER = [  # caught in the stages of frame 0 of case A
    (m.patches_shifted, "patch_embed_nhwc patch_plus_pos_nhwc"),
    (m.window_pattern_not_repeated, "patch_plus_pos_nhwc block00_mean_std_absmax trunk_stage0"),
    (m.window_padding_repeats_the_edge, "trunk_stage2 trunk_stage3 neck2 backbone_fpn2"),
    (m.coarsest_level_left_out, "neck2 neck3 backbone_fpn2"),
]
IMAGE = [  # caught in case E
    (m.image_read_as_video, "input_1024_sub image_embed q0_low64"),
    (m.no_memory_embedding_forgotten, "image_embed q0_low64"),
    (m.no_padding_point, "q0_iou q0_low64 q0_logits_video_sub q1_low256_f16"),
    (m.previous_mask_dropped, "q2_iou q2_low64"),
    (m.image_corners_aligned, "q0_logits_video_sub"),
]
