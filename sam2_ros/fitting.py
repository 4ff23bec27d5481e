"""Runs the tracker with as many requests as fit together, and refuses the others.

Each request has passed `Tracker.check` by itself. Knows `sam2`'s public names. Does not know images, topics or threads.
"""

from collections.abc import Callable
from typing import NamedTuple

import sam2
from sam2_ros.auto_prompt import AutoPrompt
from sam2_ros.requests import Add


class Run(NamedTuple):
    tracks: list[sam2.Track]
    done: list[Add]  # requests carried out
    twins: dict[str, str]  # ids of objects to remove, each with the id of the object that it duplicates


class _Twins(sam2.BadInput):
    """Prompts that did not come from a detector show objects that are already tracked under another id."""

    def __init__(self, refused: dict[Add, str]) -> None:
        super().__init__("twins")
        self.refused = refused  # with a sentence for each


def twin_sentences(adds: list[Add], twins: dict[str, str]) -> dict[Add, str]:
    """Why each of `adds` that created one of `twins` is refused."""
    sentences = {}
    for add in adds:
        for name in sorted(add.object_ids & twins.keys())[:1]:
            is_own = twins[name] in add.object_ids
            known = "which this request prompts as well" if is_own else "which is tracked already"
            sentences[add] = f"the prompt for {name!r} shows {twins[name]!r}, {known}"
    return sentences


def run_fitting(
    tracker: sam2.Tracker, run: Callable, check: Callable, adds: list[Add], auto: AutoPrompt,
    refuse: Callable[[Add, Exception], None],
) -> Run:  # fmt: skip
    """Calls `run` with the prompts of `adds`; refuses requests and tries again until the rest fits.

    run: called with prompts and `accept`, as `Tracker.step` is after its frame. check: `Tracker.check` of prompts.
    refuse: called with each refused request and its error: those that do not fit together with the ones before them,
    and those by people that show an object that is already tracked.
    """
    left = list(adds)
    twins: dict[str, str] = {}

    def accept(tracks: list[sam2.Track]) -> None:
        by_id = {track.object_id: track for track in tracks}
        eldest_first = [by_id[name] for name in tracker.object_ids if name in by_id]  # labels wrap around at 254
        twins.clear()
        twins.update(auto.twins(left, eldest_first))
        peoples = [add for add in left if not auto.made(add)]
        if refused := twin_sentences(peoples, twins):
            raise _Twins(refused)

    while True:
        try:
            return Run(run([prompt for add in left for prompt in add.prompts], accept=accept), left, twins)
        except _Twins as twinned:
            refused = {add: sam2.BadInput(sentence) for add, sentence in twinned.refused.items()}
        except sam2.BadInput as error:
            if not left:
                raise
            # Its traceback would keep the failed step's memory alive.
            refused = {left[_first_too_many(check, left)]: error.with_traceback(None)}
        for add, reason in refused.items():
            left.remove(add)
            refuse(add, reason)


def _first_too_many(check: Callable, adds: list[Add]) -> int:
    """Index of the first request that does not fit together with those before it; -1, the last one, if all fit."""
    prompts: list[sam2.Prompt] = []
    for index, add in enumerate(adds):
        prompts += add.prompts
        try:
            check(prompts)
        except sam2.BadInput:
            return index
    return -1
