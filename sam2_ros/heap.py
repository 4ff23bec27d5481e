"""What the process holds of memory: flat from the first image on. All of it is glibc's or oneDNN's business."""

import ctypes
import os
from functools import cache

import numpy as np

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEEP_BYTES = 1 << 30
RESERVE_BYTES = 96 << 20


def keep_freed() -> None:
    """Tells glibc to reuse image-sized buffers.

    By default it gives them back to the kernel and gets them again, page by page, for every image: at 1280x720 that
    takes longer than everything the node does with them. What is kept is bounded by the busiest moment.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def bound_programs() -> None:
    """Tells oneDNN how many to keep of the programs that it makes for every shape, 0.4 MB each. Read when it is loaded.

    By default it keeps 1024, and PyTorch's bridge to it as many again, for nothing: a step takes no longer with 16.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "16")  # 0 ends the process
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")  # room for a network's and many objects'


@cache
def reserve() -> None:
    """Takes, once the first network is ready, what it will need later, and frees it into what is kept.

    That is 13 MB with nano for each of the first four numbers of objects, whose programs come when they come, 20 more
    for the first, and what gaps between blocks of all sizes cost. Without it memory grows in steps, for an hour. Later
    networks find what those before them left.
    """
    np.ones(RESERVE_BYTES, np.uint8)  # written to, so that it is the process's own
