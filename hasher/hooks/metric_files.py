"""The files in which workers keep their metrics, so that each worker can sum over all.

A worker that replaces another continues its files, so their number is bounded, and the counts of a
lost worker are kept.
"""

import fcntl
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from gunicorn.arbiter import Arbiter

log = logging.getLogger("gunicorn.error")

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus-client
MEMORY = Path("/dev/shm")  # noqa: S108 - a full disk must not end a worker that counts
held: list[int] = []  # the open directory of this master


def open_for(server: Arbiter) -> None:
    """Make the directory. A second master (SIGUSR2) shares that of the first."""
    if server.master_pid and DIRECTORY in os.environ:
        with suppress(OSError):  # raised if it was removed
            hold(Path(os.environ[DIRECTORY]))
            return
    make()


def renew() -> None:
    """At a reload, make another directory if this one was removed, replaced or damaged."""
    if not is_whole():
        make()


def make() -> None:
    """Make the directory. Without one, each worker serves on and keeps its counts to itself."""
    reason = "no folder for temporary files can be written"
    for parent in parents():
        try:
            remove_abandoned(parent)
            os.environ[DIRECTORY] = str(made_in(parent))
        except OSError as error:
            reason = f"{parent}: {error.strerror}"
        else:
            return
    os.environ.pop(DIRECTORY, None)
    log.error(
        "There is no folder for the files of metrics (%s): each worker answers /metrics with its "
        "own counts alone. Make /dev/shm writable, or set TMPDIR, and restart; or set "
        "HASHER_METRICS=off.",
        reason,
    )


def parents() -> Iterator[Path]:
    """Yield where the directory may be made, the best place first."""
    if os.access(MEMORY, os.W_OK, effective_ids=True):
        yield MEMORY
    with suppress(FileNotFoundError):  # raised if there is no folder for temporary files
        yield Path(tempfile.gettempdir())


def made_in(parent: Path) -> Path:
    """Return a new directory, which has its final name only when it is held."""
    made = Path(tempfile.mkdtemp(prefix="hasher-starting-", dir=parent))
    hold(made)
    return made.rename(parent / made.name.replace("starting", "metrics"))


def hold(directory: Path) -> None:
    """Keep `directory` from being removed while this process or a worker of it lives."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(opened, fcntl.LOCK_SH)
    while held:
        os.close(held.pop())
    held.append(opened)


def is_whole() -> bool:
    """Return whether the directory is the one that is held, and its files can be read."""
    from hasher.telemetry.reserved_file import UNREADABLE, values_of_all  # noqa: PLC0415 - an extra

    try:
        values_of_all()
        return os.path.samestat(Path(os.environ[DIRECTORY]).stat(), os.fstat(held[0]))
    except UNREADABLE:
        return False


def remove_abandoned(parent: Path) -> None:
    """Remove the directories that killed services have left."""
    for directory in parent.glob("hasher-metrics-*"):
        with suppress(OSError):  # raised if it is no directory, another user's, or in use
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory)
            finally:
                os.close(lock)


def assign(server: Arbiter, worker: Any) -> None:
    """Assign `worker`, before its fork, files that no running worker has."""
    running: dict[int, Any] = server.WORKERS
    taken = {other.metric_files for other in running.values()}
    names = (f"{server.pid}-{number}" for number in count())
    worker.metric_files = next(name for name in names if name not in taken)


def use(worker: Any) -> None:
    """Tell prometheus-client, in the process of `worker`, to keep its values in its files."""
    from prometheus_client import values  # noqa: PLC0415 - an extra, which metrics=off does without

    from hasher.telemetry.reserved_file import ReservedFile  # noqa: PLC0415 - as above

    files = worker.metric_files
    if hasattr(os, "memfd_create"):
        values.MmapedDict = ReservedFile  # type: ignore[attr-defined, assignment]
    if DIRECTORY in os.environ:
        values.ValueClass = values.MultiProcessValue(lambda: files)  # type: ignore[no-untyped-call]
    else:
        values.ValueClass = values.MutexValue
    if "hasher.telemetry.metrics" in sys.modules:  # with --preload, before there were files
        sys.modules["hasher.telemetry.metrics"].begin_anew()


def keep() -> None:
    """Keep the last counts of a worker, in its process."""
    from hasher.telemetry.metrics import TALLY  # noqa: PLC0415 - an extra's, as above

    TALLY.flush()


def release(worker: Any) -> None:
    """Remove the counts that end with `worker`: its requests in flight."""
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - as above

    if DIRECTORY in os.environ:
        with suppress(OSError):  # raised if another program removes it first
            mark_process_dead(worker.metric_files)  # type: ignore[no-untyped-call]


def close_for(server: Arbiter) -> None:
    """Remove the directory, unless another master uses it."""
    if DIRECTORY in os.environ and not server.master_pid and not server.reexec_pid:
        shutil.rmtree(os.environ[DIRECTORY], ignore_errors=True)
