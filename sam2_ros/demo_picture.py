"""The pictures of a demo: each image with its tracks above a timeline of visibility, and one sheet of six moments.

Knows pixels, results and scores. Does not know where they come from. Pictures are (H, W, 3) uint8 RGB.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

import sam2
from sam2_ros.demo_score import Absence, Result, Score, Seen
from sam2_ros.overlay import STATE_WORDS, Overlay, colour_of
from sam2_ros.panel import INK, MARGIN, PAPER, panel, write

FAINT, DARK = (150, 155, 165), (52, 55, 62)
ROW, NAME_WIDTH = 20, 92  # pixels, of the timeline
_OPACITY = 0.5


def labels_of(results: Sequence[Result]) -> dict[str, int]:
    """By id, of every object that was tracked."""
    return {name: seen.label for result in results for name, seen in result.tracks.items()}


class Timeline:
    """One row per object over the whole run: its colour where the tracker saw it, dark where the tracker did not; the
    white line above shows when the object really was in view."""

    def __init__(self, results: Sequence[Result], width: int) -> None:
        labels = labels_of(results)
        self._x0, self._x1 = MARGIN + NAME_WIDTH, width - MARGIN
        self._last = max(results[-1].frame, 1)
        self.picture = np.full((ROW * len(labels) + 2 * MARGIN, width, 3), PAPER, np.uint8)
        ends = [result.frame for result in results[1:]] + [results[-1].frame + 1]
        for row, (name, label) in enumerate(sorted(labels.items(), key=lambda item: item[1])):
            y = MARGIN + row * ROW
            write(self.picture, name, (MARGIN, y + 14), 0.42, colour_of(label))
            for result, end in zip(results, ends, strict=True):
                self._bar(result, name, (self.x(result.frame), self.x(end)), y)

    def x(self, frame: int) -> int:
        """The pixel column of a frame."""
        return self._x0 + round((self._x1 - self._x0) * min(frame / self._last, 1.0))

    def at(self, frame: int) -> np.ndarray:
        """A copy with a cursor at `frame`; the part after it is faint."""
        picture, x = self.picture.copy(), self.x(frame)
        picture[:, x:] = picture[:, x:] // 3 + np.array(PAPER, np.uint8) // 3 * 2
        cv2.line(picture, (x, 2), (x, picture.shape[0] - 3), INK, 1)
        return picture

    def _bar(self, result: Result, name: str, span: tuple[int, int], y: int) -> None:
        track = result.tracks.get(name)
        if track is None:
            return
        visible = track.state is sam2.State.VISIBLE
        cv2.rectangle(
            self.picture, (span[0], y + 5), (span[1], y + 16), colour_of(track.label) if visible else DARK, -1
        )
        if result.is_in_view(name):
            cv2.line(self.picture, (span[0], y + 2), (span[1], y + 2), INK, 1)


def film(results: Sequence[Result], image_of: Callable[[int], np.ndarray], timeline_width: int) -> Iterator[np.ndarray]:
    """Yields a picture for each result. image_of: returns the image of a stamp."""
    overlay, timeline = Overlay(), Timeline(results, timeline_width)
    for result in results:
        tracks = list(result.tracks.values())
        picture = overlay.draw(image_of(result.stamp_ns), tracks, _OPACITY)
        line = np.full((26, timeline_width, 3), PAPER, np.uint8)
        write(line, f"image {result.frame}   {_in_words(tracks)}", (MARGIN, 18), 0.45)
        stacked = np.vstack([picture, line, timeline.at(result.frame)])  # (H + strip, W, 3)
        yield np.pad(stacked, ((0, stacked.shape[0] % 2), (0, stacked.shape[1] % 2), (0, 0)))  # codecs want even sides


def _in_words(tracks: list[Seen]) -> str:
    hidden = [f"{track.object_id} {STATE_WORDS[track.state]}" for track in tracks if STATE_WORDS[track.state]]
    seen = len(tracks) - len(hidden)
    return f"{seen} of {len(tracks)} visible" + (f": {', '.join(hidden)}" if hidden else "")


def best_absence(results: Sequence[Result], absences: Sequence[Absence]) -> Absence | None:
    """The absence to show: the object was found again, was reported as away meanwhile, and is large on either side."""

    def size(absence: Absence) -> float:
        before, after = max(absence.gone - 6, 0), min(absence.back + 6, len(results) - 1)
        known = np.mean([results[i].is_right(absence.name) for i in range(absence.gone, absence.back)])
        areas = [np.count_nonzero(results[i].truth[absence.name].mask) for i in (before, after)]
        others_right = np.mean([results[after].is_right(name) for name in results[after].tracks])
        return float(absence.found * known * min(areas) * others_right)

    return max(absences, key=size, default=None)


def story(results: Sequence[Result], absences: Sequence[Absence]) -> list[tuple[int, str]]:
    """Five moments, as indices of results with captions."""
    last, absence = len(results) - 1, best_absence(results, absences)
    first = next(i for i, result in enumerate(results) if result.tracks)
    if absence is None:
        steps = np.linspace(first, last, 5).astype(int).tolist()
        return [(i, f"image {results[i].frame}") for i in steps]
    name, middle = absence.name, (absence.gone + absence.back) // 2
    before, after = max(absence.gone - 5, first), min(absence.back + 5, last)
    known = results[middle].is_right(name)
    moments = [
        (first, "masks, ids and states from now on"),
        (before, f"{name} is about to be hidden"),
        (middle, f"{name} is out of sight, {'and the tracker says so' if known else 'which the tracker missed'}"),
        (after, f"{name} is back, {'under the same id' if absence.found else 'and was not found again'}"),
        (last, "the end"),
    ]
    return [(i, f"image {results[i].frame}: {words}") for i, words in moments]


def sheet(
    results: Sequence[Result],
    run: Score,
    image_of: Callable[[int], np.ndarray],
    boxes: dict[str, tuple[float, float, float, float]],
    prompted_ns: int,
) -> np.ndarray:
    """Six panels, the timeline with their positions, the scores. boxes: x0, y0, x1, y1 by id, in pixels of the image
    stamped `prompted_ns`."""
    moments = story(results, run.absences)
    prompted = _boxed(image_of(prompted_ns), boxes, labels_of(results))
    panels = [panel(prompted, "the prompted image: a box around each thing")]
    drawn = _drawn(results, image_of, {index for index, _ in moments})
    panels += [panel(drawn[index], caption) for index, caption in moments]
    rows = [np.hstack(panels[i : i + 3]) for i in (0, 3)]
    width = rows[0].shape[1]
    title = np.full((52, width, 3), PAPER, np.uint8)
    promise = "sam2_ros: point at a thing once, know from then on where it is and whether it is visible"
    write(title, promise, (16, 34), 0.8)
    return np.vstack([title, *rows, _marked(Timeline(results, width), results, moments), _figures(run, width)])


def _drawn(results: Sequence[Result], image_of: Callable[[int], np.ndarray], wanted: set[int]) -> dict[int, np.ndarray]:
    """Pictures by index. Images before those wanted are drawn too: the overlay keeps a hidden object's last box."""
    overlay = Overlay()
    pictures: dict[int, np.ndarray] = {}
    for index in range(max(wanted) + 1):
        if any(near - 60 < index <= near for near in wanted):
            tracks = list(results[index].tracks.values())
            picture = overlay.draw(image_of(results[index].stamp_ns), tracks, _OPACITY)
            if index in wanted:
                pictures[index] = picture
    return pictures


