"""Frames encoded before their step: the next frame during the current step, or several cameras' frames as one batch.

On a GPU the next image is encoded on a second stream while the objects are tracked in the current one, because
tracking alone does not fill the device; how much that saves has not been measured. On a CPU, where every step already
uses all cores, the same calls encode immediately.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from sam2.model import Features
from sam2.types import Frame


class Encoded(NamedTuple):
    frame: Frame
    features: Features
    ready: torch.cuda.Event | None = None  # set if another stream computes the features


class Ahead:
    """Keeps two frames at most: that of the current step and that of the next one."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._kept: list[Encoded] = []

    def put(self, frame: Frame, features: Features, ready: torch.cuda.Event | None = None) -> None:
        self._kept = [*self._kept[-1:], Encoded(frame, features, ready)]

    def begin(self, frame: Frame, encode: Callable[[], Features]) -> None:
        """Encodes the frame in parallel with the current stream's next work; does nothing if it is already encoded."""
        if self._find(frame) is not None:
            return
        if self._stream is None:
            return self.put(frame, encode())
        now = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(now)
        # `torch.cuda.stream` alone would, on exit, restore the previous device and so create a CUDA context on it.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            features = encode()
            ready = self._stream.record_event()
        for part in features:
            part.record_stream(now)  # or the allocator could reuse its memory while that stream still reads it
        self.put(frame, features, ready)

    def join(self) -> None:
        """Makes the current stream wait for the encoding in progress. Must be called before anything else is encoded,
        which would use the same buffers."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def get(self, frame: Frame) -> Features | None:
        """The features of this very frame object, ready for the current stream. If it has not been encoded: None, after
        `join`."""
        found = self._find(frame)
        if found is None:
            self.join()
            return None
        if found.ready is not None:
            torch.cuda.current_stream(self._device).wait_event(found.ready)
        return found.features

    def drop(self, frame: Frame) -> None:
        """Drops a frame that has been stepped, and every frame encoded before it."""
        for index, one in enumerate(self._kept):
            if one.frame is frame:
                self._kept = self._kept[index + 1 :]
                return

    def clear(self) -> None:
        self._kept = []

    def _find(self, frame: Frame) -> Encoded | None:
        return next((one for one in self._kept if one.frame is frame), None)
