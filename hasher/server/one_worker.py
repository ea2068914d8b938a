"""gunicorn's hooks for a store that lives in one process: there is never a second worker.

With two, each would have messages of its own, and a message stored through one would be a 404
from the other. What would start a second one is refused, and what replaces the one waits for its
end.
"""

import logging
import mmap
import os
import time
from signal import SIGKILL, SIGTERM
from typing import Any

from gunicorn.arbiter import Arbiter

from hasher.settings import InvalidSetting

log = logging.getLogger("gunicorn.error")

INSTEAD = "memory:// keeps messages in one process"


def nworkers_changed(server: Arbiter, new: int, old: int | None) -> None:
    """Refuse a second worker: at start the start itself, later (SIGTTIN) only the worker."""
    if new <= 1:
        return
    if old is None:
        raise InvalidSetting(f"{new} workers cannot share a store, since {INSTEAD}: use -w 1.")
    log.warning("No worker was added, since %s.", INSTEAD)
    server.num_workers = 1


def pre_exec(_server: Arbiter) -> None:
    """Refuse a second master (SIGUSR2). This runs in its process: the first one goes on."""
    log.warning("No second master was started, since %s.", INSTEAD)
    os._exit(0)


def pre_fork(server: Arbiter, worker: Any) -> None:
    """End the worker that a reload (SIGHUP) replaces before the new one starts.

    Clients that connect in between wait in the listening socket's queue.
    """
    deadline = time.monotonic() + server.cfg.graceful_timeout
    server.kill_workers(SIGTERM)
    while server.WORKERS:
        if time.monotonic() > deadline:
            server.kill_workers(SIGKILL)
        time.sleep(0.02)
        server.reap_workers()
    worker.tally = memoryview(mmap.mmap(-1, 8)).cast("Q")  # shared with the worker


def post_worker_init(worker: Any) -> None:
    """Let the worker count its messages where the master can still read it when it is gone."""
    worker.app.wsgi().extensions["store"].tally_in(worker.tally)


def child_exit(_server: Arbiter, worker: Any) -> None:
    """Say how many messages went with a worker that was stopped, reloaded or lost."""
    log.warning(
        "Worker %s has ended, and %d messages with it, since %s.",
        worker.pid,
        worker.tally[0],
        INSTEAD,
    )