def _boxed(image: np.ndarray, boxes: dict[str, tuple], labels: dict[str, int]) -> np.ndarray:
    picture = np.array(image)
    for name, (x0, y0, x1, y1) in boxes.items():
        for colour, thickness in (((16, 16, 16), 6), (INK, 4), (colour_of(labels.get(name, 1)), 2)):
            cv2.rectangle(picture, (round(x0), round(y0)), (round(x1), round(y1)), colour, thickness, cv2.LINE_AA)
    return picture


def _marked(timeline: Timeline, results: Sequence[Result], moments: list[tuple[int, str]]) -> np.ndarray:
    """The timeline with a numbered mark for each moment."""
    marks = np.full((24, timeline.picture.shape[1], 3), PAPER, np.uint8)
    picture = timeline.picture.copy()
    for index, _ in moments:
        frame = results[index].frame
        x = timeline.x(frame)
        cv2.line(picture, (x, 0), (x, picture.shape[0]), INK, 1)
        write(marks, str(frame), (min(x + 3, marks.shape[1] - 40), 18), 0.42, FAINT)
    write(marks, "image", (MARGIN, 18), 0.42, FAINT)
    return np.vstack([marks, picture])


def _figures(run: Score, width: int) -> np.ndarray:
    strip = np.full((74, width, 3), PAPER, np.uint8)
    legend = "colour: the tracker sees it   dark: it says the object is away   white line: the truth"
    write(strip, legend, (16, 20), 0.45, FAINT)
    found = sum(absence.found for absence in run.absences)
    text = (
        f"{run.results} results of {run.images} images, {run.fps:.1f} per second, age {run.age_p50_s * 1e3:.0f} ms"
        f"   mean IoU {run.mean_iou:.2f}   visibility {run.visibility:.1%}"
        f"   found again {found} of {len(run.absences)} times"
    )
    write(strip, text, (16, 54), 0.65)
    return strip
