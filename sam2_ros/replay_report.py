"""What became of each object of a replay, as JSON and in words. A function of images and tracks, never of the clock."""

import itertools
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import sam2
from sam2_ros.replay_files import part_of, tell_lost
from sam2_ros.replay_source import Shot, Source


@dataclass
class _History:
    """What became of one object."""

    class_name: str
    label: int
    first_frame: int
    prompted_frames: list[int] = field(default_factory=list)
    states: list[sam2.State] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)  # the network's estimates, where visible


class Report:
    """Collects while the replay runs; `as_dict` is the report."""

    def __init__(self, source: Source, model: str) -> None:
        self._source, self._model = source, model
        self._histories: dict[str, _History] = {}
        self._stamps_ns: list[int] = []
        self._sizes_wh: Counter[tuple[int, int]] = Counter()  # how many images of each size

    def note(self, shot: Shot, tracks: list[sam2.Track], prompted: set[str]) -> None:
        self._stamps_ns.append(shot.stamp_ns)
        self._sizes_wh[shot.rgb.shape[1], shot.rgb.shape[0]] += 1
        for track in tracks:
            made = _History(track.class_name, track.label, shot.index)
            history = self._histories.setdefault(track.object_id, made)
            history.class_name = track.class_name
            history.states.append(track.state)
            history.frames.append(shot.index)
            history.stamps_ns.append(shot.stamp_ns)
            if track.object_id in prompted:
                history.prompted_frames.append(shot.index)
            if track.state is sam2.State.VISIBLE:
                history.ious.append(track.predicted_iou)

    @property
    def _times_set_back(self) -> int:
        """How often a stamp was older than the one before; 0 is none."""
        return sum(late < early for early, late in itertools.pairwise(filter(None, self._stamps_ns)))

    def as_dict(self) -> dict:
        """Stamps in nanoseconds, the most frequent size in pixels, shares as fractions. announced: how many images the
        source claims to have; 0 = unknown. damage: why and where reading ended early; "" = it did not."""
        (width, height), _ = self._sizes_wh.most_common(1)[0]
        return {
            "source": {
                "name": self._source.name,
                "topic": self._source.topic,
                "announced": self._source.total,
                "frames": len(self._stamps_ns),
                "refused": dict(self._source.refused),
                "damage": self._source.damage,
                "first_stamp_ns": self._stamps_ns[0],
                "last_stamp_ns": self._stamps_ns[-1],
                "width": width,
                "height": height,
            },
            "model": self._model,
            "objects": {name: _summary(history) for name, history in self._histories.items()},
        }

    def summary(self, took_s: float) -> str:
        """Lines for people. took_s: how long the replay took."""
        found = self.as_dict()
        frames, refused = found["source"]["frames"], sum(found["source"]["refused"].values())
        lines = [f"{frames} images in {took_s:.1f} s, {frames / max(took_s, 1e-9):.1f} images/s"]
        if refused:
            lines.append(f"{refused} images could not be used; the last: {self._source.last_refusal}")
        for name, one in found["objects"].items():
            seen, absences = f"visible in {one['visible_share']:.0%} of the images", one["absences"]
            back = sum(absence["back_frame"] is not None for absence in absences)
            lines.append(f"  {name}: {seen}, away {len(absences)} times, back {back} times")
        if len(self._sizes_wh) > 1:
            sizes = ", ".join(f"{count} of {width}x{height}" for (width, height), count in self._sizes_wh.items())
            lines.append(f"images of several sizes: {sizes}; objects were kept across them, which the node does not do")
        if self._times_set_back:
            times = f"stamps went back {self._times_set_back} times"
            lines.append(f"{times}; objects were kept, which the node does not always do")
        return "\n".join(lines)

    def write(self, path: Path) -> bool:
        """Writes the report; returns whether this succeeded. If not, prints a message and leaves nothing behind."""
        try:
            with part_of(path) as part:
                part.write_text(json.dumps(self.as_dict(), indent=2) + "\n")
                os.replace(part, path)
        except OSError:
            tell_lost(path, "report")
            return False
        return True


def _summary(history: _History) -> dict:
    visible = sum(state is sam2.State.VISIBLE for state in history.states)
    return {
        "class_name": history.class_name,
        "label": history.label,
        "first_frame": history.first_frame,
        "prompted_frames": history.prompted_frames,
        "frames": {state.name.lower(): history.states.count(state) for state in sam2.State},
        "visible_share": round(visible / len(history.states), 6),
        "mean_predicted_iou": round(float(np.mean(history.ious)), 6) if history.ious else None,
        "absences": _absences(history),
    }


def _absences(history: _History) -> list[dict]:
    """Runs of frames in which the object was not VISIBLE; back_* is None if it had not come back at the end."""
    runs: list[dict] = []
    absent = False
    for state, frame, stamp_ns in zip(history.states, history.frames, history.stamps_ns, strict=True):
        if state is not sam2.State.VISIBLE and not absent:
            runs.append({"gone_frame": frame, "gone_stamp_ns": stamp_ns, "back_frame": None, "back_stamp_ns": None})
        elif state is sam2.State.VISIBLE and absent:
            runs[-1] |= {"back_frame": frame, "back_stamp_ns": stamp_ns}
        absent = state is not sam2.State.VISIBLE
    return runs
