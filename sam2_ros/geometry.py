"""Depth pixels -> points, centroid and oriented box of one object. Arrays only; knows no ROS and no tracks.

Camera frame: the optical one of REP 103, x to the right, y down, z forward, metres. Depth is along z; NaN = not
measured, infinity = too far to be of use. Pixel (row v, column u) looks along ((u - cx) / fx, (v - cy) / fy, 1), as in
depth_image_proc.
"""

from dataclasses import dataclass

import cv2
import numpy as np

import sam2

MIN_POINTS = 12  # measured on the object; fewer are not meaningful
MIN_SHARE = 0.02  # of the mask's pixels
_EDGE_PIXELS = 2  # at a mask's edge, where the mask is least certain and depth cameras mix near and far
_LEAST_CORE = 0.3  # share of the mask that must remain without its edge; thin things keep their edge
_BIN = 0.025  # relative depth; two or more empty bins separate different things
_LEAST_CALM = 0.1  # share of the points that must be calm, or all count
# Share of the points; bins with fewer count as empty. Calm points thin out with distance only, as on a floor; among all
# of them there are some that mix near and far and lie between.
_BIN_SHARE_CALM, _BIN_SHARE = 0.0005, 0.004
_FIT_PIXELS = 4096  # enough to fit a plane
_THICKNESS_PERCENT = (1, 99)  # of the distances from the plane
# The longest side is made to point along this. That is far from perpendicular to things that are upright, level, or lie
# on a table and point away from a camera that looks down at any angle, so noise does not flip their direction.
_ALONG = np.array([1.0, 1.0, -0.25])


