"""Resolves a step's prompts before anything is changed: the frame each belongs to, and its combined prompt there.

Refuses prompts that cannot be applied. Reads objects and history; changes neither.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sam2.checks import check_begins, check_places
from sam2.errors import LimitReached
from sam2.history import History
from sam2.limits import Limits
from sam2.model_prompt import ModelPrompt, prompt_to_model
from sam2.tracked_object import TrackedObject
from sam2.types import Frame, Prompt, PromptMode


class Located(NamedTuple):
    """A prompt and the frame it belongs to."""

    prompt: Prompt
    frame: int
    size_hw: tuple[int, int] | None  # None before the first image
    stamp_ns: int  # of the frame


@dataclass(frozen=True)
class Planned:
    """A valid prompt, the frame it belongs to, and `combined`: it merged with its object's earlier prompts there."""

    prompt: Prompt
    frame: int
    combined: ModelPrompt


def locate(prompts: Sequence[Prompt], frame: Frame | None, history: History, next_frame: int) -> list[Located]:
    """Finds the frame that each prompt belongs to: a kept one, or `frame`, the one of this step, with index
    `next_frame`.

    Raises what `History.find` raises, for example Stale for a prompt on an image that is no longer kept.
    """
    image = frame or history.newest  # whose pixels the coordinates are checked against
    size_hw, image_ns = (image.size_hw, image.stamp_ns) if image else (None, 0)
    located = []
    for prompt in prompts:
        now_ns = image_ns if frame else max(prompt.stamp_ns, image_ns)
        past = history.find(prompt.stamp_ns, now_ns) if prompt.stamp_ns else None
        if past is not None:
            located.append(Located(prompt, past.index, past.size_hw, past.stamp_ns))
        else:
            located.append(Located(prompt, next_frame, size_hw, 0 if frame is None else frame.stamp_ns))
    return located


def locate_kept(prompts: Sequence[Prompt], history: History) -> list[Located]:
    """Like `locate`, but only among the kept frames; a stamp of 0 means the newest.

    There must have been a frame. Raises what `History.find_kept` raises.
    """
    kept = [(prompt, history.find_kept(prompt.stamp_ns)) for prompt in prompts]
    return [Located(prompt, found.index, found.size_hw, found.stamp_ns) for prompt, found in kept]


def plan_prompts(
    located: Sequence[Located], objects: Mapping[str, TrackedObject], limits: Limits, image_size: int
) -> list[Planned]:
    """Plans the prompts in the order of their frames, those for one frame in the order given; each as if those before
    it had been applied. Raises BadInput or LimitReached."""
    combined = {
        (object_id, index): prompted.prompts[-1]
        for object_id, obj in objects.items()
        for index, prompted in obj.prompted_frames.items()
    }
    # The oldest prompted frame that each object remembers: a prompt before it has only the image to go by.
    begun = {key: obj.bank.oldest_prompted for key, obj in objects.items()}
    planned = []
    for prompt, index, size_hw, _ in sorted(located, key=lambda place: place.frame):
        key, oldest = (prompt.object_id, index), begun.get(prompt.object_id, math.inf)
        is_first = index < oldest and not (key in combined and combined[key].begins)
        if is_first or prompt.mode is PromptMode.REPLACE:
            check_begins(prompt)
        begun[prompt.object_id] = index if prompt.mode is PromptMode.REPLACE else min(index, oldest)
        if len(begun) > limits.max_objects:
            raise LimitReached(
                f"objects: expected at most {limits.max_objects}, all places are taken; remove one first"
            )
        if size_hw is None:  # `check` before the first image: there are no pixels to check against
            continue
        check_places(prompt, size_hw)
        if prompt.mode is PromptMode.REPLACE:
            combined = {k: v for k, v in combined.items() if k[0] != prompt.object_id or k[1] > index}
        new = prompt_to_model(prompt, size_hw, image_size)
        combined[key] = combined[key].add(new, limits) if key in combined else new
        planned.append(Planned(prompt, index, combined[key]))
    return planned
