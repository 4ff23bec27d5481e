"""Keeps the process's memory nearly constant from the first image on."""

import ctypes
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

_MADV_POPULATE_WRITE = 23  # mman.h, Linux 5.14
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEEP_BYTES = 1 << 30
_PIECE_BYTES = 8 << 20
RESERVE_BYTES = 12 * _PIECE_BYTES


def keep_freed() -> None:
    """Tells glibc to reuse image-sized buffers.

    By default it returns them to the operating system and requests them again, page by page, for every image: at
    1280x720 that takes longer than everything the node does with them. The memory kept is bounded by the busiest
    moment.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        if not mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES):
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that older versions accept
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def bound_kernels() -> None:
    """Limits how many compiled kernels oneDNN keeps, one for every shape, 0.4 MB each. Call it before torch is loaded.

    By default it keeps 1024, and PyTorch's own cache in front of it another 1024, which gains nothing: a step is as
    fast with 16.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "16")  # 0 ends the process
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")  # enough for a network and many objects


@cache
def reserve() -> None:
    """Allocates and frees, once the first network is ready on a CPU, the memory that it will need later.

    With nano, kernels for each batch size from one to four objects take 12 to 17 MB, compiled when that size first
    occurs; the first takes 25 MB more, and fragmentation adds to it. Without this, memory grows in steps for an hour.
    Larger networks need more; networks loaded later reuse what those before them left. Does nothing if memory is short.
    """
    import numpy as np  # not at the top: it takes as long as Python's start, which would delay the signal handlers

    with suppress(MemoryError):
        # `ones`, because pages are only allocated when they are written to.
        pieces = [np.ones(_PIECE_BYTES, np.uint8) for _ in range(RESERVE_BYTES // _PIECE_BYTES)]
        del pieces
    _own_all_pages()


def _own_all_pages() -> None:
    """Makes the operating system allocate all pages of the heap, including those never written to, where it can.

    Otherwise it allocates them when blocks of later networks are placed there: 4 MB in an hour, in steps.
    """
    with suppress(OSError, AttributeError):
        madvise = ctypes.CDLL(None).madvise
        for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
            if line.endswith("[heap]"):
                start, end = (int(address, 16) for address in line.split()[0].split("-"))
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_POPULATE_WRITE)
