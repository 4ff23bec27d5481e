"""A pool of clips on the device that worker processes keep renewing. Knows neither model nor loss.

Making a clip costs more than learning from it once, so every clip is drawn several times, each time with another
window, stride, direction, augmentation and prompts.
"""

import ctypes
import math
import multiprocessing
import queue
import signal
import threading
import traceback
from multiprocessing.queues import Queue

import cv2
import numpy as np
import torch
from torch import Tensor

from sam2.device import device_errors
from sam2.errors import OutOfMemory, Sam2Error
from sam2.training.clips import MAX_OBJECTS
from sam2.training.draws import Maker, draw_frames, label_areas
from sam2.training.stop import deferred_signals
from sam2.training.synthetic import HELD_OUT_SEED
from sam2.training.tensors import send


def _next_slot(free: Queue) -> int | None:
    """The next free slot; None once the parent has died, however it died."""
    while True:
        try:
            return free.get(timeout=2)
        except queue.Empty:
            if (parent := multiprocessing.parent_process()) and not parent.is_alive():
                return None


def _work(maker: Maker, first_seed: int, step: int, ring: ctypes.Array, free: Queue, ready: Queue) -> None:
    """One worker process: fills free slots of the ring with clips until its parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group; the parent handles them
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    slots = np.ctypeslib.as_array(ring).reshape(-1, *maker.shape)
    seed = first_seed
    while (slot := _next_slot(free)) is not None:
        try:
            slots[slot] = maker(seed % HELD_OUT_SEED)
            areas = label_areas(slots[slot])
        except (Sam2Error, OSError) as error:  # its message says which file is wrong
            ready.put(error)
            return
        except Exception:
            ready.put(RuntimeError(f"making clip {seed} failed:\n{traceback.format_exc()}"))
            return
        ready.put((slot, areas))
        seed += step


def _make_pool(shape: tuple[int, ...], device: torch.device) -> Tensor:
    try:
        with device_errors(device):
            return torch.zeros(shape, dtype=torch.uint8, device=device)
    except OutOfMemory as error:
        need = math.prod(shape) / 2**30
        raise OutOfMemory(
            f"{device}: expected {need:.1f} GiB for a pool of {shape[0]} clips, got less; lower --pool"
        ) from error


class PooledSource:
    """Worker processes keep replacing the oldest of `capacity` clips that live on the device.

    One thread copies finished clips to the device; only the caller's thread writes into the pool, between batches, so a
    batch never contains half a clip. Raises a maker's Sam2Error or OSError, RuntimeError with the worker's traceback if
    it fails otherwise, and Sam2Error if a worker was killed.
    """

    def __init__(
        self, maker: Maker, device: torch.device, capacity: int, workers: int, first_seed: int = 0, min_area: int = 1
    ):
        """min_area: pixels that an object in a clip's first frame should have."""
        context = multiprocessing.get_context("spawn")
        slots = 4 * workers
        size = int(np.prod(maker.shape))
        ring = context.RawArray(ctypes.c_uint8, slots * size)
        self._ring = torch.from_numpy(np.ctypeslib.as_array(ring).reshape(slots, *maker.shape))
        self._free, self._ready = context.Queue(), context.Queue()
        for slot in range(slots):
            self._free.put(slot)
        # Before the workers start: if the pool does not fit, nothing would end them.
        self._pool = _make_pool((capacity, *maker.shape), device)
        self._workers = [
            context.Process(
                target=_work, args=(maker, first_seed + i, workers, ring, self._free, self._ready), daemon=True
            )
            for i in range(workers)
        ]
        with deferred_signals():  # they would die of them before `_work` begins
            for worker in self._workers:
                worker.start()
        self._device, self._min_area = device, min_area
        self._areas = np.zeros((capacity, maker.shape[0], MAX_OBJECTS), np.int32)
        self._moved: queue.Queue = queue.Queue(maxsize=slots)
        self._stop = threading.Event()
        self._mover = threading.Thread(target=self._move, daemon=True)
        self._mover.start()
        self.clips_made = 0

    def _move(self) -> None:
        try:
            self._move_clips()
        except Exception:  # `_take` raises it: otherwise training would go on with the same clips for ever
            self._hand_over(RuntimeError(f"moving clips to {self._device} failed:\n{traceback.format_exc()}"))

    def _move_clips(self) -> None:
        is_cuda = self._device.type == "cuda"
        if is_cuda:
            torch.cuda.set_device(self._device)  # the current device is per thread, and by default the first
        stream = torch.cuda.Stream(self._device) if is_cuda else None
        # A copy from pageable memory would go in pieces and block the training loop's kernel launches.
        pinned = torch.empty(self._ring.shape[1:], dtype=torch.uint8, pin_memory=is_cuda)
        while not self._stop.is_set():
            # One that fails says why and ends with 0. One that is killed may hold a lock that the others wait for.
            if died := [worker for worker in self._workers if worker.exitcode]:
                self._hand_over(
                    Sam2Error(
                        f"workers: {len(died)} of {len(self._workers)} processes that make clips died without a "
                        "message, most likely killed for lack of memory; give fewer --workers or a smaller --size"
                    )
                )
                return
            try:
                message = self._ready.get(timeout=0.5)
            except queue.Empty:
                continue
            if isinstance(message, Exception):
                self._hand_over(message)
                return
            slot, areas = message
            with torch.cuda.stream(stream):  # does nothing without a stream
                clip = pinned.copy_(self._ring[slot]).to(self._device, copy=True, non_blocking=True)
                if stream is not None:
                    stream.synchronize()
            self._free.put(slot)
            self._hand_over((clip, areas))

    def _hand_over(self, moved: tuple[Tensor, np.ndarray] | Exception) -> None:
        """Queues a clip or an error for `_take`. Waits for room, but not after `close`, which joins this thread."""
        while not self._stop.is_set():
            try:
                self._moved.put(moved, timeout=0.5)
                return
            except queue.Full:
                continue

    def _take(self, wait: bool) -> bool:
        """Puts one moved clip into the pool; False if there is none."""
        try:
            moved = self._moved.get(timeout=1.0 if wait else None, block=wait)
        except queue.Empty:
            return False
        if isinstance(moved, Exception):
            raise moved
        clip, areas = moved
        if clip.is_cuda:
            clip.record_stream(torch.cuda.current_stream(self._device))
        place = self.clips_made % len(self._pool)
        self._pool[place].copy_(clip)
        self._areas[place] = areas
        self.clips_made += 1
        return True

    def sample(
        self, rng: np.random.Generator, step: int, batch: int, frames: int, max_stride: int, vanish: float = 0.0
    ) -> Tensor:
        """(batch, frames, S, S, 4) uint8 on the device.

        Waits only until there are enough clips for one batch, so a new or resumed run starts with few.
        """
        while self.clips_made < min(batch, len(self._pool)):
            self._take(wait=True)
        while self._take(wait=False):
            pass
        rows = rng.integers(0, min(self.clips_made, len(self._pool)), batch)
        indices = draw_frames(rng, self._areas[rows], frames, max_stride, vanish, self._min_area)
        return self._pool[send(rows, self._device)[:, None], send(indices, self._device)]

    def close(self) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.kill()  # it ignores other signals
        for worker in self._workers:
            worker.join()
        self._mover.join()
        for channel in (self._free, self._ready):
            channel.cancel_join_thread()
            channel.close()
