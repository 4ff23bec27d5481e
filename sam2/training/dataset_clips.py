"""Training clips from annotated videos: a window of a video, squashed to a square, with renumbered objects.

Knows videos and label maps. Does not know files, nor how clips get to the device.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from sam2.errors import BadInput
from sam2.training.clips import MAX_LABEL
from sam2.training.datasets import Video
from sam2.training.synthetic import HELD_OUT_SEED


@dataclass(frozen=True)
class DatasetClips:
    """Clips from annotated videos: a dataset drawn by weight, any of its videos, any window of its annotated frames.

    Held-out seeds draw from every tenth video, all others from the rest. Fewer than ten videos leave none to hold out;
    validation then shows videos that were trained on.
    """

    videos: tuple[tuple[Video, ...], ...]  # per dataset
    weights: tuple[float, ...]  # per dataset, any positive scale
    num_frames: int
    size: int  # S, pixels; the aspect is squashed as the network's preprocessing does

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.num_frames, self.size, self.size, 4

    def __str__(self) -> str:
        counts = ", ".join(f"{len(videos)} videos" for videos in self.videos)
        too_few = any(len(videos) < 10 for videos in self.videos)
        return counts + ("; checked on the same, for want of ten" if too_few else "; checked on every tenth")

    def __call__(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        weights = np.array(self.weights) / sum(self.weights)
        videos = self.videos[rng.choice(len(self.videos), p=weights)]
        kept = [v for i, v in enumerate(videos) if (i % 10 == 9) == (seed >= HELD_OUT_SEED)] or videos
        video = kept[rng.integers(len(kept))]
        annotated = sorted(video.masks)
        start = int(rng.integers(max(1, len(annotated) - self.num_frames + 1)))
        indices = annotated[start : start + self.num_frames]
        there_and_back = indices + indices[-2:0:-1]  # a short video is played to its end and back
        indices = [there_and_back[i % len(there_and_back)] for i in range(self.num_frames)]
        shown = {i: {k: mask for k, mask in video.masks[i].items() if mask.any()} for i in sorted(set(indices))}
        labels = _labels(rng, sorted(shown[indices[0]]), sorted(set().union(*shown.values())))  # of this clip
        tiles = {
            i: self._tile(video.name, frame, {labels[k]: mask for k, mask in shown[i].items() if k in labels})
            for i, frame in zip(shown, video.frames_at(list(shown)), strict=True)
        }
        return np.stack([tiles[i] for i in indices])

    def _tile(self, name: str, rgb: np.ndarray, masks: dict[int, np.ndarray]) -> np.ndarray:
        """(S, S, 4): a frame of the video `name` and its label map; masks by label."""
        labels = np.zeros(rgb.shape[:2], np.uint8)
        for label, mask in masks.items():
            if mask.shape != labels.shape:
                raise BadInput(f"video {name}: expected masks of the frames' size {labels.shape}, got {mask.shape}")
            labels[mask] = label
        side = (self.size, self.size)
        rgb = cv2.resize(rgb, side, interpolation=cv2.INTER_AREA)
        # INTER_NEAREST samples the corner of each cell, half a pixel off from the image, which is sampled at centres.
        labels = cv2.resize(labels, side, interpolation=cv2.INTER_NEAREST_EXACT)
        return np.concatenate([rgb, labels[..., None]], axis=2)


def _labels(rng: np.random.Generator, first: list[int], ids: list[int]) -> dict[int, int]:
    """Labels 1..MAX_LABEL by object id. If there are more objects, some get none; those in the `first` frame go
    first."""
    if len(ids) > MAX_LABEL:
        later = [object_id for object_id in ids if object_id not in first]
        ids = sorted([*rng.permutation(first).tolist(), *rng.permutation(later).tolist()][:MAX_LABEL])
    return {object_id: number for number, object_id in enumerate(ids, start=1)}