@dataclass(frozen=True)
class Pinhole:
    """An ideal camera; the image is `size_hw` pixels."""

    fx: float
    fy: float
    cx: float
    cy: float
    size_hw: tuple[int, int]

    def rays(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(N, 2) float32 x/z and y/z of pixels."""
        return np.stack([(columns - self.cx) / self.fx, (rows - self.cy) / self.fy], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class OrientedBox:
    """A box around the visible part of a surface. Columns of `rotation`: along its longest side, pointing right and
    down in the image; across that side; and away from the camera into the surface."""

    centre: np.ndarray  # (3,) metres
    rotation: np.ndarray  # (3, 3), right-handed
    size: np.ndarray  # (3,) metres along those axes


@dataclass(frozen=True)
class Surface:
    """The part of one object that depth shows."""

    points: np.ndarray  # (N, 3) float32 metres: measured, and well inside the mask
    rows: np.ndarray  # (N,) pixels, where the points were measured
    columns: np.ndarray  # (N,)
    centroid: np.ndarray  # (3,) metres, mean over the mask's pixels
    box: OrientedBox
    share: float  # 0..1 of the mask's pixels with depth that belongs to the object


def find_surface(depth_m: np.ndarray, mask: np.ndarray, pinhole: Pinhole) -> Surface | None:
    """The surface of the object in `mask` (H, W) bool, from depth (H, W) float32 of the same pixels; None if too little
    of it is seen.

    The largest range of depths without a gap inside the mask is the object's; other depths are of what is seen past its
    edge or through it. Where depth is missing, centroid and box use the plane fitted to the object's points (planes are
    linear in 1/z), so that a hole does not shift them.
    """
    box = sam2.bounding_box(mask)
    if box is None:
        return None
    x, y, width, height = box
    inside = mask[y : y + height, x : x + width]  # (height, width)
    z = depth_m[y : y + height, x : x + width]
    core = _without_edge(inside)
    measured = core & np.isfinite(z)
    count = int(np.count_nonzero(measured))
    if count < max(MIN_POINTS, MIN_SHARE * np.count_nonzero(inside)):
        return None
    sure, least_share = np.isfinite(z) & _is_calm(z), _BIN_SHARE_CALM
    if np.count_nonzero(measured & sure) < max(MIN_POINTS, _LEAST_CALM * count):
        sure, least_share = np.isfinite(z), _BIN_SHARE
    near, far = _largest_range(z[measured & sure], least_share)
    with np.errstate(invalid="ignore"):
        fits = (z >= near) & (z <= far)  # NaN does not
    measured &= fits
    if np.count_nonzero(measured) < MIN_POINTS:
        return None
    rows, columns = np.nonzero(measured)
    points = _points(z[measured], pinhole.rays(rows + y, columns + x))
    plane = _fit_plane(points)
    whole = _filled(z, inside, fits, inside & sure, plane, pinhole, (y, x))
    return Surface(
        points, rows + y, columns + x, whole.mean(axis=0, dtype=np.float64), oriented_box(whole, plane),
        float(np.count_nonzero(fits & inside) / np.count_nonzero(inside)),
    )  # fmt: skip


def organised_points(depth_m: np.ndarray, pinhole: Pinhole, stride: int = 1) -> np.ndarray:
    """(h, w, 3) float32 metres of every `stride`-th row and column; NaN where depth is NaN. depth_m: no infinities."""
    z = depth_m[::stride, ::stride]
    x = ((np.arange(0, depth_m.shape[1], stride) - pinhole.cx) / pinhole.fx).astype(np.float32)
    y = ((np.arange(0, depth_m.shape[0], stride) - pinhole.cy) / pinhole.fy).astype(np.float32)
    return np.stack([x[None, :] * z, y[:, None] * z, z], axis=-1)


def oriented_box(points: np.ndarray, plane: np.ndarray) -> OrientedBox:
    """The box around points (N, 3) that is aligned with the plane `plane` . X = 1 and has the smallest area on it."""
    into = plane / np.linalg.norm(plane)  # away from the camera, which is at 0
    axis = np.eye(3)[0 if abs(into[0]) < 0.9 else 1]
    side = axis - into[axis.argmax()] * into
    side /= np.linalg.norm(side)
    basis = np.stack([side, np.cross(into, side), into], axis=1)  # (3, 3), right-handed
    local = points @ basis  # (N, 3)
    (centre_a, centre_b), (length_a, length_b), degrees = cv2.minAreaRect(local[:, :2].astype(np.float32))
    if length_b > length_a:
        length_a, length_b, degrees = length_b, length_a, degrees + 90.0
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    rotation = basis @ turn
    if rotation[:, 0] @ _ALONG < 0:
        rotation[:, :2] *= -1  # the same box, turned by 180 degrees
    front, back = np.percentile(local[:, 2], _THICKNESS_PERCENT)
    return OrientedBox(
        basis @ [centre_a, centre_b, (front + back) / 2], rotation, np.array([length_a, length_b, back - front])
    )


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """(x, y, z, w) of a (3, 3) rotation, w >= 0."""
    # The largest eigenvector of Bar-Itzhack's matrix (J. Guidance 23(6), 2000): no case distinctions.
    r = rotation
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[2, 0] + r[0, 2], r[2, 1] - r[1, 2]],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    q = np.linalg.eigh(k)[1][:, -1]
    return q if q[3] >= 0 else -q


def _without_edge(inside: np.ndarray) -> np.ndarray:
    """The mask (height, width) bool, eroded by up to _EDGE_PIXELS as long as enough remains."""
    padded = np.pad(inside.astype(np.uint8), _EDGE_PIXELS)
    for pixels in range(_EDGE_PIXELS, 0, -1):
        core = cv2.erode(padded, np.ones((2 * pixels + 1,) * 2, np.uint8))[
            _EDGE_PIXELS:-_EDGE_PIXELS, _EDGE_PIXELS:-_EDGE_PIXELS
        ]
        if np.count_nonzero(core) >= max(2 * MIN_POINTS, _LEAST_CORE * np.count_nonzero(inside)):
            return core.astype(bool)
    return inside


def _is_calm(z: np.ndarray) -> np.ndarray:
    """Whether a pixel (height, width) lies on one surface with those around it. Elsewhere pixels mix near and far, and
    would bridge the gap between different things."""
    window, is_finite = np.ones((3, 3), np.uint8), np.isfinite(z)
    near = cv2.erode(np.where(is_finite, z, np.float32(np.inf)), window)
    far = cv2.dilate(np.where(is_finite, z, np.float32(0)), window)
    with np.errstate(invalid="ignore", divide="ignore"):
        bent = np.abs(1 / near + 1 / far - 2 / z) * z  # 0 on a plane, where 1/z is linear
        apart = np.log(far / near)
    return (apart <= 2 * _BIN) | ((apart <= 4 * _BIN) & (bent <= _BIN))  # the latter recedes


def _largest_range(z: np.ndarray, least_share: float) -> tuple[float, float]:
    """(nearest, farthest) of the largest group of depths (N,) without a gap."""
    bins = np.floor(np.log(z) / _BIN).astype(np.int64)
    first = int(bins.min())
    counts = np.bincount(bins - first)
    occupied = np.flatnonzero(counts >= max(2, least_share * len(z)))
    if not len(occupied):  # a handful of points, all apart
        occupied = np.array([int(counts.argmax())])
    groups = np.split(occupied, np.flatnonzero(np.diff(occupied) > 2) + 1)
    best = max(groups, key=lambda group: counts[group].sum())
    return float(np.exp((best[0] + first - 0.5) * _BIN)), float(np.exp((best[-1] + first + 1.5) * _BIN))


def _points(z: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(N, 3) float32 metres."""
    return np.concatenate([rays * z[:, None], z[:, None]], axis=1)


