"""Training clips from annotated videos: a window of a video, squashed to a square, with renumbered objects that hardly
overlap.

Knows videos and label maps. Does not know files, nor how clips get to the device.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import cv2
import numpy as np

from sam2.errors import BadInput
from sam2.training.clips import MAX_OBJECTS
from sam2.training.dataset_masks import Masks
from sam2.training.datasets import Video
from sam2.training.synthetic import HELD_OUT_SEED

_WINDOWS = 12  # drawn from a video until one begins with an object
_SHARED = 0.05  # of the smaller of two masks; more pixels in common would spoil it in a map with one label per pixel


@dataclass(frozen=True)
class DatasetClips:
    """Draws clips from annotated videos: a dataset by weight, one of its videos, and a window of annotated frames whose
    first shows an object, if one is found. Where masks overlap, as in SA-V, leaves out objects at random.

    Held-out seeds draw from a tenth of each dataset's videos, all others from the rest. Fewer than ten videos leave
    none to hold out; validation then shows videos that were trained on.
    """

    videos: tuple[tuple[Video, ...], ...]  # per dataset
    weights: tuple[float, ...]  # per dataset, any positive scale
    num_frames: int
    size: int  # S, pixels; the aspect is squashed as the network's preprocessing does
    min_area: int = 1  # pixels of S x S that an object in the first frame should have

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.num_frames, self.size, self.size, 4

    def __str__(self) -> str:
        counts = ", ".join(f"{len(videos)} videos" for videos in self.videos)
        return counts + ("; checked on a tenth of them" if self.is_varied else "; checked on the same, for want of ten")

    @property
    def is_varied(self) -> bool:
        return all(len(videos) >= 10 for videos in self.videos)

    @cached_property
    def _held_out(self) -> tuple[frozenset[int], ...]:
        """Per dataset, which videos are held out. Chosen by name, so that a run that is resumed with a video more or
        less does not begin to validate on what it has learnt from, except perhaps on one of them."""
        found = []
        for videos in self.videos:
            checksums = [crc32(os.fsencode(video.name)) for video in videos]
            order = sorted(range(len(videos)), key=checksums.__getitem__)
            found.append(frozenset(order[: len(order) // 10]))
        return tuple(found)

    def __call__(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        weights = np.array(self.weights) / sum(self.weights)
        dataset = rng.choice(len(self.videos), p=weights)
        videos, held_out = self.videos[dataset], self._held_out[dataset]
        kept = [v for i, v in enumerate(videos) if (i in held_out) == (seed >= HELD_OUT_SEED)] or videos
        video = kept[rng.integers(len(kept))]
        indices = self._window(rng, video)
        shown = {i: {k: mask for k, mask in video.masks[i].items() if mask.any()} for i in sorted(set(indices))}
        labels = _labels(rng, shown, indices[0])
        tiles = {
            i: self._tile(f"{video.name}, frame {i}", frame, {labels[k]: m for k, m in shown[i].items() if k in labels})
            for i, frame in zip(shown, video.frames_at(list(shown)), strict=True)
        }
        return np.stack([tiles[i] for i in indices])

    def _window(self, rng: np.random.Generator, video: Video) -> list[int]:
        """The frames of a clip: annotated ones in a row; a short video is played to its end and back. Backwards if no
        clip begins with an object otherwise."""
        annotated = sorted(video.masks)
        if len(annotated) < self.num_frames:
            circle = annotated + annotated[-2:0:-1]
            repeated = circle * (2 + self.num_frames // len(circle))
            windows = [repeated[i : i + self.num_frames] for i in range(len(circle))]
        else:
            windows = [annotated[i : i + self.num_frames] for i in range(len(annotated) - self.num_frames + 1)]
        drawn = [windows[i] for i in rng.permutation(len(windows))[:_WINDOWS]]
        for window in (*drawn, *(each[::-1] for each in drawn)):  # backwards, a clip may begin with what comes late
            if any(mask.mean() * self.size**2 >= self.min_area for mask in video.masks[window[0]].values()):
                break
        return window

    def _tile(self, name: str, rgb: np.ndarray, masks: dict[int, np.ndarray]) -> np.ndarray:
        """(S, S, 4): a frame and its label map; masks by label. name: of the video and frame."""
        labels: np.ndarray = np.zeros(rgb.shape[:2], np.uint8)
        for label, mask in sorted(masks.items(), key=lambda item: -np.count_nonzero(item[1])):  # smaller ones on top
            if mask.shape != labels.shape:
                raise BadInput(
                    f"video {name}: expected masks of the frame's size {labels.shape}, got {mask.shape}; resize them "
                    "without interpolation, which would make up objects, or leave the video out"
                )
            labels[mask] = label
        side = (self.size, self.size)
        rgb = cv2.resize(rgb, side, interpolation=cv2.INTER_AREA)
        # INTER_NEAREST samples the corner of each cell, half a pixel off from the image, which is sampled at centres.
        labels = cv2.resize(labels, side, interpolation=cv2.INTER_NEAREST_EXACT)
        return np.concatenate([rgb, labels[..., None]], axis=2)


def _labels(rng: np.random.Generator, shown: dict[int, Masks], first: int) -> dict[int, int]:
    """Labels 1..MAX_OBJECTS by object id, of objects that hardly overlap in any frame. shown: masks by frame. If some
    must be left out, those in the frame `first` are preferred."""
    begin = sorted(shown[first])
    later = sorted(set().union(*shown.values()) - set(begin))
    ids = [*rng.permutation(begin).tolist(), *rng.permutation(later).tolist()]
    overlapping = [masks for masks in shown.values() if _overlap(masks.values())]
    kept: list[int] = []
    for new in ids:
        if not any(_is_shared(masks, new, old) for masks in overlapping for old in kept):
            kept.append(new)
    return {object_id: number for number, object_id in enumerate(sorted(kept[:MAX_OBJECTS]), start=1)}


def _overlap(masks: Iterable[np.ndarray]) -> bool:
    """Whether any pixel belongs to two of the masks of a frame."""
    masks = list(masks)
    if len({mask.shape for mask in masks}) != 1:  # `_tile` refuses them if they are used
        return False
    return bool(np.count_nonzero(np.any(masks, axis=0)) < sum(map(np.count_nonzero, masks)))


def _is_shared(masks: Masks, one: int, other: int) -> bool:
    """Whether two objects have so many pixels in common that one label map cannot show both."""
    if one not in masks or other not in masks:
        return False
    a, b = masks[one], masks[other]
    return bool(np.count_nonzero(a & b) > _SHARED * min(np.count_nonzero(a), np.count_nonzero(b)))
