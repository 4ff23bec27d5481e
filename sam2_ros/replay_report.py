"""What became of each object of a replay, as JSON and in words. A function of images and tracks, never of the clock."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import sam2
from sam2_ros.replay_files import part_of, tell_lost
from sam2_ros.replay_source import Shot, Source


@dataclass
class _History:
    """What became of one object: nothing that grows with each image."""

    class_name: str
    label: int
    first_frame: int
    prompted_frames: list[int] = field(default_factory=list)
    states: Counter[sam2.State] = field(default_factory=Counter)  # in how many images
    iou_sum: float = 0.0  # of the network's estimates where it is visible
    absences: list[dict] = field(default_factory=list)  # as in the report

    def note(self, shot: Shot, track: sam2.Track) -> None:
        is_visible = track.state is sam2.State.VISIBLE
        was_away = bool(self.absences) and self.absences[-1]["back_frame"] is None
        self.class_name = track.class_name
        self.states[track.state] += 1
        self.iou_sum += track.predicted_iou if is_visible else 0.0
        if is_visible and was_away:
            self.absences[-1] |= {"back_frame": shot.index, "back_stamp_ns": shot.stamp_ns}
        elif not is_visible and not was_away:
            gone = {"gone_frame": shot.index, "gone_stamp_ns": shot.stamp_ns}
            self.absences.append(gone | {"back_frame": None, "back_stamp_ns": None})


class Report:
    """Collects while the replay runs; `as_dict` is the report."""

    def __init__(self, source: Source, model: str) -> None:
        self._source, self._model = source, model
        self._histories: dict[str, _History] = {}
        self._sizes_wh: Counter[tuple[int, int]] = Counter()  # how many images of each size
        self._first_ns: int | None = None  # stamp of the first image
        self._last_ns = self._known_ns = 0  # of the newest one, and of the newest that has a stamp
        self._times_set_back = 0  # how often a stamp was older than the one before

    def note(self, shot: Shot, tracks: list[sam2.Track], prompted: set[str]) -> None:
        self._sizes_wh[shot.rgb.shape[1], shot.rgb.shape[0]] += 1
        self._last_ns = shot.stamp_ns
        if self._first_ns is None:
            self._first_ns = shot.stamp_ns
        if shot.stamp_ns:
            self._times_set_back += shot.stamp_ns < self._known_ns
            self._known_ns = shot.stamp_ns
        for track in tracks:
            made = _History(track.class_name, track.label, shot.index)
            history = self._histories.setdefault(track.object_id, made)
            history.note(shot, track)
            if track.object_id in prompted:
                history.prompted_frames.append(shot.index)

    def as_dict(self) -> dict:
        """Stamps in nanoseconds, the most frequent size in pixels, shares as fractions. announced: how many images the
        source claims to have; 0 = unknown. damage: why and where reading ended early; "" = it did not."""
        (width, height), _ = self._sizes_wh.most_common(1)[0]
        return {
            "source": {
                "name": self._source.name,
                "topic": self._source.topic,
                "announced": self._source.total,
                "frames": self._sizes_wh.total(),
                "refused": dict(self._source.refused),
                "damage": self._source.damage,
                "first_stamp_ns": self._first_ns,
                "last_stamp_ns": self._last_ns,
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
    """Of absences, runs of frames in which the object was not VISIBLE, back_* is None if it was away at the end."""
    visible = history.states[sam2.State.VISIBLE]
    return {
        "class_name": history.class_name,
        "label": history.label,
        "first_frame": history.first_frame,
        "prompted_frames": history.prompted_frames,
        "frames": {state.name.lower(): history.states[state] for state in sam2.State},
        "visible_share": round(visible / history.states.total(), 6),
        "mean_predicted_iou": round(history.iou_sum / visible, 6) if visible else None,
        "absences": history.absences,
    }
