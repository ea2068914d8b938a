"""The C library's memory allocator, and when it returns memory to the system."""

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 128 * 1024


def give_back_large_blocks() -> None:
    """Have glibc map blocks of LARGE_BLOCK and more by themselves (mallopt(3)).

    The memory of large bodies then returns to the system. By default glibc raises that threshold to
    the largest block freed so far, up to 32 MiB: eight bulk requests at once left a worker 130 MiB
    larger.
    """
    with suppress(AttributeError, OSError):  # if the C library is another one
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
