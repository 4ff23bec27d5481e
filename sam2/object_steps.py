"""Tracks and prompts objects in an encoded frame: the newest or, after a late prompt, a past one.

Knows objects and their memories. Does not know which frames are kept, nor how a failed step is undone.
"""

from collections.abc import Callable, Sequence

import torch

from sam2.frame_step import Answer, FrameStep, batches
from sam2.history import Moment
from sam2.limits import Limits
from sam2.live_objects import LiveObjects
from sam2.model_prompt import ModelPrompt
from sam2.plan import Planned
from sam2.tracked_object import PromptedFrame, TrackedObject
from sam2.types import PromptMode


class ObjectSteps:
    """Tracks and prompts the live objects of one tracker. sticky_corrections: see `Tracker`."""

    def __init__(self, network: FrameStep, objects: LiveObjects, limits: Limits, sticky_corrections: bool):
        self._network, self._objects, self._limits = network, objects, limits
        self._sticky_corrections = sticky_corrections

    def track(self, objects: Sequence[TrackedObject], moment: Moment, batched: bool) -> dict[str, Answer]:
        """Answers by object id. If batched, objects with equally many memories are computed together."""
        groups: dict[object, list[TrackedObject]] = {}
        for obj in objects:
            if obj.bank.can_recall(moment.index):
                key = obj.bank.recall(moment.index).shape if batched else obj.object_id
                groups.setdefault(key, []).append(obj)
        if not groups:
            return {}
        answers: dict[str, Answer] = {}
        self_attended = self._network.self_attend(moment)
        for batch in batches(groups.values(), self._network.device):
            parts = self._network.track(batch, moment, self_attended).split()
            answers |= {obj.object_id: part for obj, part in zip(batch, parts, strict=True)}
        return answers

    def prompt(self, plan: Planned, moment: Moment, tracked: Answer | None) -> Answer:
        """Applies a prompt to a frame; creates its object, or starts it over, if necessary.

        `tracked`: the object's answer on that frame without the prompt.
        """
        prompt, obj = plan.prompt, self._objects.get(plan.prompt.object_id)
        starts_over = prompt.mode is PromptMode.REPLACE
        if obj is None:
            obj = self._objects.add(prompt.object_id, "", moment.index, moment.stamp_ns)
        elif starts_over:
            obj.start_over(moment.index, moment.stamp_ns)
            obj.forget_prompts(moment.index)
            tracked = None
        obj.class_name = prompt.class_name or obj.class_name
        return self._apply(obj, plan.combined, moment, tracked, starts_over)

    def catch_up(
        self, planned: Sequence[Planned], moments: Sequence[Moment], batched: bool, progress: Callable[[], None]
    ) -> dict[str, Answer | None]:
        """Applies prompts to past frames and re-tracks the prompted objects, and no others, through the frames after
        each. Returns their answers on the last of `moments`, by id; None for an object that cannot be tracked.

        moments: the frames since that of the first prompt. progress: called before each of them.
        """
        answers: dict[str, Answer | None] = {}
        for moment in moments:
            progress()
            answers = self._repeat([self._objects[object_id] for object_id in answers], moment, batched)
            for plan in planned:
                if plan.frame == moment.index:
                    answers[plan.prompt.object_id] = self._prompt_past(plan, moment)
        return answers

    def _prompt_past(self, plan: Planned, moment: Moment) -> Answer:
        obj, tracked = self._objects.get(plan.prompt.object_id), None
        if obj is not None:
            # If the frame was prompted before, the last prompt's memory stays until a finite answer replaces it.
            is_again = moment.index in obj.prompted_frames
            obj.rewind(moment.index + is_again)
            if not is_again:
                tracked = self.track([obj], moment, batched=False).get(obj.object_id)
        return self.prompt(plan, moment, tracked)

    def _repeat(self, objects: Sequence[TrackedObject], moment: Moment, batched: bool) -> dict[str, Answer | None]:
        """Re-tracks objects in a past frame and re-applies all their prompts there."""
        prompted = {obj.object_id: obj.prompted_frames.pop(moment.index, None) for obj in objects}
        for obj in objects:
            if (again := prompted[obj.object_id]) is not None and again.starts_over:
                obj.start_over(moment.index, moment.stamp_ns)
        answers = dict.fromkeys(prompted) | self.track(objects, moment, batched)
        for obj in objects:
            again, answer = prompted[obj.object_id], answers[obj.object_id]
            if again is not None:
                for prompt in again.prompts:
                    answer = self._apply(obj, prompt, moment, answer, again.starts_over)
                answers[obj.object_id] = answer
            elif answer is not None:
                self.commit(obj, moment, answer)
        return answers

    def commit(self, obj: TrackedObject, moment: Moment, answer: Answer, is_prompted: bool = False) -> None:
        """Adds the memory just written to the bank, if it is usable, and records the sighting."""
        is_finite = bool(answer.is_finite)
        if is_finite and is_prompted:
            obj.bank.remember_prompted(moment.index)
        elif is_finite:
            obj.bank.remember(moment.index)
        else:
            obj.bank.forget(moment.index)
        is_visible = is_finite and float(answer.object_score) > 0
        obj.record(moment.index, moment.stamp_ns, is_visible, self._limits)

    def _apply(
        self, obj: TrackedObject, prompt: ModelPrompt, moment: Moment, before: Answer | None, starts_over: bool
    ) -> Answer:
        """Applies one prompt and commits the result. `before`: the object's answer on this frame so far, which the
        prompt refines."""
        prompted = obj.prompted_frames.get(moment.index, PromptedFrame((), None, starts_over))
        previous = before.logits if before is not None and before.is_finite else None
        if prompted.logits is not None:
            previous = torch.from_numpy(prompted.logits)[None, None].to(self._network.device)
        is_prompted = self._sticky_corrections or not obj.bank.can_recall(moment.index)
        answer = self._network.apply_prompt(obj, prompt, moment, previous, is_prompted)
        logits = answer.logits[0, 0].cpu().numpy() if answer.is_finite else None
        obj.prompted_frames[moment.index] = prompted.add(prompt, logits, self._limits)
        if moment.index < obj.born:
            obj.born, obj.born_ns = moment.index, moment.stamp_ns
        self.commit(obj, moment, answer, is_prompted)
        return answer
