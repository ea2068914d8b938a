"""Files of metrics whose room is reserved before it is written to.

prometheus-client only sets the length of its files, and the system looks for room at the first
write to each page. If there is none, as in a /dev/shm that is full, that write kills the process
(SIGBUS).
"""

import logging
import os
import struct
from pathlib import Path
from threading import Lock

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

log = logging.getLogger("gunicorn.error")

SIZE = 16 * 1024  # bytes of a new file
LONGEST = 4096  # bytes that a value may take, with its name and labels
# What reading the files raises if the folder or a file was removed, replaced or damaged.
UNREADABLE = (OSError, ValueError, KeyError, IndexError, RuntimeError, struct.error)

files: list["ReservedFile"] = []  # of this process
said = Lock()  # held for ever by the thread that logs that the files cannot be used


class ReservedFile(MmapedDict):
    """The values of one worker.

    If no file can be made, they are in the worker's memory: a line in the log says so, serving goes
    on, and no other worker sees them.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            make(Path(path))
            self._open(path)
        except OSError as error:
            self._open(in_memory(error))
        files.append(self)

    def is_shared(self) -> bool:
        """Return whether the other workers find these values. OSError if they find no file."""
        return os.path.samestat(Path(self._path).stat(), self._opened)

    def _open(self, path: str) -> None:
        super().__init__(path)  # type: ignore[no-untyped-call]
        self._opened = os.fstat(self._f.fileno())

    def _init_value(self, key: str) -> None:
        """Add a value, after reserving room for it."""
        if self._used + LONGEST > self._capacity:
            try:
                os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
            except OSError as error:
                self._move(in_memory(error))
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _move(self, path: str) -> None:
        """Go on with a copy at `path`."""
        Path(path).write_bytes(self._m[: self._used])
        self.close()  # type: ignore[no-untyped-call]
        self._open(path)


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


def in_memory(error: OSError) -> str:
    """Return the path of a new file in memory, and log why it has to be there."""
    warn(error)
    return f"/proc/self/fd/{os.memfd_create('metrics')}"


def values_of_all() -> bytes:
    """Return the metrics of all workers. One of UNREADABLE if this worker's are not among them."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    text = generate_latest(registry)
    if not all(file.is_shared() for file in list(files)):
        raise ValueError("a file of this worker was replaced")
    return text


def warn(error: Exception) -> None:
    """Log, once in a process, that its counts and those of other workers are not together."""
    if not said.acquire(blocking=False):
        return
    reason = error.strerror if isinstance(error, OSError) else "removed, replaced or damaged"
    log.error(
        "The files of metrics in %s cannot be used (%s): this worker serves on, and answers "
        "/metrics with its own counts alone. Make room there if it is full, and reload (SIGHUP), "
        "which makes the folder anew if need be; or set HASHER_METRICS=off.",
        os.environ["PROMETHEUS_MULTIPROC_DIR"],
        reason,
    )
