"""Mistakes an implementation of SAM 2 can make, one function each; `golden_catalogue.py` says what catches them.

Each takes pytest's `monkeypatch` and the run it is planted in (None where it needs none).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from golden_recipe import pseudo_random

from sam2 import hiera, model, preprocess, sam2_video_predictor
from sam2.image_encoder import FeaturePyramid
from sam2.mask_decoder import MaskDecoder
from sam2.model import PROMPTED_CODE, SAM2
from sam2.position import sine_grid, sine_time
from sam2.prompt_encoder import PromptEncoder
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import ObjectState


def around(monkeypatch, owner, name: str, change: Callable) -> None:
    """Replaces `owner.name` by `change(original, *args, **kwargs)`."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: change(original, *args, **kwargs))


def pointer_time_divided_by_14(monkeypatch, run):
    around(monkeypatch, SAM2, "pointer_memory", lambda f, self, pointers, time: f(self, pointers, time * 15 / 14))


def pointers_one_frame_older(monkeypatch, run):
    around(monkeypatch, SAM2, "pointer_memory", lambda f, self, pointers, time: f(self, pointers, time + 1 / 15))


def pointers_without_time(monkeypatch, run):
    def zero(f, *args):
        tokens, position = f(*args)
        return tokens, torch.zeros_like(position)

    around(monkeypatch, SAM2, "pointer_memory", zero)


def prompted_memory_with_a_recent_code(monkeypatch, run):
    around(monkeypatch, SAM2, "spatial_memory", lambda f, self, maskmem, code: f(self, maskmem, min(code, 5)))


def recent_codes_reversed(monkeypatch, run):
    def reverse(f, self, maskmem, code):
        return f(self, maskmem, code if code == PROMPTED_CODE else PROMPTED_CODE - 1 - code)

    around(monkeypatch, SAM2, "spatial_memory", reverse)


def memories_newest_first(monkeypatch, run):
    around(monkeypatch, ObjectState, "memories", lambda f, *args: reversed(list(f(*args))))


def seven_pointers(monkeypatch, run):
    around(monkeypatch, ObjectState, "pointers", lambda f, *args: list(f(*args))[:7])


def one_pointer_too_many(monkeypatch, run):
    def sixteen(f, self, frame, reverse, num_frames):
        return [*f(self, frame, reverse, num_frames), (self.recent[frame - 16].pointer, 16)]

    around(monkeypatch, ObjectState, "pointers", sixteen)


def reverse_taken_as_forward(monkeypatch, run):
    around(monkeypatch, ObjectState, "memories", lambda f, self, frame, reverse: f(self, frame, False))


def prompted_memory_not_binarised(monkeypatch, run):
    monkeypatch.setattr(run.predictor, "binarize_mask_from_pts_for_mem_enc", False)


def prompted_memory_binarised(monkeypatch, run):
    monkeypatch.setattr(run.predictor, "binarize_mask_from_pts_for_mem_enc", True)


def tracked_memory_binarised(monkeypatch, run):
    around(
        monkeypatch,
        SAM2,
        "encode_memory",
        lambda f, self, x, logits, score, from_prompt: f(self, x, logits, score, True),
    )


def memory_not_rounded_to_bf16(monkeypatch, run):
    def unrounded(f, self, state, frame, result, from_prompt):
        stride16 = self._features(state, frame).stride16
        return self.encode_memory(stride16, result.logits, result.object_score, from_prompt)

    around(monkeypatch, SAM2VideoPredictor, "_memory", unrounded)


def memory_of_conditioned_features(monkeypatch, run):
    around(monkeypatch, SAM2, "encode_memory", lambda f, self, x, *args, **kw: f(self, self.no_memory(x), *args, **kw))


def absence_not_remembered(monkeypatch, run):
    def present(f, self, x, logits, score, from_prompt):
        return f(self, x, logits, torch.ones_like(score), from_prompt)

    around(monkeypatch, SAM2, "encode_memory", present)


def absent_mask_not_gated(monkeypatch, run):
    monkeypatch.setattr(model, "ABSENT_LOGIT", -10.0)


def absent_pointer_not_gated(monkeypatch, run):
    monkeypatch.setattr(SAM2, "_gate_pointer", lambda self, pointer, is_present: pointer)


def presence_shifted(monkeypatch, run):
    around(
        monkeypatch, SAM2, "decode", lambda f, *a, **k: (d := f(*a, **k))._replace(object_score=d.object_score + 2e-4)
    )


def no_position_under_the_image(monkeypatch, run):
    def without(f, self, stride16):
        return f(self, stride16 - 0.1 * sine_grid(*stride16.shape[1:], stride16.device))

    around(monkeypatch, SAM2, "self_attend", without)


def no_padding_point(monkeypatch, run):
    around(monkeypatch, PromptEncoder, "sparse", lambda f, *args: f(*args)[:, :-1])


def points_at_pixel_corners(monkeypatch, run):
    around(monkeypatch, PromptEncoder, "sparse", lambda f, self, xy, labels: f(self, xy - 0.5, labels))


