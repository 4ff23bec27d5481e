"""The limits that a long run must keep, as numbers that can be too large. test_gates.py shows that each gate can fail.

A slope is a least-squares fit over the medians of blocks, with the 95 % interval of the fit: single samples are
correlated (a network that was just loaded stays loaded), the medians of blocks hardly are. A gate on a slope compares
the upper end of the interval, so that too little evidence is a failure and not a pass.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

BLOCKS = 20
T_975 = 2.101  # Student's t for BLOCKS - 2 degrees of freedom


@dataclass(frozen=True)
class Gate:
    """`value` must not exceed `bound`."""

    name: str
    value: float
    bound: float
    unit: str = ""

    @property
    def is_kept(self) -> bool:
        return bool(self.value <= self.bound)  # NaN is not kept

    def __str__(self) -> str:
        verdict = "kept" if self.is_kept else "BROKEN"
        return f"{self.name}: {self.value:.4g} {self.unit}, at most {self.bound:g}: {verdict}"


@dataclass(frozen=True)
class Slope:
    """Units per minute, with half the width of its 95 % interval."""

    per_minute: float
    half_width: float

    @property
    def upper(self) -> float:
        return self.per_minute + self.half_width

    @property
    def holds_zero(self) -> bool:
        return abs(self.per_minute) <= self.half_width

    def __str__(self) -> str:
        return f"{self.per_minute:+.3g} ± {self.half_width:.2g} per minute"


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope:
    """The slope of a series; NaN if there are fewer than two samples per block."""
    times, values = np.asarray(times_s, float) / 60, np.asarray(values, float)  # minutes
    known = np.isfinite(values)
    times, values = times[known], values[known]
    if len(times) < 2 * BLOCKS:
        return Slope(np.nan, np.nan)
    t = np.array([block.mean() for block in np.array_split(times, BLOCKS)])
    y = np.array([np.median(block) for block in np.array_split(values, BLOCKS)])
    spread = ((t - t.mean()) ** 2).sum()
    rate = ((t - t.mean()) * (y - y.mean())).sum() / spread
    rest = y - y.mean() - rate * (t - t.mean())
    error = np.sqrt((rest**2).sum() / (BLOCKS - 2) / spread)
    return Slope(float(rate), float(T_975 * error))


def second_half(times_s: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The samples after warm-up: those in the second half of the time."""
    times, values = np.asarray(times_s, float), np.asarray(values, float)
    late = times >= (times[0] + times[-1]) / 2
    return times[late], values[late]


def grows(name: str, times_s: Sequence[float], values: Sequence[float], bound: float, unit: str) -> Gate:
    """A gate on the upper end of the slope per minute in the second half."""
    return Gate(f"growth of {name}", slope(*second_half(times_s, values)).upper, bound, f"{unit}/min")


def rises(name: str, times_s: Sequence[float], values: Sequence[float], bound: float, unit: str) -> Gate:
    """A gate on the rise from the least value of the third quarter to that of the last, per minute between them.

    The least values leave out temporary use, if all of it has ended once in each quarter. NaN if a quarter has fewer
    samples than BLOCKS.
    """
    times, values = np.asarray(times_s, float) / 60, np.asarray(values, float)  # minutes
    known = np.isfinite(values)
    times, values = times[known], values[known]
    third, last = np.searchsorted(times, times[0] + (times[-1] - times[0]) * np.array([0.5, 0.75]))
    rise = np.nan
    if min(last - third, len(times) - last) >= BLOCKS:
        before, after = third + values[third:last].argmin(), last + values[last:].argmin()
        rise = float((values[after] - values[before]) / (times[after] - times[before]))
    return Gate(f"growth of {name}", rise, bound, f"{unit}/min")


def drifts(name: str, times_s: Sequence[float], values: Sequence[float], bound: float) -> Gate:
    """A gate like `grows`, in percent of the mean of the first half."""
    times, values = np.asarray(times_s, float), np.asarray(values, float)
    early = np.nanmean(values[: max(len(values) // 2, 1)])
    return Gate(f"drift of {name}", 100 * slope(*second_half(times, values)).upper / early, bound, "%/min")


def longest_silence(times_s: Sequence[float], results: Sequence[float], bound_s: float) -> Gate:
    """A gate on the longest time between two samples with results, or from the last of them to the end.

    results: number received since the sample before.
    """
    times = np.asarray(times_s, float)
    heard = times[np.asarray(results, float) > 0]
    gaps = np.diff(np.concatenate((heard, times[-1:]))) if len(heard) else np.array([np.nan])
    return Gate("longest silence", float(gaps.max()), bound_s, "s")


def unpublished(counts: dict[str, str]) -> Gate:
    """Counts processed images whose results were neither published, nor withheld because the node was no longer active,
    nor lost to a counted failure."""
    failed = sum(int(n) for key, n in counts.items() if key.startswith("failed: publish: "))
    known = int(counts.get("published", 0)) + int(counts.get("withheld at deactivation", 0)) + failed
    return Gate("results that were not published", int(counts.get("processed", 1)) - known, 0)


def unaccounted(counts: dict[str, str]) -> Gate:
    """Counts received images that no other counter explains. counts: the values of the node's diagnostics, by key."""
    if "received" not in counts:
        return Gate("images without a fate", np.nan, 0)  # the node is gone
    fates = ("processed", "dropped for a newer one", "ignored while disabled or inactive")
    known = sum(int(counts[key]) for key in fates)
    known += sum(
        int(n) for key, n in counts.items() if key.startswith(("refused: ", "failed: step: ", "failed: image: "))
    )
    return Gate("images without a fate", abs(int(counts["received"]) - known), 0)


def wrong_pixels(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Gate:
    """The largest number of wrong pixels in one mask. pairs: (mask, truth) of one image each, (H, W) bool."""
    return Gate(
        "wrong pixels in one image", max((int((mask != truth).sum()) for mask, truth in pairs), default=np.nan), 0
    )
