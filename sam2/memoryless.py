"""The ablation: the same network with its memory emptied before every frame.

After the prompted frame the decoder sees only the image, so all objects get the same answer.
"""

from dataclasses import replace

import torch

from sam2.model import SAM2
from sam2.preprocess import to_model_input
from sam2.tracker import Tracker
from sam2.types import Frame, Prompt, State, Track


class MemorylessTracker:
    """On frames with prompts, a `Tracker`; on all others the decoder sees neither memory nor prompt."""

    def __init__(self, model: SAM2, tracker: Tracker):
        self._model, self._tracker = model, tracker
        self._known: dict[str, int] = {}  # label by object id

    def reset(self) -> None:
        self._tracker.reset()
        self._known = {}

    def check(self, prompts: Prompt | list[Prompt], frame: Frame) -> None:
        self._tracker.check(prompts, frame)

    def step(self, frame: Frame, prompts: list[Prompt]) -> list[Track]:
        tracks = self._tracker.step(frame, prompts) if prompts else []
        self._known |= {track.object_id: track.label for track in tracks}
        prompted = {prompt.object_id for prompt in prompts}
        others = self._unprompted(frame) if prompted != self._known.keys() else {}
        answers = others | {track.object_id: track for track in tracks if track.object_id in prompted}
        return list(answers.values())

    def _unprompted(self, frame: Frame) -> dict[str, Track]:
        """Tracks by object id; they differ only in id and label."""
        model = self._model
        with torch.inference_mode(), model.precision.context(model.device):
            features = model.encode_image(to_model_input(frame.rgb, model.image_size)[None].to(model.device))
            answer = model.select(model.decode(features, model.no_memory(features.stride16)), multimask=True)
        score = float(answer.object_score)
        track = Track(
            object_id="",
            class_name="",
            label=0,
            state=State.VISIBLE if score > 0 else State.OCCLUDED,
            object_score=score,
            presence=float(torch.sigmoid(answer.object_score.float())),
            predicted_iou=float(answer.iou),
            last_seen_ns=frame.stamp_ns,
            frames_since_seen=0,
            size_hw=frame.size_hw,
            low_res_logits=answer.low_res_logits[0, 0].float().cpu().numpy(),
        )
        return {key: replace(track, object_id=key, label=label) for key, label in self._known.items()}
