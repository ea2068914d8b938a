"""Files of metrics whose room is reserved before it is written to.

prometheus-client only sets the length of its files, and the system looks for room at the first
write to each page. If there is none, as in a /dev/shm that is full, that write kills the process
(SIGBUS).
"""

import logging
import os
from functools import cache
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

log = logging.getLogger("gunicorn.error")

SIZE = 16 * 1024  # bytes of a new file
LONGEST = 4096  # bytes that a value may take, with its name and labels


class ReservedFile(MmapedDict):
    """The values of one worker.

    Without room for a file they are in the worker's memory: a line in the log says so, serving goes
    on, and no other worker sees them.
    """

    def __init__(self, path: str) -> None:
        try:
            make(Path(path))
        except OSError as error:
            path = in_memory(str(error.strerror))
        super().__init__(path)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        """Add a value, after reserving room for it."""
        if self._used + LONGEST > self._capacity:
            try:
                os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
            except OSError as error:
                self._move(in_memory(str(error.strerror)))
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _move(self, path: str) -> None:
        """Go on with a copy at `path`."""
        Path(path).write_bytes(self._m[: self._used])
        self.close()  # type: ignore[no-untyped-call]
        super().__init__(path)  # type: ignore[no-untyped-call]


def make(path: Path) -> None:
    """Make a file that has its room, unless there is one. OSError if there is no room."""
    if path.exists():
        return
    new = path.with_suffix(".new")  # which no scrape reads until it is whole
    try:
        with new.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, SIZE)
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def in_memory(reason: str) -> str:
    """Return the path of a new file in memory, and log why it has to be there."""
    warn(reason)
    return f"/proc/self/fd/{os.memfd_create('metrics')}"


@cache
def warn(reason: str) -> None:
    """Log, once, that others do not see what this worker counts."""
    log.error(
        "There is no room for a file of metrics (%s): this worker serves on, and /metrics lacks "
        "what it counts. Make room in %s and reload, or set HASHER_METRICS=off.",
        reason,
        Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).parent,
    )
