"""The stream: one image in, every object's mask, state and score out, for as long as you like, in constant memory.

All state is here: objects, their memories, recent frames. The results equal those of the official video predictor on
the same frames; where a stream has to differ, the docstring of `Tracker` says so.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from sam2.ahead import Ahead
from sam2.checks import check_frame, check_frames, check_prompts
from sam2.device import device_errors
from sam2.errors import BadInput, OutOfMemory, UnknownObject
from sam2.frame_step import Answer, FrameStep, batches
from sam2.history import History, Moment
from sam2.limits import Limits
from sam2.live_objects import LiveObjects
from sam2.model import SAM2, Features
from sam2.model_prompt import ModelPrompt
from sam2.plan import Planned, locate, plan_prompts
from sam2.report import to_host, track_of
from sam2.saved_objects import check_room, put_back, read_objects, save_objects
from sam2.tracked_object import PromptedFrame, TrackedObject
from sam2.types import Frame, Prompt, PromptMode, Track
from sam2.warm_up import warm_up


class Tracker:
    """Not thread-safe: one thread owns it and the model.

    `sticky_corrections`: a correction of a live object becomes a prompted memory. By default it is remembered like any
    tracked frame, as in the official predictor, so its effect fades after six frames. `fill_hole_area`: holes of up to
    this many low-res pixels are closed in the results (official: 8); 0 leaves them open. `batched`: objects go through
    the network together. One by one, the default on a CPU, takes up to twice as long with many objects, but makes an
    object's numbers bit for bit independent of the others.

    There are two differences from the official predictor. Beyond `limits.prompted_memories` prompted frames the second
    oldest is dropped, and a late prompt on an earlier frame does not bring it back. And pointers' time codes are always
    in units of `limits.pointers` frames, where the official unit depends on the clip's length below 16 frames.
    """

    def __init__(
        self,
        model: SAM2,
        limits: Limits | None = None,
        sticky_corrections: bool = False,
        fill_hole_area: int = 8,
        batched: bool | None = None,
    ):
        self.model = model
        self._limits = limits or Limits()
        self._sticky_corrections, self._fill_hole_area = sticky_corrections, fill_hole_area
        self.batched = model.device.type != "cpu" if batched is None else batched
        with device_errors(model.device), torch.inference_mode():
            self._network = FrameStep(model, self._limits, fill_hole_area)
            self._ahead = Ahead(model.device)
        self._history = History(self._limits)
        self._objects = LiveObjects(self._network.store, self._limits)
        self._next_frame = 0

    def sibling(self) -> "Tracker":
        """A tracker without objects on the same model, with the same settings: for another camera."""
        return Tracker(self.model, self._limits, self._sticky_corrections, self._fill_hole_area, self.batched)

    def encode_together(self, pairs: "Sequence[tuple[Tracker, Frame]]") -> None:
        """Encodes, as one batch, the next frames of several trackers of this model; their `step` then need not.

        Raises BadInput, OutOfMemory or DeviceLost; after that each `step` encodes its own frame.
        """
        check_frames([frame for _, frame in pairs])
        with self._on_device():
            self._ahead.join()
            batch = self._network.encode([frame.rgb for _, frame in pairs])
            for index, (tracker, frame) in enumerate(pairs):
                tracker._ahead.put(frame, Features(*(part[index : index + 1].clone() for part in batch)))

    def encode_ahead(self, frame: Frame) -> None:
        """Starts to encode the frame after that of the next `step`, on a GPU in parallel with it. For recordings, where
        the following image is at hand. Raises what `encode_together` raises."""
        check_frame(frame)
        with self._on_device():
            self._ahead.begin(frame, lambda: self._network.encode([frame.rgb]))

    def warm_up(self) -> None:
        """Runs a tracker without objects through its most common steps, so that the first image is not slow.

        On a GPU this captures the steps of up to four objects. Raises BadInput, OutOfMemory or DeviceLost.
        """
        if self._objects:
            raise BadInput(f"warm_up: expected a tracker without objects, got {self.object_ids}; reset it first")
        try:
            warm_up(self, self._limits, captures=self.model.device.type == "cuda")
        finally:
            self.reset()
            self._objects, self._next_frame = LiveObjects(self._network.store, self._limits), 0  # labels from 1 again

    @property
    def object_ids(self) -> list[str]:
        """Live objects, in order of arrival."""
        return list(self._objects)

    def step(self, frame: Frame, prompts: Sequence[Prompt] = (), accept: Callable = lambda tracks: None) -> list[Track]:
        """Tracks every live object into `frame` and applies `prompts`; returns all live objects in order of label.

        A prompt with a new id creates an object; with the id of a live object it adds to that object's prompts or
        replaces them. It applies to the frame nearest to its `stamp_ns`; if that is a past frame, this object alone is
        tracked again from there. Prompts apply in the order of their frames, those for one frame in the order given.

        Raises BadInput, Stale or LimitReached for the frame or any prompt; then, as after any other error, nothing has
        changed. accept: called with the tracks before the step becomes final; if it raises, the step is undone too.
        """
        check_frame(frame)
        planned = self._plan(prompts, frame)
        with self._all_or_nothing({plan.prompt.object_id for plan in planned}):
            tracks = self._step(frame, planned)
            accept(tracks)
        self._next_frame += 1
        self._ahead.drop(frame)
        return tracks

    def check(self, prompts: Prompt | Sequence[Prompt], frame: Frame | None = None) -> None:
        """Raises what `step(frame, prompts)` would raise for one prompt or several, and changes nothing.

        Without a frame, pixels are checked against the newest image, and no stamp is too new.
        """
        self._plan([prompts] if isinstance(prompts, Prompt) else prompts, frame)

    def remove(self, object_id: str) -> None:
        """Forgets one object and leaves the others alone. Raises UnknownObject naming the live ids."""
        if object_id not in self._objects:
            raise UnknownObject(f"object_id: expected one of {self.object_ids}, got {object_id!r}")
        self._objects.remove(object_id)

    def reset(self) -> None:
        """Forgets all objects and the history; the model stays."""
        for object_id in self.object_ids:
            self.remove(object_id)
        self._history.clear()
        self._ahead.clear()

    def save(self, path: str | Path, object_ids: Sequence[str] = ()) -> list[str]:
        """Writes the prompted memories of the objects named, or of all; returns their ids. Raises UnknownObject, or
        BadInput if there is nothing to save or the file cannot be written."""
        with self._on_device():
            return save_objects(Path(path), self.model, self._network.store, self._objects, object_ids)

    def restore(self, path: str | Path, object_ids: Sequence[str] = (), max_age_s: float = 0.0) -> list[str]:
        """Tracks the objects that `save` wrote, all or none; returns their ids. They are OCCLUDED until seen.

        Raises what `read_objects` raises, BadInput for an id that is already tracked, LimitReached.
        """
        with self._on_device():
            kept = read_objects(Path(path), self.model, self._limits, object_ids, max_age_s)
        check_room(kept, self._objects, self._limits)
        oldest, newest = self._history.oldest, self._history.newest
        before = oldest.index if oldest else self._next_frame  # so that a late prompt comes after what is restored
        born = self._next_frame, newest.stamp_ns if newest else 0
        with self._all_or_nothing(set()):
            for one in kept:
                obj = self._objects.add(one.object_id, one.class_name, *born)
                obj.bank = put_back(one, self._network.store, obj.row, self._limits, before)
        return [one.object_id for one in kept]

    def _step(self, frame: Frame, planned: list[Planned]) -> list[Track]:
        self._objects.follow_clock(self._history.newest_ns, frame.stamp_ns)
        features = self._ahead.get(frame) or self._network.encode([frame.rgb])
        moment = self._history.add(self._next_frame, frame.stamp_ns, frame.size_hw, features)
        for plan in planned:
            if plan.frame < moment.index:
                self._prompt_past(plan, moment)
        answers = self._track(list(self._objects.values()), moment)
        for plan in planned:
            if plan.frame == moment.index:
                tracked = answers.get(plan.prompt.object_id)
                answers[plan.prompt.object_id] = self._prompt(plan, moment, tracked)
        return self._report(moment, answers)

    def _plan(self, prompts: Sequence[Prompt], frame: Frame | None) -> list[Planned]:
        check_prompts(prompts, self._limits)
        located = locate(prompts, frame, self._history, self._next_frame)
        return plan_prompts(located, self._objects, self._limits, self.model.image_size)

    def _prompt_past(self, plan: Planned, now: Moment) -> None:
        """Applies a prompt to a past frame and, for that object alone, repeats the frames between it and `now`."""
        then, *later = self._history.since(plan.frame)
        obj, tracked = self._objects.get(plan.prompt.object_id), None
        if obj is not None:
            obj.rewind(then.index)
            if then.index not in obj.prompted_frames:
                tracked = self._track([obj], then).get(obj.object_id)
        self._prompt(plan, then, tracked)
        for moment in later:
            if moment is not now:
                self._repeat(self._objects[plan.prompt.object_id], moment)

    def _repeat(self, obj: TrackedObject, moment: Moment) -> None:
        """Tracks a past frame again, with all prompts that were applied there."""
        prompted = obj.prompted_frames.pop(moment.index, None)
        if prompted is not None and prompted.starts_over:
            obj.start_over(moment.index, moment.stamp_ns)
        answer = self._track([obj], moment).get(obj.object_id)
        if prompted is not None:
            for prompt in prompted.prompts:
                answer = self._apply(obj, prompt, moment, answer, prompted.starts_over)
        elif answer is not None:
            self._commit(obj, moment, answer)

    def _prompt(self, plan: Planned, moment: Moment, tracked: Answer | None) -> Answer:
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

    def _apply(
        self, obj: TrackedObject, prompt: ModelPrompt, moment: Moment, before: Answer | None, starts_over: bool
    ) -> Answer:
        """`before`: the object's answer on this frame so far, which the prompt refines."""
        prompted = obj.prompted_frames.get(moment.index, PromptedFrame((), None, starts_over))
        previous = before.logits if before is not None and before.is_finite else None
        if prompted.logits is not None:
            previous = torch.from_numpy(prompted.logits)[None, None].to(self.model.device)
        is_prompted = obj.starts_at(moment.index) or self._sticky_corrections
        answer = self._network.apply_prompt(obj, prompt, moment, previous, is_prompted)
        logits = answer.logits[0, 0].cpu().numpy() if answer.is_finite else None
        obj.prompted_frames[moment.index] = prompted.add(prompt, logits, self._limits)
        if moment.index < obj.born:
            obj.born, obj.born_ns = moment.index, moment.stamp_ns
        self._commit(obj, moment, answer, is_prompted)
        return answer

    def _track(self, objects: list[TrackedObject], moment: Moment) -> dict[str, Answer]:
        """Answers by object id. If batched, objects with equally many memories are computed together."""
        groups: dict[object, list[TrackedObject]] = {}
        for obj in objects:
            if obj.bank.can_recall(moment.index):
                key = obj.bank.recall(moment.index).shape if self.batched else obj.object_id
                groups.setdefault(key, []).append(obj)
        answers = {}
        self_attended = self._network.self_attend(moment) if groups else None
        for batch in batches(groups.values(), self.model.device):
            parts = self._network.track(batch, moment, self_attended).split()
            answers |= {obj.object_id: part for obj, part in zip(batch, parts, strict=True)}
        return answers

    def _commit(self, obj: TrackedObject, moment: Moment, answer: Answer, is_prompted: bool = False) -> None:
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

    def _report(self, moment: Moment, answers: dict[str, Answer]) -> list[Track]:
        """Copies all answers to the host at once, and commits those of objects that were only tracked."""
        if answers:
            answers = dict(zip(answers, to_host(list(answers.values())), strict=True))
        for object_id, answer in answers.items():
            if moment.index not in self._objects[object_id].prompted_frames:
                self._commit(self._objects[object_id], moment, answer)
        objects = sorted(self._objects.values(), key=lambda obj: obj.label)
        return [track_of(obj, moment, answers.get(obj.object_id), self._limits) for obj in objects]

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        device = self.model.device
        with device_errors(device), torch.inference_mode(), self.model.precision.context(device):
            yield

    @contextmanager
    def _all_or_nothing(self, prompted: set[str]) -> Iterator[None]:
        """Device work that changes nothing if it fails. `prompted`: ids of objects whose memories it may overwrite."""
        with self._on_device():
            snapshot = self._objects.snapshot(prompted)
        try:
            with self._on_device():
                yield
        except BaseException as error:
            self._history.withdraw(self._next_frame)
            if isinstance(error, OutOfMemory):
                self._network.forget_graphs()  # the next step needs the memory more
            with self._on_device():
                self._objects.roll_back(snapshot)
            raise
