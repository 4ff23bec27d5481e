"""How good tracked masks are: J, F, J&F, visibility accuracy, re-acquisition after an absence.

Knows only arrays; nothing of trackers, datasets or files. A mask is (H, W) bool, of one object in one frame. J and F
are those of the DAVIS benchmark (Perazzi et al., CVPR 2016, section 4) as the DAVIS 2017 and SA-V toolkits compute
them: both are 1 where neither prediction nor truth has a pixel. The toolkits differ in which frames count:
`scored_frames`. All values are fractions; NaN where there was nothing to judge.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from sam2.errors import BadInput

BOUNDARY_TOLERANCE = 0.008  # of the image diagonal
SHORTEST_ABSENCE, LONGEST_ABSENCE = 3, 15  # frames; a shorter one is a flicker, a longer one may be a loss
_REACQUIRED_IOU, _REACQUIRED_WITHIN = 0.5, 3  # frames, from that of the return on


def region_similarity(predicted: np.ndarray, true: np.ndarray) -> float:
    """J: intersection over union of two (H, W) bool masks. Raises BadInput if they differ in shape."""
    _check_pair(predicted, true)
    union = np.count_nonzero(predicted | true)
    return np.count_nonzero(predicted & true) / union if union else 1.0


def boundary_accuracy(predicted: np.ndarray, true: np.ndarray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """F: harmonic mean of the precision and recall of boundary pixels of two (H, W) bool masks.

    A boundary pixel is correct if the other boundary passes within `tolerance` x diagonal, rounded up to whole pixels
    (Euclidean distance, as dilation by a disk gives). Raises BadInput if the masks differ in shape.
    """
    _check_pair(predicted, true)
    radius = np.ceil(tolerance * np.hypot(*true.shape))
    found, wanted = boundary(predicted), boundary(true)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = np.mean(_within(wanted, radius)[found])
    recall = np.mean(_within(found, radius)[wanted])
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool -> (H, W) bool: pixels that differ from the one to the right, below, or diagonally below right.

    So a boundary is one pixel wide and lies up to a pixel above and to the left of the mask. Pixels of the last column
    or row are compared only along that column or row: where the mask touches the image's edge there is no boundary.
    """
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def scored_frames(num_frames: int, leading: int = 1) -> slice:
    """Which of an object's frames, from its prompt on, are scored: all but the first `leading` ones and the last.

    With 1 the prompted frame is left out, as DAVIS's toolkit does for an object of the video's first frame. For what
    SA-V's toolkit does, see `leading_frames_of_sav`.
    """
    return slice(leading, max(leading, num_frames - 1))


def leading_frames_of_sav(j: Sequence[float], there: Sequence[bool], is_late: bool) -> int:
    """How many of an object's frames, from its prompt on, come before the first that SA-V's toolkit scores.

    The toolkit leaves out the first and the last frame annotated for an object. If the object `is_late`, it has earlier
    annotations as absent, so the prompted frame is scored. Leading frames in which both prediction and truth are empty
    are left out, too. there: whether the truth has pixels.
    """
    begun = (k for k in range(0 if is_late else 1, len(j)) if there[k] or j[k] < 1)  # J is 1 if both are empty
    return next(begun, len(j))


class Score(NamedTuple):
    """As fractions."""

    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        return (self.j + self.f) / 2


def score_frames(j: Sequence[float], f: Sequence[float], leading: int = 1) -> Score | None:
    """J and F of one object from those of its frames: means over the scored frames; None if there are none."""
    kept = scored_frames(len(j), leading)
    return Score(float(np.mean(j[kept])), float(np.mean(f[kept]))) if j[kept] else None


def mean_score(scores: Sequence[Score]) -> Score:
    """Mean over objects of any videos: every object has the same weight. NaN for none."""
    if not scores:
        return Score(float("nan"), float("nan"))
    return Score(*(float(value) for value in np.mean(scores, axis=0)))


def returns(visible: np.ndarray) -> list[int]:
    """The frames in which an object is back after SHORTEST_ABSENCE to LONGEST_ABSENCE frames away; visible (T,) bool.

    Neither the time before it first appears nor an absence that lasts to the end counts.
    """
    seen = np.flatnonzero(visible)
    absences = np.diff(seen) - 1
    return seen[1:][(absences >= SHORTEST_ABSENCE) & (absences <= LONGEST_ABSENCE)].tolist()


def reacquired(overlap: Sequence[tuple[float, float]], back: int) -> bool | None:
    """Whether a tracker re-acquired an object, and not another one instead, within its first frames back.

    overlap: for each of T frames, IoU of the object's predicted mask with its own true mask, and the largest with that
    of another object; `back`: the frame of its return. True if in one of the three frames from `back` on the first is
    at least 0.5 and larger than the second. None if the video ends within those frames and it was not found by then.
    """
    window = overlap[back : back + _REACQUIRED_WITHIN]
    if any(own >= _REACQUIRED_IOU and own > other for own, other in window):
        return True
    return False if len(window) == _REACQUIRED_WITHIN else None


def _within(edge: np.ndarray, radius: float) -> np.ndarray:
    """(H, W) bool: pixels at most `radius` pixels from a pixel of `edge`, which has some."""
    distance = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= radius + 1e-3  # distances are roots of integers, computed in float32


def _check_pair(predicted: np.ndarray, true: np.ndarray) -> None:
    for name, value in (("predicted", predicted), ("true", true)):
        if value.dtype != bool:
            raise BadInput(f"{name}: expected bool, got {value.dtype}; threshold it first")
    if predicted.shape != true.shape:
        raise BadInput(f"predicted: expected the shape {true.shape} of the truth, got {predicted.shape}")
