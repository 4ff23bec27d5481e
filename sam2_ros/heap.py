"""What the process holds of memory, so that it is nearly flat from the first image on."""

import ctypes
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

_MADV_POPULATE_WRITE = 23  # mman.h, Linux 5.14
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEEP_BYTES = 1 << 30
_PIECE_BYTES = 8 << 20
RESERVE_BYTES = 12 * _PIECE_BYTES


def keep_freed() -> None:
    """Tells glibc to reuse image-sized buffers.

    By default it gives them back to the kernel and gets them again, page by page, for every image: at 1280x720 that
    takes longer than everything the node does with them. What is kept is bounded by the busiest moment.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES) or mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # all that older ones take
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def bound_programs() -> None:
    """Tells oneDNN how many to keep of the programs that it makes for every shape, 0.4 MB each. Read when it is loaded.

    By default it keeps 1024, and PyTorch's bridge to it as many again, for nothing: a step takes no longer with 16.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "16")  # 0 ends the process
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")  # room for a network's and many objects'


@cache
def reserve() -> None:
    """Takes, once the first network is ready on a CPU, what it will need later, and frees it into what is kept.

    That is, with nano, 12 to 17 MB of programs for each of the first four numbers of objects, which come when those
    come, 25 more for the first, and what gaps between blocks of all sizes cost. Without it memory grows in steps, for
    an hour. Larger networks need more. Later networks find what those before them left. Where memory is short, nothing.
    """
    with suppress(MemoryError):
        pieces = [np.ones(_PIECE_BYTES, np.uint8) for _ in range(RESERVE_BYTES // _PIECE_BYTES)]  # written to: ours
        del pieces
    _own_all_pages()


def _own_all_pages() -> None:
    """Of the heap's pages, also those that nobody has written to yet; older kernels, and others, cannot.

    Else they are had one by one, when a later network's blocks come to lie elsewhere: 4 MB in an hour, in steps.
    """
    with suppress(OSError, AttributeError):
        madvise = ctypes.CDLL(None).madvise
        for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
            if line.endswith("[heap]"):
                start, end = (int(address, 16) for address in line.split()[0].split("-"))
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_POPULATE_WRITE)
