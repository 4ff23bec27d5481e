"""3-D against ground truth: centroids and points in the synthetic world, with clean and with degraded depth.

`python -m benchmarks.depth` writes benchmarks/results/depth.md. Truth is the visible surface: the true mask with the
true depth. The inputs are degraded as the node's would be: masks by a network's errors, depth by a camera's.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import sam2
from benchmarks.arguments import model_name, whole
from sam2_ros.geometry import Pinhole, Surface, find_surface

RESULTS = Path(__file__).parent / "results" / "depth.md"
NEAR_M, FAR_M = 1.0, 2.0
LEAST_VISIBLE = 0.5
SIZE_HW = (480, 640)


@dataclass(frozen=True)
class Spoiling:
    """The errors of depth and masks."""

    noise: float = 0.0  # standard deviation of depth at 1 m, metres; grows with the square of the distance
    missing: float = 0.0  # share of the pixels without depth, each on its own
    holes: int = 0  # patches without depth on each object, a fifth of its width across
    flying: int = 0  # within this many pixels of a depth edge, depth lies between the two sides'
    mask_pixels: int = 0  # largest error of the mask's edge, to either side


CLEAN = Spoiling()
MASKS = Spoiling(mask_pixels=2)
CAMERA = Spoiling(noise=0.002, flying=2, mask_pixels=2)  # the noise of a good stereo camera
HOLES = Spoiling(mask_pixels=2, missing=0.3, holes=3)
BAD = Spoiling(noise=0.002, flying=2, mask_pixels=2, missing=0.3, holes=3)


@dataclass(frozen=True)
class Sample:
    """One object in one image."""

    depth_m: np.ndarray  # (H, W) float32, true
    mask: np.ndarray  # (H, W) bool, true
    pinhole: Pinhole

    @property
    def truth(self) -> np.ndarray:
        """(N, 3) metres, every visible point."""
        rows, columns = np.nonzero(self.mask)
        z = self.depth_m[self.mask]
        return np.concatenate([self.pinhole.rays(rows, columns) * z[:, None], z[:, None]], axis=1)


def pinhole_of(frame) -> Pinhole:
    k = frame.intrinsics
    return Pinhole(k[0, 0], k[1, 1], k[0, 2], k[1, 2], frame.depth_m.shape)


def samples(seeds: range, frames: int) -> Iterator[Sample]:
    """Yields objects 1 to 2 m away that show at least half of their largest area in the clip, areas scaled to 1 m."""
    for seed in seeds:
        shown = [sam2.World(seed, SIZE_HW).frame(4 * t) for t in range(frames)]
        for index in range(len(shown[0].masks)):
            depths = [float(np.median(f.depth_m[f.masks[index]])) if f.visible[index] else 0.0 for f in shown]
            areas = [f.masks[index].sum() * z**2 for f, z in zip(shown, depths, strict=True)]
            for frame, z, area in zip(shown, depths, areas, strict=True):
                if NEAR_M <= z <= FAR_M and area >= LEAST_VISIBLE * max(areas):
                    yield Sample(frame.depth_m, frame.masks[index], pinhole_of(frame))


def spoiled_depth(sample: Sample, how: Spoiling, random: np.random.Generator) -> np.ndarray:
    """(H, W) float32, NaN where there is none."""
    z = sample.depth_m.copy()
    if how.flying:
        window = np.ones((2 * how.flying + 1,) * 2, np.uint8)
        near, far = cv2.erode(z, window), cv2.dilate(z, window)
        edge = far - near > 0.02
        z[edge] = (near + (far - near) * random.random(z.shape, np.float32))[edge]
    z += (how.noise * random.standard_normal(z.shape, np.float32)) * z**2
    x, y, width, height = sam2.bounding_box(sample.mask)
    for _ in range(how.holes):
        at = round(x + random.random() * width), round(y + random.random() * height)
        cv2.circle(z, at, max(width // 10, 1), np.nan, -1)
    z[random.random(z.shape) < how.missing] = np.nan
    return z


def spoiled_mask(mask: np.ndarray, pixels: int, random: np.random.Generator) -> np.ndarray:
    """(H, W) bool: the mask with its edge moved smoothly by up to `pixels` in and out, like a network's."""
    if not pixels:
        return mask
    outside = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 5)
    wander = cv2.GaussianBlur(random.standard_normal(mask.shape).astype(np.float32), (0, 0), 6)
    return outside - inside < pixels * np.clip(wander / wander.std(), -1, 1)


def measure(sample: Sample, how: Spoiling, random: np.random.Generator) -> tuple[Surface | None, float]:
    """The surface found with these errors, and the seconds that took."""
    depth, mask = spoiled_depth(sample, how, random), spoiled_mask(sample.mask, how.mask_pixels, random)
    began = time.perf_counter()
    surface = find_surface(depth, mask, sample.pinhole)
    return surface, time.perf_counter() - began


