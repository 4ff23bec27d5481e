"""An answer of the network about one object becomes what users get: plain numbers, a state, logits on the host."""

import math

import numpy as np

from sam2.frame_step import Answer
from sam2.history import Moment
from sam2.limits import Limits
from sam2.model import ABSENT_LOGIT
from sam2.tracked_object import TrackedObject
from sam2.types import State, Track


def track_of(obj: TrackedObject, moment: Moment, answer: Answer | None, limits: Limits) -> Track:
    """`answer`: on the host, of this object alone; INVALID if it is not finite, or None because nothing is remembered
    that could be tracked."""
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
