"""From the parameters to the tracker that they ask for."""

import os

import sam2
from sam2_ros.params import Settings


def load_tracker(settings: Settings) -> sam2.Tracker:
    """The tracker that the parameters ask for. Raises Sam2Error with the reason why not."""
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
    # Faster on any device; but on a CPU the worker must not take several cameras' images together, too.
    batched = None if len(settings.cameras) > 1 else True
    return sam2.Tracker(model, limits=limits, sticky_corrections=True, batched=batched)
