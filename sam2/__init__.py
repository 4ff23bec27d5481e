"""Streaming SAM 2.1: point at a thing once, know where it is in every image from then on. Knows nothing about ROS."""

from typing import TYPE_CHECKING

from sam2.checkpoint import load_model
from sam2.config import find_config
from sam2.device import empty_cache, set_cpu_threads
from sam2.errors import BadCheckpoint, BadInput, DeviceLost, LimitReached, OutOfMemory, Sam2Error, Stale, UnknownObject
from sam2.limits import Limits
from sam2.masks import bounding_box, label_mask, upsample_logits
from sam2.run_lengths import rle_decode, rle_encode
from sam2.tracker import Tracker
from sam2.types import Frame, Prompt, PromptMode, State, Track
from sam2.weights_cache import download_weights

__version__ = "0.1.0"  # also in package.xml


if TYPE_CHECKING:  # to a type checker, a module with __getattr__ has attributes of every name
    from sam2.training.synthetic import World, WorldFrame
else:

    def __getattr__(name: str) -> type:
        """Imports the synthetic world on first access: only simulators need it."""
        if name in ("World", "WorldFrame"):
            from sam2.training import synthetic

            return getattr(synthetic, name)
        raise AttributeError(f"module 'sam2' has no attribute {name!r}")


__all__ = [
    "BadCheckpoint",
    "BadInput",
    "DeviceLost",
    "Frame",
    "LimitReached",
    "Limits",
    "OutOfMemory",
    "Prompt",
    "PromptMode",
    "Sam2Error",
    "Stale",
    "State",
    "Track",
    "Tracker",
    "UnknownObject",
    "World",
    "WorldFrame",
    "__version__",
    "bounding_box",
    "download_weights",
    "empty_cache",
    "find_config",
    "label_mask",
    "load_model",
    "rle_decode",
    "rle_encode",
    "set_cpu_threads",
    "upsample_logits",
]
