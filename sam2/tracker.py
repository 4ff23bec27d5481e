"""The stream: one image in, every object's mask, state and score out, for as long as you like, in constant memory.

All state is here: objects, their memories, recent frames. The results equal those of the official video predictor on
the same frames; where a stream has to differ, the docstring of `Tracker` says so.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from sam2.ahead import Ahead
from sam2.checks import check_frame, check_prompts
from sam2.device import device_errors
from sam2.errors import BadInput, OutOfMemory, UnknownObject
from sam2.frame_step import Answer, FrameStep
from sam2.history import History, Moment
from sam2.limits import Limits
from sam2.live_objects import LiveObjects
from sam2.model import SAM2, Features
from sam2.object_steps import ObjectSteps
from sam2.plan import Located, Planned, locate, locate_kept, plan_prompts
from sam2.report import to_host, track_of
from sam2.saved_objects import check_room, put_back, read_objects, save_objects
from sam2.types import Frame, Prompt, Track
from sam2.warm_up import warm_up


class Tracker:
    """Tracks objects through a stream of images. Not thread-safe: one thread owns it and the model.

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
        self._begin()

    def _begin(self) -> None:
        """Creates fresh state: no objects; labels and frame indices start over."""
        self._objects = LiveObjects(self._network.store, self._limits)
        self._steps = ObjectSteps(self._network, self._objects, self._limits, self._sticky_corrections)
        self._next_frame = 0

    def sibling(self) -> "Tracker":
        """A tracker without objects on the same model, with the same settings: for another camera."""
        return Tracker(self.model, self._limits, self._sticky_corrections, self._fill_hole_area, self.batched)

    def encode_together(self, pairs: "Sequence[tuple[Tracker, Frame]]") -> None:
        """Encodes the next frames of several trackers of this model as one batch, so that their `step` need not.

        Raises BadInput, OutOfMemory or DeviceLost; after that each `step` encodes its own frame.
        """
        if not pairs:
            raise BadInput("frames: expected one or more, got none")
        for _, frame in pairs:
            check_frame(frame)
        with self._on_device():
            self._ahead.join()
            batch = self._network.encode([frame.rgb for _, frame in pairs])
            for index, (tracker, frame) in enumerate(pairs):
                tracker._ahead.put(frame, Features(*(part[index : index + 1].clone() for part in batch)))

    def encode_ahead(self, frame: Frame) -> None:
        """Starts to encode `frame`, the one after the next `step`'s; on a GPU in parallel with that step. For
        recordings, where it is available early. Raises what `encode_together` raises."""
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
            self._begin()

    @property
    def object_ids(self) -> list[str]:
        """Ids of the live objects, in order of arrival."""
        return list(self._objects)

    def step(
        self, frame: Frame, prompts: Sequence[Prompt] = (), accept: Callable[[list[Track]], None] = lambda tracks: None,
        progress: Callable[[], None] = lambda: None,
    ) -> list[Track]:  # fmt: skip
        """Tracks every live object into `frame` and applies `prompts`; returns all live objects in order of label.

        A prompt with a new id creates an object; with the id of a live object it adds to that object's prompts or
        replaces them. It applies to the frame nearest to its `stamp_ns`; if that is a past frame, its object, and no
        other, is re-tracked from there. Prompts apply in the order of their frames, those for one frame in the order
        given.

        Raises BadInput, Stale or LimitReached for the frame or any prompt; then, as after any other error, nothing has
        changed. accept: called with the tracks before the step becomes final; if it raises, the step is undone too.
        progress: called before each past frame that is processed again.
        """
        check_frame(frame)
        check_prompts(prompts, self._limits)
        planned = self._plan(locate(prompts, frame, self._history, self._next_frame))
        with self._all_or_nothing({plan.prompt.object_id for plan in planned}):
            tracks = self._step(frame, planned, progress)
            accept(tracks)
        self._next_frame += 1
        self._ahead.drop(frame)
        return tracks

    def prompt(
        self, prompts: Sequence[Prompt], accept: Callable[[list[Track]], None] = lambda tracks: None,
        progress: Callable[[], None] = lambda: None,
    ) -> list[Track]:  # fmt: skip
        """Applies prompts without a new frame, each to the kept frame nearest to its `stamp_ns`, 0 = the newest.
        Returns the prompted objects' tracks in the newest frame, in order of label.

        The stream continues as if the prompts had come in time. Raises what `step` raises, and BadInput before the
        first frame; then nothing has changed. accept, progress: as in `step`.
        """
        newest, located = self._locate_seen(prompts)
        planned = self._plan(located)
        with self._all_or_nothing({plan.prompt.object_id for plan in planned}):
            answers = self._catch_up(planned, newest.index, progress)
            found = {object_id: answer for object_id, answer in answers.items() if answer is not None}
            tracks = self._tracks(newest, dict.fromkeys(answers) | to_host(found))
            accept(tracks)
        return tracks

    def check(self, prompts: Prompt | Sequence[Prompt], frame: Frame | None = None, seen: bool = False) -> list[int]:
        """Raises what `step(frame, prompts)` would raise for one prompt or several, and changes nothing. Returns the
        stamp of the frame that each would be applied to.

        Without a frame, coordinates are checked against the newest image, no stamp is too new, and that of the next
        frame is 0. seen: as for `prompt(prompts)` instead.
        """
        prompts = [prompts] if isinstance(prompts, Prompt) else prompts
        if seen:
            _, located = self._locate_seen(prompts)
        else:
            check_prompts(prompts, self._limits)
            located = locate(prompts, frame, self._history, self._next_frame)
        self._plan(located)
        return [one.stamp_ns for one in located]

    def remove(self, object_id: str) -> None:
        """Forgets one object and leaves the others alone. Raises UnknownObject naming the live ids."""
        if object_id not in self._objects:
            raise UnknownObject(f"object_id: expected one of {self.object_ids}, got {object_id!r}")
        self._objects.remove(object_id)

    def reset(self, keep: Collection[str] = ()) -> None:
        """Forgets the history and all objects but those to `keep`; the model stays."""
        for object_id in self.object_ids:
            if object_id not in keep:
                self.remove(object_id)
        self._history.clear()
        self._ahead.clear()

    def save(self, path: str | Path, object_ids: Sequence[str] = ()) -> list[str]:
        """Writes the prompted memories of the named objects, or of all; returns their ids. Raises UnknownObject, or
        BadInput if there is nothing to save or the file cannot be written."""
        with self._on_device():
            return save_objects(Path(path), self.model, self._network.store, self._objects, object_ids)

    def restore(self, path: str | Path, object_ids: Sequence[str] = (), max_age_s: float = 0.0) -> list[str]:
        """Resumes tracking the named objects of a file that `save` wrote, or all of them; returns their ids. They are
        OCCLUDED until seen, or LOST once `Limits.lost_after_s` has passed since the next frame.

        Raises what `read_objects` raises, BadInput for an id that is already tracked, LimitReached; then none is
        restored.
        """
        with self._on_device():
            kept = read_objects(Path(path), self.model, self._limits, object_ids, max_age_s)
        check_room(kept, self._objects, self._limits)
        oldest = self._history.oldest
        before = oldest.index if oldest else self._next_frame  # a late prompt must come after restored memories
        with self._all_or_nothing(set()):
            for one in kept:  # born on the next frame, whenever that comes
                obj = self._objects.add(one.object_id, one.class_name, self._next_frame, 0)
                obj.bank = put_back(one, self._network.store, obj.row, self._limits, before)
        return [one.object_id for one in kept]

    def _step(self, frame: Frame, planned: list[Planned], progress: Callable[[], None]) -> list[Track]:
        self._objects.follow_clock(self._history.newest_ns, frame.stamp_ns)
        features = self._ahead.get(frame) or self._network.encode([frame.rgb])
        moment = self._history.add(self._next_frame, frame.stamp_ns, frame.size_hw, features)
        self._catch_up([plan for plan in planned if plan.frame < moment.index], moment.index - 1, progress)
        answers = self._steps.track(list(self._objects.values()), moment, self.batched)
        for plan in planned:
            if plan.frame == moment.index:
                tracked = answers.get(plan.prompt.object_id)
                answers[plan.prompt.object_id] = self._steps.prompt(plan, moment, tracked)
        answers = to_host(answers)
        for object_id, answer in answers.items():
            if moment.index not in self._objects[object_id].prompted_frames:
                self._steps.commit(self._objects[object_id], moment, answer)
        return self._tracks(moment, dict.fromkeys(self._objects) | answers)

    def _catch_up(self, planned: list[Planned], newest: int, progress: Callable[[], None]) -> dict[str, Answer | None]:
        """Applies prompts, sorted by frame, and re-tracks their objects through the frames since the first one's, up to
        `newest`."""
        moments = self._history.since(planned[0].frame) if planned else []
        again = [moment for moment in moments if moment.index <= newest]
        return self._steps.catch_up(planned, again, self.batched, progress)

    def _locate_seen(self, prompts: Sequence[Prompt]) -> tuple[Moment, list[Located]]:
        """The newest frame, and the frames of prompts on it or earlier ones. Raises BadInput before the first."""
        check_prompts(prompts, self._limits)
        newest = self._history.newest
        if newest is None:
            raise BadInput(
                "prompt: expected a frame that was seen before, got none; give the prompt to `step` with one"
            )
        return newest, locate_kept(prompts, self._history)

    def _plan(self, located: Sequence[Located]) -> list[Planned]:
        return plan_prompts(located, self._objects, self._limits, self.model.image_size)

    def _tracks(self, moment: Moment, answers: dict[str, Answer | None]) -> list[Track]:
        """Tracks in order of label."""
        objects = sorted((self._objects[object_id] for object_id in answers), key=lambda obj: obj.label)
        return [track_of(obj, moment, answers[obj.object_id], self._limits) for obj in objects]

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        device = self.model.device
        with device_errors(device), torch.inference_mode(), self.model.precision.context(device):
            yield

    @contextmanager
    def _all_or_nothing(self, prompted: set[str]) -> Iterator[None]:
        """Runs the block's device work, and undoes it if it fails. `prompted`: ids of objects whose memories it may
        overwrite."""
        snapshot = None
        try:
            with self._on_device():
                snapshot = self._objects.snapshot(prompted)
                yield
        except BaseException as error:
            self._history.withdraw(self._next_frame)
            if isinstance(error, OutOfMemory):
                self._network.forget_graphs()  # the next step needs the memory more
            if snapshot is not None:
                with self._on_device():
                    self._objects.roll_back(snapshot)
            raise
