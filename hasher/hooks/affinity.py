"""HASHER_CPU_AFFINITY=1: each worker runs on one core.

The threads of a worker take turns, since Python runs one at a time. On one core they do so without
waking each other up across cores.
"""

import logging
import os
from collections import Counter
from typing import Any

from gunicorn.arbiter import Arbiter

log = logging.getLogger("gunicorn.error")


def choose(server: Arbiter, worker: Any) -> None:
    """Set `worker.core`, in the master, to the core with the fewest workers.

    None if this platform cannot pin a process.
    """
    worker.core = None
    if hasattr(os, "sched_getaffinity"):
        running: dict[int, Any] = server.WORKERS
        taken = Counter(other.core for other in running.values())
        worker.core = min(sorted(os.sched_getaffinity(0)), key=taken.__getitem__)


def pin(worker: Any) -> None:
    """Pin this process, which is that of `worker`, to the core that was chosen for it."""
    if worker.core is None:
        log.warning("HASHER_CPU_AFFINITY=1 does nothing: this platform cannot pin a process.")
        return
    os.sched_setaffinity(0, {worker.core})
    log.info("Worker %d stays on core %d.", worker.pid, worker.core)
