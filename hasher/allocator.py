"""The C library's memory allocator, and when it returns memory to the system."""

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 128 * 1024


def give_back_large_blocks() -> None:
    """Have glibc map each block of LARGE_BLOCK bytes or more on its own (mallopt(3)).

    The memory of large bodies then returns to the system. By default glibc raises the threshold to
    the largest block freed so far, up to 32 MiB: eight bulk requests at once left a worker 130 MiB
    larger.
    """
    with suppress(AttributeError, OSError):  # raised if the C library is not glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
