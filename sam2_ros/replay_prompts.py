"""What a replay says of its prompts before their images come, so that a mistake is reported now and not after hours.

Knows entries of a prompts file, and the tracker that checks them. Every message names the entry and its image.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

import sam2
from sam2_ros.prompt_file import Entry

if TYPE_CHECKING:
    from sam2_ros.replay_source import Source

MAY_BE_EARLY_S = 1.0  # a prompt's stamp, without a warning: recorders begin with any image


def check_frames(entries: list[Entry], total: int) -> None:
    """Raises sam2.BadInput for an entry that waits for an image beyond the last one; total 0 = not known."""
    for entry in entries:
        if total and entry.frame is not None and entry.frame >= total:
            raise sam2.BadInput(f"{entry.name}: {entry.place}: the source has {total} images, the last is {total - 1}")


def check_alone(entries: list[Entry], tracker: sam2.Tracker) -> None:
    """Checks what needs no image. Raises sam2.BadInput."""
    for entry in sorted(entries, key=lambda entry: not entry.begins):  # those that begin an object come first
        with blaming([entry]):
            tracker.check([*_what_it_corrects(entry, entries), entry.prompt])


def _what_it_corrects(entry: Entry, entries: list[Entry]) -> list[sam2.Prompt]:
    """The first prompt that begins the object, for an entry that only says where the object is not; otherwise []."""
    if entry.begins:
        return []
    return [one.prompt for one in entries if one.begins and one.prompt.object_id == entry.prompt.object_id][:1]


def warn_of_the_past(due: list[Entry], first_ns: int) -> None:
    """Of prompts for the first image by a stamp that is of another recording, or counts from the beginning."""
    for entry in due:
        if entry.frame is None and (early_s := (first_ns - entry.stamp_ns) / 1e9) > MAY_BE_EARLY_S:
            when = f"{early_s:.1f} s before the first image, {first_ns / 1e9:.3f}, to which it is applied"
            tqdm.write(f"sam2_ros replay: warning: {entry.name}: {entry.place} is {when}", file=sys.stderr)


def look_ahead(waiting: list[Entry], source: "Source", tracker: sam2.Tracker, first: sam2.Frame) -> None:
    """Checks all later prompts against the first image, so that coordinates outside it are reported now and not after
    hours; only a warning if images may differ in size."""
    for entry in waiting:
        on_it = [1] * len(entry.prompt.labels)  # as if on the object: the object that it corrects may not exist yet
        try:
            with blaming([entry]):
                tracker.check(replace(entry.prompt, labels=on_it), first)
        except sam2.BadInput as error:
            if source.one_size:
                raise
            when = "the replay will fail there, unless that image is larger than the first"
            tqdm.write(f"sam2_ros replay: warning: {error}; {when}", file=sys.stderr)


@contextmanager
def blaming(entries: list[Entry]) -> Iterator[None]:
    """Prefixes a BadInput's message with the names and the image of the entries."""
    try:
        yield
    except sam2.BadInput as error:
        if not entries:
            raise
        names = " and ".join(entry.name for entry in entries)
        raise sam2.BadInput(f"{names}, {entries[0].place}: {error}") from error
