"""Makes the tracker from the parameters."""

import os
from collections.abc import Callable

import sam2
from sam2_ros.params import Settings

MakeTracker = Callable[[Settings], sam2.Tracker]


def load_tracker(settings: Settings) -> sam2.Tracker:
    """Loads the model and makes a tracker with the limits that the parameters set. Raises Sam2Error."""
    sam2.set_cpu_threads(settings.cpu_threads, settings.model)
    model = sam2.load_model(
        settings.model,
        checkpoint=os.path.expanduser(settings.checkpoint) or None,
        device=settings.device,
        precision=settings.precision,
        image_size=settings.image_size or None,
        memory_pooling=settings.memory_pooling,
    )
    limits = sam2.Limits(
        max_objects=settings.max_objects,
        prompted_memories=settings.prompted_memories,
        recent_memories=settings.recent_memories,
        history_frames=settings.history_frames,
        history_s=settings.history_s,
        occluded_after=settings.occluded_after,
        lost_after_s=settings.lost_after_s,
    )
    # Faster on any device. But where objects are batched, the worker also encodes several cameras' images as one batch,
    # which it must not on a CPU; so with several cameras the device decides (None).
    batched = None if len(settings.cameras) > 1 else True
    return sam2.Tracker(model, limits=limits, sticky_corrections=True, batched=batched)
