"""Whose turn it is to write, among the threads and processes that share a file."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

NAP = 0.0005  # seconds between two looks at whether another one has ended its turn


@contextmanager
def turn(path: str, deadline: float) -> Iterator[None]:
    """Hold the lock of the file `path` (flock(2)); TimeoutError after `deadline`.

    Those that poll SQLite's own lock sleep in ever longer naps, and of two busy ones one starves
    for seconds.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not locked(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError("another process does not end its turn to write")
            time.sleep(NAP)
        yield
    finally:
        os.close(descriptor)


def locked(descriptor: int) -> bool:
    """Lock an open file; False if somebody else has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
