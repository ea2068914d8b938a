"""The files in which workers keep their metrics, so that each worker can sum over all.

A worker that replaces another continues its files, so their number is bounded, and the counts of a
lost worker are kept.
"""

import fcntl
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from gunicorn.arbiter import Arbiter

from hasher.settings import InvalidSetting

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus-client
MEMORY = Path("/dev/shm")  # noqa: S108 - a full disk must not end a worker that counts


def open_for(server: Arbiter) -> None:
    """Make the directory. A second master (SIGUSR2) shares that of the first."""
    if server.master_pid and DIRECTORY in os.environ:
        hold(Path(os.environ[DIRECTORY]))
        return
    parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    try:
        remove_abandoned(parent)
        made = Path(tempfile.mkdtemp(prefix="hasher-starting-", dir=parent))
        hold(made)
        os.environ[DIRECTORY] = str(made.rename(parent / made.name.replace("starting", "metrics")))
    except OSError as error:
        raise InvalidSetting(
            f"HASHER_METRICS=on needs a directory for temporary files ({error.strerror}): "
            "set TMPDIR, or HASHER_METRICS=off."
        ) from None


def hold(directory: Path) -> None:
    """Keep `directory` from being removed while this process or a worker of it lives."""
    fcntl.flock(os.open(directory, os.O_RDONLY), fcntl.LOCK_SH)


def remove_abandoned(parent: Path) -> None:
    """Remove the directories that killed services have left."""
    for directory in parent.glob("hasher-metrics-*"):
        with suppress(OSError):  # raised if it is another user's, or in use
            lock = os.open(directory, os.O_RDONLY)
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
    values.ValueClass = values.MultiProcessValue(lambda: files)  # type: ignore[no-untyped-call]
    if "hasher.telemetry.metrics" in sys.modules:  # with --preload, before there were files
        sys.modules["hasher.telemetry.metrics"].begin_anew()


def keep() -> None:
    """Keep the last counts of a worker, in its process."""
    from hasher.telemetry.metrics import TALLY  # noqa: PLC0415 - an extra's, as above

    TALLY.flush()


def release(worker: Any) -> None:
    """Remove the counts that end with `worker`: its requests in flight."""
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - as above

    mark_process_dead(worker.metric_files)  # type: ignore[no-untyped-call]


def close_for(server: Arbiter) -> None:
    """Remove the directory, unless another master uses it."""
    if not server.master_pid and not server.reexec_pid:
        shutil.rmtree(os.environ[DIRECTORY], ignore_errors=True)
