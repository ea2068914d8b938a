"""The turn to write, among the threads and processes that share a file."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

NAP = 0.0005  # seconds between two looks at whether another process has ended its turn


class Turn:
    """The lock of the file `path` (flock(2)), which is made if it does not exist.

    Processes that poll SQLite's own lock sleep longer and longer, and of two busy ones, one starves
    for seconds.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = Lock()  # among threads, for whom one open file has one lock
        self._descriptor: int | None = None

    @contextmanager
    def held(self, deadline: float) -> Iterator[None]:
        """Hold the turn. TimeoutError after `deadline`, a time of `time.monotonic`."""
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError("another thread does not end its turn to write")
        try:
            descriptor = self._open()
            while not locked(descriptor):
                if time.monotonic() > deadline:
                    raise TimeoutError("another process does not end its turn to write")
                time.sleep(NAP)
            try:
                yield
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the file. A process that shares it after a fork keeps its turn."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o644)
        return self._descriptor


def locked(descriptor: int) -> bool:
    """Lock an open file; return False if another process has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
