"""The motion of things: sums of sines and recurring disappearances, each a pure function of time.

Because nothing is integrated, the frames of an endless stream can be computed in any order, in constant memory. Knows
nothing about pictures.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Wave:
    """mean + rate * t + sum of amplitude * sin(2 pi t / period + phase); t in frames."""

    mean: float = 0.0
    terms: tuple[tuple[float, float, float], ...] = ()  # (amplitude, period in frames, phase)
    rate: float = 0.0

    def __call__(self, t: float) -> float:
        value = self.mean + self.rate * t
        for amplitude, period, phase in self.terms:
            value += amplitude * math.sin(2 * math.pi * t / period + phase)
        return value

    @property
    def top_rate(self) -> float:
        """An upper bound of the change per frame."""
        return abs(self.rate) + sum(2 * math.pi * abs(a) / p for a, p, _ in self.terms)


def random_wave(
    rng: np.random.Generator, mean: float, amplitudes: tuple[float, ...], periods: tuple[float, ...], pace: float = 1.0
) -> Wave:
    """A wave of about these amplitudes and periods (frames; divided by `pace`), each drawn within a factor of 1.6."""
    factors = np.exp(rng.uniform(-0.47, 0.47, (len(periods), 2)))
    return Wave(
        mean,
        tuple(
            (float(a * f[0]), float(p * f[1] / pace), float(rng.uniform(0, 2 * np.pi)))
            for a, p, f in zip(amplitudes, periods, factors, strict=True)
            if a
        ),
    )


@dataclass(frozen=True)
class Hide:
    """A recurring detour to a hiding place: out over a border, or behind a pillar."""

    start: float  # frame at which the first detour begins
    rise: float  # frames from the path to the hiding place, and back
    hold: float  # frames spent there
    period: float  # frames from one detour to the next
    border: str = ""  # "left", "right", "top" or "bottom"; empty = behind the pillar
    pillar: int = 0

    def weight(self, t: float) -> float:
        """0 on its own path, 1 at the hiding place."""
        phase = (t - self.start) % self.period
        if phase >= 2 * self.rise + self.hold:
            return 0.0
        nearness = min(phase, 2 * self.rise + self.hold - phase) / self.rise
        return 1.0 if nearness >= 1 else nearness * nearness * (3 - 2 * nearness)


def affine(
    centre_xy: tuple[float, float], angle: float, scale_xy: tuple[float, float], pivot_xy: tuple[float, float]
) -> np.ndarray:
    """(3, 3) float64: moves `pivot_xy` to the origin, scales, turns by `angle` (radians), moves to `centre_xy`."""
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = cos * scale_xy[0], -sin * scale_xy[1]
    c, d = sin * scale_xy[0], cos * scale_xy[1]
    x = centre_xy[0] - a * pivot_xy[0] - b * pivot_xy[1]
    y = centre_xy[1] - c * pivot_xy[0] - d * pivot_xy[1]
    return np.array([[a, b, x], [c, d, y], [0.0, 0.0, 1.0]])