def _fit_plane(points: np.ndarray) -> np.ndarray:
    """(3,) float64 `plane` with plane . X = 1: least squares in 1/z, repeated once without outliers."""
    sample = points[:: max(1, len(points) // _FIT_PIXELS)].astype(np.float64)
    rays = sample / sample[:, 2:]  # (N, 3), last column 1
    inverse = 1 / sample[:, 2]
    for _ in range(2):
        middle = rays.mean(axis=0)
        spread = (rays - middle)[:, :2]
        # Regularised, because an object only a few pixels wide does not determine its slope.
        normal = spread.T @ spread + np.eye(2) * len(rays) * 1e-6
        slope = np.linalg.solve(normal, spread.T @ (inverse - inverse.mean()))
        plane = np.array([*slope, inverse.mean() - slope @ middle[:2]])
        off = np.abs(rays @ plane - inverse)
        good = off <= 4 * np.median(off) + 1e-9
        rays, inverse = rays[good], inverse[good]
    return plane


def _is_nearest(ours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether the pixel of `known` (height, width) that is nearest to each pixel is one of `ours`."""
    unknown = (~known).view(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    is_ours = np.zeros(int(nearest.max()) + 1, bool)  # by label
    is_ours[nearest[ours]] = True
    return is_ours[nearest]


def _filled(
    z: np.ndarray,
    inside: np.ndarray,
    fits: np.ndarray,
    sure: np.ndarray,
    plane: np.ndarray,
    pinhole: Pinhole,
    origin_yx: tuple[int, int],
) -> np.ndarray:
    """(N, 3) float32 points of all mask pixels that may be the object; on the plane where nothing is measured, if the
    nearest pixel that is `sure`, or too far, is the object's. sure: measured inside the mask, and not a mixture."""
    known = sure | (inside & np.isinf(z))
    belongs = inside & (fits | (np.isnan(z) & _is_nearest(sure & fits, known)))
    rows, columns = np.nonzero(belongs)
    rays = pinhole.rays(rows + origin_yx[0], columns + origin_yx[1])
    near, far = z[inside & fits].min(), z[inside & fits].max()
    margin = far - near + 0.01  # extrapolated by no more than the measured range
    inverse = rays @ plane[:2].astype(np.float32) + np.float32(plane[2])
    on_plane = 1 / np.clip(inverse, 1 / (far + margin), 1 / max(near - margin, near / 2))
    return _points(np.where(fits[belongs], z[belongs], on_plane), rays)