def no_memory_embedding_forgotten(monkeypatch, run):
    monkeypatch.setattr(SAM2, "no_memory", lambda self, stride16: stride16)


def single_mask_for_one_point(monkeypatch, run):
    monkeypatch.setattr(sam2_video_predictor, "is_ambiguous", lambda num_points: False)


def no_stability_fallback(monkeypatch, run):
    monkeypatch.setattr(run.predictor.sam_mask_decoder, "dynamic_multimask_via_stability", False)


def always_falling_back(monkeypatch, run):
    monkeypatch.setattr(run.predictor.sam_mask_decoder, "dynamic_multimask_stability_thresh", 2.0)


def pointer_from_the_fallback_mask(monkeypatch, run):
    def follow(f, self, decoded, multimask):
        chosen = f(self, decoded, multimask)
        return chosen._replace(pointer_token=decoded.mask_tokens[:, int(chosen.token)])

    around(monkeypatch, MaskDecoder, "choose", follow)


def pointer_from_the_best_alternative(monkeypatch, run):
    def best(f, self, decoded, multimask):
        return f(self, decoded, multimask)._replace(pointer_token=f(self, decoded, True).pointer_token)

    around(monkeypatch, MaskDecoder, "choose", best)


def mask_prompt_pointer_with_memory_embedding(monkeypatch, run):
    def conditioned(f, self, features, mask):
        return f(self, features._replace(stride16=self.no_memory(features.stride16)), mask)

    around(monkeypatch, SAM2, "segment_mask", conditioned)


def mask_prompt_reduced_without_antialiasing(monkeypatch, run):
    around(monkeypatch, preprocess, "_resize", lambda f, images, side, antialias: f(images, side, False))


def correction_ignores_the_previous_mask(monkeypatch, run):
    def forget(f, self, features, pixels, xy=None, labels=None, mask_input=None):
        return f(self, features, pixels, xy, labels, None)

    around(monkeypatch, SAM2, "decode", forget)


def correction_ignores_memory(monkeypatch, run):
    monkeypatch.setattr(
        SAM2VideoPredictor,
        "_remembering",
        lambda self, state, obj, t, r: self.no_memory(self._features(state, t).stride16),
    )


def correction_fades(monkeypatch, run):
    monkeypatch.setattr(run.predictor, "add_all_frames_to_correct_as_cond", False)


def time_codes_in_2_0(monkeypatch, run):
    def timed(f, self, pointers, time):
        tokens, _ = f(self, pointers, time)
        weight = pseudo_random("obj_ptr_tpos_proj.weight", (64, 256))
        return tokens, F.linear(sine_time(time, 256), weight).repeat_interleave(4, dim=0).expand_as(tokens)

    around(monkeypatch, SAM2, "pointer_memory", timed)


def holes_left_open(monkeypatch, run):
    monkeypatch.setattr(run.predictor, "fill_hole_area", 0)


def corners_aligned(monkeypatch, run):
    def aligned(f, logits, size_hw):
        return F.interpolate(logits, size_hw, mode="bilinear", align_corners=True)

    around(monkeypatch, sam2_video_predictor, "logits_to_pixels", aligned)


def quality_of_the_wrong_mask(monkeypatch, run):
    around(monkeypatch, MaskDecoder, "choose", lambda f, self, d, m: f(self, d, m)._replace(iou=d.iou[:, 0]))


def window_padding_repeats_the_edge(monkeypatch, run):
    def repeat(f, x, side):
        missing = (0, -x.shape[2] % side, 0, -x.shape[1] % side)
        return f(F.pad(x.permute(0, 3, 1, 2), missing, mode="replicate").permute(0, 2, 3, 1), side)

    around(monkeypatch, hiera, "split_windows", repeat)


def window_pattern_not_repeated(monkeypatch, run):
    def background(self, height, width):
        return F.interpolate(self.pos_embed, size=(height, width), mode="bicubic").permute(0, 2, 3, 1)

    monkeypatch.setattr(hiera.Hiera, "position", background)


def patches_shifted(monkeypatch, run):
    around(monkeypatch, hiera.PatchEmbed, "forward", lambda f, self, image: f(self, image).roll(1, dims=1))


def coarsest_level_left_out(monkeypatch, run):
    around(monkeypatch, FeaturePyramid, "forward", lambda f, self, stages: f(self, [*stages[:3], 0 * stages[3]]))


def image_read_as_video(monkeypatch, run):
    monkeypatch.setattr(preprocess, "to_image_predictor_input", preprocess.to_model_input)


def previous_mask_dropped(monkeypatch, run):
    around(monkeypatch, PromptEncoder, "dense", lambda f, self, mask: f(self, None))


def image_corners_aligned(monkeypatch, run):
    def aligned(logits, size_hw):
        return F.interpolate(logits, size_hw, mode="bilinear", align_corners=True)

    monkeypatch.setattr(preprocess, "logits_to_pixels", aligned)
