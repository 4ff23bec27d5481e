"""The official video predictor's interface: prompts on any frame of a loaded clip, propagation in either direction.

For a camera use `sam2.Tracker`; this keeps a result for every frame, 0.8 MB for each object at 1024 pixels. Its
behaviour was checked call by call against facebookresearch/sam2 2b90b9f, quirks included: a correction on a tracked
frame becomes an ordinary recent memory, and is overwritten if propagation restarts at that very frame.
"""

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from sam2 import predictor_inputs as inputs
from sam2.config import ModelConfig
from sam2.errors import BadInput
from sam2.memory_attention import concatenate
from sam2.model import ABSENT_LOGIT, SAM2, Features, Segmentation, is_ambiguous
from sam2.preprocess import as_prompt, logits_to_pixels
from sam2.small_holes import fill_small_holes
from sam2.video_frames import load_frames
from sam2.video_state import FrameResult, ObjectState, PointInputs, VideoState, longest_pointer_memory

FrameMasks = tuple[int, list[Any], Tensor]  # frame index, object ids, (objects, 1, H, W) logits at the source's size


class SAM2VideoPredictor(SAM2):
    """`fill_hole_area`: holes of up to this many low-res pixels are closed (0: none). `non_overlap_masks`: a pixel
    belongs to at most one object in the output. `clear_non_cond_mem_around_input`: a prompt drops the recent memories
    around it. `add_all_frames_to_correct_as_cond`: a correction becomes a prompted frame, which never fades."""

    def __init__(
        self,
        config: ModelConfig,
        fill_hole_area: int = 0,
        non_overlap_masks: bool = False,
        clear_non_cond_mem_around_input: bool = False,
        add_all_frames_to_correct_as_cond: bool = False,
    ):
        super().__init__(config)
        self.fill_hole_area = fill_hole_area
        self.non_overlap_masks = non_overlap_masks
        self.clear_non_cond_mem_around_input = clear_non_cond_mem_around_input
        self.add_all_frames_to_correct_as_cond = add_all_frames_to_correct_as_cond

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> "SAM2VideoPredictor":
        """`model_id`: "facebook/sam2.1-hiera-tiny" and its siblings."""
        from sam2.build_sam import build_sam2_video_predictor_hf

        return build_sam2_video_predictor_hf(model_id, **kwargs)

    @torch.inference_mode()
    def init_state(
        self,
        video_path: str | Path,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> VideoState:
        """Loads a JPEG folder or a video file, which takes 12 MB for each frame at 1024 pixels. `async_loading_frames`:
        reads a folder's frames whenever they are needed (upstream: in a thread, and keeps them). Raises BadInput."""
        cpu = torch.device("cpu")
        place = cpu if offload_video_to_cpu else self.device
        images, height, width = load_frames(video_path, self.image_size, place, lazily=async_loading_frames)
        return VideoState(images, height, width, self.device, cpu if offload_state_to_cpu else self.device)

    @torch.inference_mode()
    def add_new_points_or_box(
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: Hashable,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: ArrayLike | None = None,
    ) -> FrameMasks:
        """Prompts an object on a frame. Returns every object's logits there. Raises BadInput, changing nothing.

        points (K, 2) and box (x0, y0, x1, y1) in source pixels (in 0..1 with `normalize_coords=False`), labels (K,) of
        1 and 0 (-1: padding; 2, 3: box corners).
        """
        state = inference_state
        inputs.check_frame_index(frame_idx, state.num_frames)
        size_hw = (state.video_height, state.video_width) if normalize_coords else None
        given = inputs.point_inputs(points, labels, box, size_hw, self.image_size, self.device)
        if box is not None and not clear_old_points:
            raise BadInput("box: a box comes before any point; expected clear_old_points=True with it, got False")
        features = self._features(state, frame_idx)
        obj = state.objects.get(obj_id) or ObjectState()
        if not clear_old_points and frame_idx in obj.point_inputs:
            pairs = zip(obj.point_inputs[frame_idx], given, strict=True)
            given = PointInputs(*(torch.cat(pair, dim=1) for pair in pairs))
        is_prompted = self._becomes_prompted(obj, frame_idx)
        previous = obj.latest(frame_idx, is_prompted)
        mask_input = None if previous is None else as_prompt(previous.logits.to(self.device))
        if frame_idx in obj.tracked_in_reverse:
            pixels = self._remembering(state, obj, frame_idx, obj.tracked_in_reverse[frame_idx])
        else:
            pixels = self.no_memory(features.stride16)
        decoded = self.decode(features, pixels, *given, mask_input)
        answer = self.select(decoded, multimask=is_ambiguous(given.labels.shape[1]))
        state.objects[obj_id] = obj  # before this line an error changes nothing
        obj.point_inputs[frame_idx] = given
        obj.mask_inputs.pop(frame_idx, None)
        return self._take_prompt(state, obj, frame_idx, answer)

    add_new_points = add_new_points_or_box  # deprecated upstream, still called by older scripts

    @torch.inference_mode()
    def add_new_mask(
        self, inference_state: VideoState, frame_idx: int, obj_id: Hashable, mask: ArrayLike
    ) -> FrameMasks:
        """mask (H, W) or (S, S), true inside. Returns every object's logits here. Raises BadInput, changing nothing."""
        state = inference_state
        inputs.check_frame_index(frame_idx, state.num_frames)
        given = inputs.mask_input(mask, (state.video_height, state.video_width), self.image_size, self.device)
        answer = self.segment_mask(self._features(state, frame_idx), given)
        obj = state.objects.setdefault(obj_id, ObjectState())
        obj.mask_inputs[frame_idx] = given
        obj.point_inputs.pop(frame_idx, None)
        return self._take_prompt(state, obj, frame_idx, answer)

    @torch.inference_mode()
    def propagate_in_video_preflight(self, inference_state: VideoState) -> None:
        """Encodes the memories of new prompts and makes them visible to other frames."""
        state = inference_state
        if not state.objects:
            raise RuntimeError("No input points or masks are provided for any object; please add inputs first.")
        for obj_id, obj in state.objects.items():
            for new, kept in ((obj.new_recent, obj.recent), (obj.new_prompted, obj.prompted)):
                for frame_index, result in new.items():
                    result.maskmem = self._memory(state, frame_index, result, from_prompt=True)
                    kept[frame_index] = result
                    if self.clear_non_cond_mem_around_input:
                        obj.forget_around(frame_index)
                new.clear()
            if not obj.prompted:
                raise RuntimeError(
                    f"No input points or masks are provided for object id {obj_id}; please add inputs first."
                )
            for frame_index in obj.prompted:
                obj.recent.pop(frame_index, None)

    def propagate_in_video(
        self,
        inference_state: VideoState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[FrameMasks]:
        """Yields each frame's index, object ids and logits; by default from the earliest prompt to the clip's end.

        `max_frame_num_to_track` does not count the first frame. Yields nothing if no frame is left. Objects added
        meanwhile wait for the next call, removed ones are left out. Raises BadInput, or RuntimeError without a prompt.
        """
        state = inference_state
        length = state.num_frames if max_frame_num_to_track is None else max_frame_num_to_track
        if not isinstance(length, (int, np.integer)):
            raise BadInput(f"max_frame_num_to_track: expected an integer, got {length!r}")
        if start_frame_idx is not None:
            inputs.check_start(start_frame_idx, state.num_frames, reverse)
        self.propagate_in_video_preflight(state)
        begun = dict(state.objects)
        if start_frame_idx is None:
            start_frame_idx = min(index for obj in state.objects.values() for index in obj.prompted)
        if reverse:
            end = max(start_frame_idx - length, 0)
            order = range(start_frame_idx, end - 1, -1) if start_frame_idx > 0 else range(0)
        else:
            order = range(start_frame_idx, min(start_frame_idx + length, state.num_frames - 1) + 1)
        for frame_index in tqdm(order, desc="propagate in video"):
            if not (objects := {i: obj for i, obj in begun.items() if state.objects.get(i) is obj}):
                return
            with torch.inference_mode():
                logits = [self._propagate_object(state, obj, frame_index, reverse) for obj in objects.values()]
                masks = self._video_logits(state, torch.cat(logits))
            yield frame_index, list(objects), masks

    @torch.inference_mode()
    def clear_all_prompts_in_frame(
        self, inference_state: VideoState, frame_idx: int, obj_id: Hashable, need_output: bool = True
    ) -> FrameMasks | None:
        """Removes an object's prompts on a frame; a prompted frame's result stays as a recent one. Raises BadInput."""
        state = inference_state
        inputs.check_frame_index(frame_idx, state.num_frames)
        obj = inputs.find_object(state, obj_id)
        for kept in (obj.point_inputs, obj.mask_inputs, obj.new_prompted, obj.new_recent):
            kept.pop(frame_idx, None)
        result = obj.prompted.pop(frame_idx, None)
        if result is not None:
            obj.recent[frame_idx] = result
            obj.tracked_in_reverse.pop(frame_idx, None)
        return self._frame_output(state, frame_idx) if need_output else None

    @torch.inference_mode()
    def remove_object(
        self, inference_state: VideoState, obj_id: Hashable, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Any], list[tuple[int, Tensor]]]:
        """Forgets an object. Returns the other ids and, per frame it was prompted on, (index, logits of the others).

        An unknown id is an error only with `strict` (UnknownObject).
        """
        state = inference_state
        if obj_id not in state.objects and not strict:
            return state.obj_ids, []
        obj = inputs.find_object(state, obj_id)
        del state.objects[obj_id]
        frames = sorted({*obj.point_inputs, *obj.mask_inputs}) if state.objects and need_output else []
        return state.obj_ids, [(index, self._frame_output(state, index)[2]) for index in frames]

    @torch.inference_mode()
    def reset_state(self, inference_state: VideoState) -> None:
        """Forgets all objects; the video stays loaded."""
        inference_state.objects.clear()

    def _becomes_prompted(self, obj: ObjectState, frame_index: int) -> bool:
        return frame_index not in obj.tracked_in_reverse or self.add_all_frames_to_correct_as_cond

    def _take_prompt(self, state: VideoState, obj: ObjectState, frame_index: int, answer: Segmentation) -> FrameMasks:
        is_prompted = self._becomes_prompted(obj, frame_index)
        new = obj.new_prompted if is_prompted else obj.new_recent
        new[frame_index] = self._result(state, answer)
        return self._frame_output(state, frame_index, is_prompted)

    def _propagate_object(self, state: VideoState, obj: ObjectState, frame_index: int, reverse: bool) -> Tensor:
        """(1, 1, 4h, 4w) logits of one object on one frame, prompted or tracked."""
        if frame_index in obj.prompted:
            result = obj.prompted[frame_index]
            if self.clear_non_cond_mem_around_input:
                obj.forget_around(frame_index)
        else:
            pixels = self._remembering(state, obj, frame_index, reverse)
            answer = self.select(self.decode(self._features(state, frame_index), pixels), multimask=True)
            result = self._result(state, answer)
            # The memory of a tracked frame is made from its mask before small holes are filled.
            unfilled = FrameResult(answer.low_res_logits, answer.pointer, answer.object_score)
            result.maskmem = self._memory(state, frame_index, unfilled, from_prompt=False)
            obj.recent[frame_index] = result
        obj.tracked_in_reverse[frame_index] = reverse
        return result.logits.to(self.device)

    def _remembering(self, state: VideoState, obj: ObjectState, frame_index: int, reverse: bool) -> Tensor:
        """(1, C, h, w): the frame's features after attending to the object's memories."""
        spatial, pointers = [], None
        for result, code in obj.memories(frame_index, reverse):
            assert result.maskmem is not None  # results become memories after they get one
            spatial.append(self.spatial_memory(result.maskmem.to(self.device), code))
        if found := list(obj.pointers(frame_index, reverse, state.num_frames)):
            tokens = torch.stack([pointer.to(self.device) for pointer, _ in found], dim=1)  # (1, P, C)
            time = torch.tensor([ago for _, ago in found], dtype=torch.float32, device=self.device)
            # As upstream, a one-frame clip divides by zero; it has no frame left to track anyway.
            pointers = self.pointer_memory(tokens, time / longest_pointer_memory(state.num_frames))
        self_attended = self.self_attend(self._features(state, frame_index).stride16)
        return self.attend(self_attended, *concatenate(spatial, pointers))

    def _memory(self, state: VideoState, frame_index: int, result: FrameResult, from_prompt: bool) -> Tensor:
        stride16 = self._features(state, frame_index).stride16
        logits, score = result.logits.to(self.device), result.object_score.to(self.device)
        memory = self.encode_memory(stride16, logits, score, from_prompt)
        return memory.to(state.storage_device, torch.bfloat16)  # always bfloat16, even in a float32 run

    def _result(self, state: VideoState, answer: Segmentation) -> FrameResult:
        logits = fill_small_holes(answer.low_res_logits, self.fill_hole_area)
        return FrameResult(logits.to(state.storage_device), answer.pointer, answer.object_score)

    def _features(self, state: VideoState, frame_index: int) -> Features:
        if state.encoded is None or state.encoded[0] != frame_index:
            image = state.images[frame_index][None].to(self.device).float()
            state.encoded = frame_index, self.encode_image(image)
        return state.encoded[1]

    def _frame_output(self, state: VideoState, frame_index: int, is_prompted: bool | None = None) -> FrameMasks:
        """Every object's newest logits on a frame; ABSENT_LOGIT for an object without a result."""
        if is_prompted is None:
            is_prompted = any(frame_index in obj.new_prompted for obj in state.objects.values())
        side = self.image_size // 4
        absent = torch.full((1, 1, side, side), ABSENT_LOGIT, dtype=torch.float32, device=self.device)
        results = [obj.latest(frame_index, is_prompted) for obj in state.objects.values()]
        logits = torch.cat([result.logits.to(self.device) if result else absent for result in results])
        return frame_index, state.obj_ids, self._video_logits(state, logits)

    def _video_logits(self, state: VideoState, logits: Tensor) -> Tensor:
        """(N, 1, 4h, 4w) -> (N, 1, H, W) at the source's size."""
        logits = logits_to_pixels(logits, (state.video_height, state.video_width))
        return self._apply_non_overlapping_constraints(logits) if self.non_overlap_masks else logits

    def _apply_non_overlapping_constraints(self, pred_masks: Tensor) -> Tensor:
        """(N, 1, H, W): all but the largest logit become at most -10. Upstream's `vos_inference.py` calls this."""
        index = torch.arange(pred_masks.shape[0], device=pred_masks.device)[:, None, None, None]
        return torch.where(pred_masks.argmax(dim=0) == index, pred_masks, pred_masks.clamp(max=-10.0))
