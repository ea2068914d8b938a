"""One worker for a store that lives in one process.

Two workers would have different messages: one would answer 404 for a message that the other has
stored. So a second worker is refused, and a worker that replaces the first waits for its end.
"""

import logging
import os
import time
from signal import SIGINT, SIGKILL, SIGQUIT, SIGTERM
from typing import Any

from gunicorn.arbiter import Arbiter

from hasher.settings import InvalidSetting

log = logging.getLogger("gunicorn.error")

STOPS = {SIGTERM, SIGINT, SIGQUIT}
INSTEAD = "memory:// keeps messages in one process"


def nworkers_changed(server: Arbiter, new: int, old: int | None) -> None:
    """Refuse a second worker: end the start, or later (SIGTTIN) add no worker."""
    if old is None and new != 1:
        raise InvalidSetting(f"{new} workers were asked for, and {INSTEAD}: use -w 1.")
    if new > 1:
        log.warning("No worker was added, since %s.", INSTEAD)
        server.num_workers = 1


def pre_exec(_server: Arbiter) -> None:
    """End this process, a second master (SIGUSR2); the first one goes on."""
    log.warning("No second master was started, since %s.", INSTEAD)
    os._exit(0)


def await_end_of_last(server: Arbiter) -> None:
    """Before a reload (SIGHUP) starts a new worker, end the old one.

    Clients that connect in between wait in the queue of the listening socket.
    """
    server.kill_workers(SIGTERM)
    deadline = time.monotonic() + server.cfg.graceful_timeout
    meanwhile: list[int] = []
    while server.WORKERS:
        if time.monotonic() > deadline:
            server.kill_workers(SIGKILL)
        meanwhile += server.wait_for_signals(timeout=0.02)
        if STOPS.intersection(meanwhile):
            raise StopIteration  # which is how gunicorn's own handlers stop it
        server.reap_workers()
    for number in meanwhile:
        server.SIG_QUEUE.put_nowait(number)


def report_loss(worker: Any) -> None:
    """Log that a worker has ended, and all messages with it."""
    log.warning("Worker %s has ended, and all messages with it, since %s.", worker.pid, INSTEAD)
