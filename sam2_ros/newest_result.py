"""The newest result of a camera and what was restored since. Knows no ROS.

Immutable, and replaced as a whole, so that a thread that reads it sees a result, its age and the restored objects that
wait for the next result in a consistent state.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import sam2


@dataclass(frozen=True)
class NewestResult:
    header: Any = None  # std_msgs/Header of its image; None = there is no result yet
    tracks: list[sam2.Track] = field(default_factory=list)
    came_ns: int = 0  # steady clock
    restored: frozenset[str] = frozenset()  # ids of objects restored since, which the next image will show

    def followed_by(self, header: Any, tracks: list[sam2.Track]) -> "NewestResult":
        """The next result. A second result of the same image shows a restored object only if it was prompted."""
        shown = {track.object_id for track in tracks}
        restored = self.restored - shown if header is self.header else frozenset()
        return NewestResult(header, tracks, time.monotonic_ns(), restored)

    def without(self, object_ids: Collection[str] | None) -> "NewestResult":
        """The result after objects were removed; None = all."""
        gone = set(self.object_ids if object_ids is None else object_ids)
        left = [track for track in self.tracks if track.object_id not in gone]
        return replace(self, tracks=left, restored=self.restored - gone)

    def with_restored(self, object_ids: Collection[str]) -> "NewestResult":
        return replace(self, restored=self.restored | set(object_ids))

    def tracks_with(self, prompted: list[sam2.Track]) -> list[sam2.Track]:
        """Its tracks, updated with those that were `prompted` since, by rising label."""
        by_id = {track.object_id: track for track in (*self.tracks, *prompted)}
        return sorted(by_id.values(), key=lambda track: track.label)

    @property
    def object_ids(self) -> list[str]:
        """Ids of all objects that are tracked or restored."""
        return [*(track.object_id for track in self.tracks), *sorted(self.restored)]

    @property
    def age_s(self) -> float:
        """Seconds since the result came; -1 if there is none yet."""
        return (time.monotonic_ns() - self.came_ns) / 1e9 if self.came_ns else -1.0

    @property
    def waiting(self) -> str:
        """A sentence about the restored objects; "" if there are none."""
        names = ", ".join(sorted(self.restored))
        return f"restored, and tracked from the next image on: {names}" if names else ""
