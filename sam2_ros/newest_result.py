"""The newest result of a camera and what was restored since. Knows no ROS.

One value that is replaced as a whole, so that a thread that reads it sees a result, its age and what waits for the next
one as they belong together.
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

    def followed_by(self, header, tracks: list[sam2.Track]) -> "NewestResult":
        """The next result. One of the same image shows of the restored objects only those that were prompted."""
        shown = {track.object_id for track in tracks}
        restored = self.restored - shown if header is self.header else frozenset()
        return NewestResult(header, tracks, time.monotonic_ns(), restored)

    def without(self, object_ids: Collection[str] | None) -> "NewestResult":
        """After the removal of objects; None = all."""
        gone = set(self.object_ids if object_ids is None else object_ids)
        left = [track for track in self.tracks if track.object_id not in gone]
        return replace(self, tracks=left, restored=self.restored - gone)

    def with_restored(self, object_ids: Collection[str]) -> "NewestResult":
        return replace(self, restored=self.restored | set(object_ids))

    @property
    def object_ids(self) -> list[str]:
        """Ids of everything that is tracked."""
        return [*(track.object_id for track in self.tracks), *sorted(self.restored)]

    @property
    def age_s(self) -> float:
        """Seconds since it came; -1 if there is no result yet."""
        return (time.monotonic_ns() - self.came_ns) / 1e9 if self.came_ns else -1.0

    @property
    def waiting(self) -> str:
        """A sentence about the restored objects; "" if there are none."""
        names = ", ".join(sorted(self.restored))
        return f"restored, and tracked from the next image on: {names}" if names else ""
