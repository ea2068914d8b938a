"""How many connections each worker of a master has, in memory that the workers share.

A worker that is awake takes a connection before one that sleeps, so a busy worker would take all of
a crowd. A worker that has more than its share waits for a moment, so that another may be first.
"""

import mmap
import weakref
from typing import Any

WORKERS = 64  # that are told apart
ABSENT = -1  # the count of a worker that accepts no connection

counts = memoryview(mmap.mmap(-1, 4 * WORKERS)).cast("i")  # made before any worker is forked
for place in range(WORKERS):
    counts[place] = ABSENT


class Share:
    """The share of one worker. It is made in the master, and ends there with `worker`."""

    def __init__(self, worker: Any) -> None:
        self._place = worker.age % WORKERS
        counts[self._place] = ABSENT
        weakref.finalize(worker, counts.__setitem__, self._place, ABSENT).atexit = False

    def note(self, count: int) -> None:
        """Note that this worker has `count` connections."""
        counts[self._place] = count

    def leave(self) -> None:
        """Note that this worker accepts no more connections."""
        counts[self._place] = ABSENT

    def is_large(self) -> bool:
        """Return whether this worker has clearly more connections than another that accepts."""
        present = [count for count in counts.tolist() if count != ABSENT]
        mine = counts[self._place]
        return bool(present) and mine > min(present) * 5 // 4 + 1
