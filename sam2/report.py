"""Turns the network's answer about an object into a Track: plain numbers, a state, logits on the host."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from sam2.frame_step import Answer
from sam2.history import Moment
from sam2.limits import Limits
from sam2.model import ABSENT_LOGIT
from sam2.tracked_object import TrackedObject
from sam2.types import State, Track


def to_host(answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Copies answers to the host, all at once, so that the host waits for the device only once."""
    if not answers:
        return {}
    logits, *rest = (torch.cat(parts) for parts in zip(*answers.values(), strict=True))
    columns = torch.cat((logits.flatten(1), *(part.reshape(-1, 1) for part in rest)), dim=1).cpu()  # (N, hw + 3)
    flat, iou, score, is_finite = columns.split((logits[0].numel(), 1, 1, 1), dim=1)
    together = Answer(flat.unflatten(1, logits.shape[1:]), iou[:, 0], score, is_finite[:, 0] > 0)
    return dict(zip(answers, together.split(), strict=True))


def track_of(obj: TrackedObject, moment: Moment, answer: Answer | None, limits: Limits) -> Track:
    """The Track of one object. `answer`: on the host, of this object alone; None if it has no memory to track it with.
    Without a finite answer the state is INVALID."""
    seen_frame, seen_ns = obj.last_seen(moment.index)
    if answer is None or not answer.is_finite:
        state, score, presence, iou = State.INVALID, 0.0, 0.0, 0.0
        logits = np.full(moment.features.stride4.shape[-2:], ABSENT_LOGIT, np.float32)  # (4h, 4w)
    else:
        state = obj.state(moment.index, moment.stamp_ns, limits)
        score, iou, logits = float(answer.object_score), float(answer.iou), answer.logits[0, 0].numpy()
        presence = 1 / (1 + math.exp(-max(score, -80.0)))
    return Track(
        object_id=obj.object_id,
        class_name=obj.class_name,
        label=obj.label,
        state=state,
        object_score=score,
        presence=presence,
        predicted_iou=iou,
        last_seen_ns=seen_ns,
        frames_since_seen=moment.index - seen_frame,
        size_hw=moment.size_hw,
        low_res_logits=logits,
    )
