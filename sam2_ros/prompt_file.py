"""Reads a replay's prompts from a YAML file, which `FORMAT` documents.

Knows the file and what each entry must contain. The tracker checks whether a prompt fits its image. Every error names
the file, the entry and the field.
"""

import reprlib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import sam2
from sam2_ros.pictures import may_be_read, read_mask

FORMAT = """\
the prompts file is a YAML list, one entry for each thing to point at:

  - object_id: cup               # a new id makes an object; a known one refines it
    frame: 0                     # number of the image in the source, from 0
    points: [[320, 240]]         # pixels of the image, from the top left
  - object_id: spoon
    class_name: cutlery          # what kind of thing it is; may be left out
    stamp: 12.345000000          # instead of frame: seconds, as in header.stamp; the first image at or after it
                                 # in a video its time there + 1 / fps, in a folder (frame + 1) / fps
    points: [[100, 80], [160, 90]]
    labels: [1, 0]               # 1 = on the object, 0 = not on it; left out: all 1
    box: [80, 60, 220, 140]      # x_min, y_min, x_max, y_max; with or without points
  - object_id: plate
    mask: masks/plate.png        # an image file beside this one, not black = the object; without points or box
                                 # (in a JPEG: more than half as bright as its brightest)
    mode: replace                # forget the object's memory; left out: add

without frame and stamp an entry is for the first image.
"""

FIELDS = ("object_id", "class_name", "frame", "stamp", "points", "labels", "box", "mask", "mode")
MOST_OBJECTS = 254  # an 8-bit label mask has no more
_MODES = {mode.value: mode for mode in sam2.PromptMode}
_MOST_DIGITS = 18  # of a frame number; int() refuses thousands of digits
_MOST_SECONDS = 10**10  # far beyond any header.stamp; int() of 1e900000 takes half a minute

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 2, 100, 100
_show = _repr.repr  # bounded: with YAML aliases, ten lines can make lists of a billion items


@dataclass(frozen=True)
class Entry:
    """One entry of the file; it is for an image's number or, if `frame` is None, for its stamp."""

    name: str  # for people: its position in the file, and its object
    prompt: sam2.Prompt
    frame: int | None
    stamp_ns: int  # 0 with a frame
    mask_file: Path | None = None

    def is_due(self, index: int, stamp_ns: int) -> bool:
        """Whether it is for image number `index`, or for an earlier one that was refused or missing."""
        return index >= self.frame if self.frame is not None else stamp_ns >= self.stamp_ns

    @property
    def begins(self) -> bool:
        """Whether it says where the object is, not only where it is not."""
        return self.prompt.mask is not None or self.prompt.box_xyxy is not None or 1 in self.prompt.labels

    @property
    def place(self) -> str:
        """The image it waits for, in words."""
        return f"frame {self.frame}" if self.frame is not None else f"stamp {Decimal(self.stamp_ns) / 10**9}"


class _Loader(yaml.BaseLoader):
    """Refuses fields that come twice, as where the dash of a second entry is missing; yaml would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{_show(key.value)} comes twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path) -> list[Entry]:
    """Reads and checks all entries of a file. Raises sam2.BadInput."""
    try:
        # Every number stays as written: a stamp of 19 digits does not fit a float, and "007" is a good id.
        content = yaml.load(path.read_text("utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise sam2.BadInput(f"prompts {path}: expected a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, list) or not content:
        raise sam2.BadInput(f"prompts {path}: expected a list with at least one entry; see sam2_ros replay --help")
    entries = [_entry(fields, f"{path}, entry {number}", path.parent) for number, fields in enumerate(content, start=1)]
    if (found := len({entry.prompt.object_id for entry in entries})) > MOST_OBJECTS:
        raise sam2.BadInput(f"prompts {path}: expected at most {MOST_OBJECTS} objects, got {found}; replay in parts")
    return entries


def _entry(fields: object, where: str, folder: Path) -> Entry:
    if not isinstance(fields, dict) or not fields.get("object_id"):
        raise sam2.BadInput(f"{where}: expected fields, one of them object_id, got {_show(fields)}")
    name = f"{where} ({_show(fields['object_id'])})"
    for field in ("object_id", "class_name", "mask", "mode"):
        if not isinstance(fields.get(field, ""), str):
            raise sam2.BadInput(f"{name}: {field}: expected one text, got {_show(fields[field])}")
    unknown = [field for field in fields if field not in FIELDS]
    if unknown:
        raise sam2.BadInput(f"{name}: {_show(unknown[0])} is no field; expected some of {', '.join(FIELDS)}")
    if "frame" in fields and "stamp" in fields:
        raise sam2.BadInput(f"{name}: frame and stamp: expected one of them")
    if fields.get("mode", "add") not in _MODES:
        raise sam2.BadInput(f"{name}: mode: expected one of {', '.join(_MODES)}, got {_show(fields['mode'])}")
    points = _numbers(fields, "points", name)
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise sam2.BadInput(f"{name}: points: expected pairs, as [[320, 240]], got {_show(fields['points'])}")
    stamp_ns = _stamp_ns(fields["stamp"], name) if "stamp" in fields else 0
    mask_file = folder / fields["mask"] if "mask" in fields else None
    prompt = sam2.Prompt(
        object_id=fields["object_id"],
        points_xy=points,
        labels=_numbers(fields, "labels", name) if "labels" in fields else [1] * len(points),
        box_xyxy=_numbers(fields, "box", name) or None,
        mask=_mask(mask_file, name) if mask_file else None,
        mode=_MODES[fields.get("mode", "add")],
        class_name=fields.get("class_name", ""),
    )
    frame = None if "stamp" in fields else _frame(fields.get("frame", "0"), name)
    return Entry(name, prompt, frame, stamp_ns, mask_file)


def _numbers(fields: dict, field: str, name: str) -> list:
    """A list, or a list of lists, of numbers; [] if the field is not there."""
    try:
        given = fields.get(field, [])
        if not isinstance(given, list):
            raise ValueError
        return [[float(n) for n in item] if isinstance(item, list) else float(item) for item in given]
    except (TypeError, ValueError):
        raise sam2.BadInput(f"{name}: {field}: expected a list of numbers, got {_show(fields[field])}") from None


def _frame(text: object, name: str) -> int:
    if not isinstance(text, str) or not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise sam2.BadInput(f"{name}: frame: expected the number of an image, from 0, got {_show(text)}")
    return int(text)


def _stamp_ns(text: Any, name: str) -> int:  # Any, because Decimal says what it takes
    try:
        stamp = Decimal(text)
        if not 0 < stamp < _MOST_SECONDS:
            raise ValueError
        return int(stamp * 10**9)
    except (ArithmeticError, TypeError, ValueError):  # decimal raises the first
        raise sam2.BadInput(
            f"{name}: stamp: expected seconds above 0 and below {_MOST_SECONDS}, got {_show(text)}"
        ) from None


def _mask(path: Path, name: str) -> np.ndarray:
    """(H, W) bool."""
    mask = read_mask(path)
    if mask is None:
        found = "found none at" if may_be_read(path) else "this user may not read"
        raise sam2.BadInput(f"{name}: mask: expected an image file, {found} {path}")
    return mask
