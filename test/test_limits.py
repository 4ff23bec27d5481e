"""Limits refuse what makes no sense, by name."""

from dataclasses import fields

import numpy as np
import pytest

import sam2
from sam2.limits import MAX_LABEL

LOWEST = {field.name: 0.0 if field.name.endswith("_s") else 1 for field in fields(sam2.Limits)}


DEFAULTS = {  # what a tracker promises to hold, as the README and ARCHITECTURE.md say it
    "max_objects": 16,
    "recent_memories": 6,  # official
    "pointers": 15,  # official
    "prompted_memories": 4,
    "history_frames": 30,
    "history_s": 2.0,
    "history_bytes": 512 * 1024**2,
    "points_per_prompt": 64,
    "occluded_after": 1,
    "lost_after_s": 5.0,
}


def test_defaults_are_what_is_promised():
    assert vars(sam2.Limits()) == DEFAULTS
    assert MAX_LABEL == 254


@pytest.mark.parametrize("name", LOWEST)
def test_lower_bound(name):
    assert getattr(sam2.Limits(**{name: LOWEST[name]}), name) == LOWEST[name]
    with pytest.raises(sam2.BadInput, match=rf"limits\.{name}: expected {LOWEST[name]:g} (to \d+|or more), got -?\d"):
        sam2.Limits(**{name: LOWEST[name] - 1})


@pytest.mark.parametrize(("name", "highest"), [("max_objects", 254), ("recent_memories", 6)])
def test_upper_bound(name, highest):
    sam2.Limits(**{name: highest})
    with pytest.raises(sam2.BadInput, match=rf"limits\.{name}: expected 1 to {highest}, got {highest + 1}"):
        sam2.Limits(**{name: highest + 1})


@pytest.mark.parametrize("value", ["3", None, True, [3], np.float32(3)])
@pytest.mark.parametrize("name", ["max_objects", "history_s"])
def test_wrong_type(name, value):
    with pytest.raises(sam2.BadInput, match=rf"limits\.{name}: expected (int|float), got "):
        sam2.Limits(**{name: value})


def test_fractions_are_for_seconds_only():
    assert sam2.Limits(history_s=0.5, lost_after_s=2).history_s == 0.5
    with pytest.raises(sam2.BadInput, match=r"limits\.pointers: expected int, got 2\.5"):
        sam2.Limits(pointers=2.5)
    with pytest.raises(sam2.BadInput, match=r"limits\.lost_after_s: .*, got nan"):
        sam2.Limits(lost_after_s=float("nan"))