def errors(sample: Sample, surface: Surface) -> tuple[float, float]:
    """(metres between true and found centroid, share of the points that are on the true object).

    A point is on the object if its pixel is and its depth is off by less than 5 cm, which excludes flying pixels at the
    mask's edge.
    """
    off = float(np.linalg.norm(surface.centroid - sample.truth.mean(axis=0)))
    true = sample.mask[surface.rows, surface.columns]
    near = np.abs(surface.points[:, 2] - sample.depth_m[surface.rows, surface.columns]) < 0.05
    return off, float((true & near).mean())


def tracked(model: str, seeds: range, frames: int) -> Iterator[tuple[Sample, np.ndarray]]:
    """Yields objects like `samples`, with the masks (H, W) that a model tracks from a box on the first frame; a mask is
    empty if the model takes the object for absent."""
    loaded = sam2.load_model(model)
    for seed in seeds:
        world, tracker, largest = sam2.World(seed, SIZE_HW), sam2.Tracker(loaded), {}
        for t in range(frames):
            frame = world.frame(t)
            boxes = {str(i): sam2.bounding_box(mask) for i, mask in enumerate(frame.masks) if t == 0 and mask.any()}
            prompts = [sam2.Prompt(name, box_xyxy=[x, y, x + w, y + h]) for name, (x, y, w, h) in boxes.items()]
            for track in tracker.step(sam2.Frame(frame.rgb), prompts):
                mask = frame.masks[int(track.object_id)]
                z = float(np.median(frame.depth_m[mask])) if mask.any() else 0.0
                largest[track.object_id] = max(largest.get(track.object_id, 0.0), mask.sum() * z**2)
                if NEAR_M <= z <= FAR_M and mask.sum() * z**2 >= LEAST_VISIBLE * largest[track.object_id]:
                    yield Sample(frame.depth_m, mask, pinhole_of(frame)), track.mask


def model_line(model: str, pairs: list[tuple[Sample, np.ndarray]]) -> str:
    """Reports the geometry's errors with a model's masks, and the masks' IoU."""
    random, off, inside, ious = np.random.default_rng(1), [], [], []
    for sample, mask in pairs:
        ious.append(np.count_nonzero(mask & sample.mask) / np.count_nonzero(mask | sample.mask))
        surface = find_surface(spoiled_depth(sample, CAMERA, random), mask, sample.pinhole)
        if surface:
            error, share = errors(sample, surface)
            off.append(1000 * error)
            inside.append(100 * share)
    return (
        f"With the masks of {model}, a box on the first frame, noise and flying pixels: {len(pairs)} objects, median "
        f"IoU {np.median(ious):.2f}, {len(off)} found, centroid off by {np.median(off):.1f} mm median and "
        f"{np.percentile(off, 95):.1f} mm p95, {np.mean(inside):.1f} % of the points on the object."
    )


def table(chosen: list[Sample], kinds: dict[str, Spoiling]) -> list[str]:
    lines = [
        "| depth and masks | objects | found | centroid off, median | p95 | points on the object | ms, median |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, how in kinds.items():
        random = np.random.default_rng(1)
        made = [(sample, *measure(sample, how, random)) for sample in chosen]
        off, inside = np.array([errors(sample, surface) for sample, surface, _ in made if surface]).T
        took = 1000 * np.median([seconds for *_, seconds in made])
        lines.append(
            f"| {name} | {len(made)} | {len(off)} | {1000 * np.median(off):.1f} mm "
            f"| {1000 * np.percentile(off, 95):.1f} mm | {100 * inside.mean():.1f} % | {took:.1f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=whole, default=12, help="how many (default: %(default)s)")
    parser.add_argument("--frames", type=whole, default=6, help="of each world (default: %(default)s)")
    parser.add_argument("--model", type=model_name, help="a model whose masks to try as well (default: none)")
    args = parser.parse_args()
    chosen = list(samples(range(1_000_000, 1_000_000 + args.worlds), args.frames))
    kinds = {
        "true depth, true masks": CLEAN,
        "true depth, mask edges ± 2 pixels": MASKS,
        "the same, 30 % of the depth missing and three holes": HOLES,
        "noise 2 mm at 1 m, flying pixels, mask edges ± 2 pixels": CAMERA,
        "all of it": BAD,
    }
    text = [
        "# 3-D against ground truth",
        "",
        f"`python -m benchmarks.depth --worlds {args.worlds} --frames {args.frames}`: objects {NEAR_M:g} to {FAR_M:g} "
        "m away, at least half visible, 640x480. Truth is the visible surface; masks are the true ones, spoiled, "
        "so that this is the error of the geometry and not of the network.",
        "",
        *table(chosen, kinds),
    ]
    if args.model:
        pairs = list(tracked(args.model, range(1_000_000, 1_000_000 + args.worlds), 2 * args.frames))
        text += ["", model_line(args.model, pairs)]
    RESULTS.write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
