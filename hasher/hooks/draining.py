"""From SIGTERM on, /readyz fails for a while before gunicorn stops: balancers turn away first."""

import mmap
import os
import signal
from types import FrameType
from typing import Any

# Shared with every worker, since gunicorn imports this before it forks them.
begun = mmap.mmap(-1, 1)


def has_begun() -> bool:
    """Return whether the service is about to stop."""
    return bool(begun[0])


def drain_before_stop(seconds: int) -> None:
    """Let SIGTERM stop gunicorn `seconds` later, and a second one at once.

    To be called in the master, after gunicorn has set its signal handlers.
    """
    stop: Any = signal.getsignal(signal.SIGTERM)
    master = os.getpid()

    def drain(number: int, frame: FrameType | None) -> None:
        if os.getpid() != master:
            os._exit(0)  # a worker just forked, which has yet to set handlers of its own
        if begun[0]:
            stop(number, frame)
        begun[0] = 1
        signal.setitimer(signal.ITIMER_REAL, seconds)

    if seconds:
        signal.signal(signal.SIGTERM, drain)
        signal.signal(signal.SIGALRM, lambda _, frame: stop(signal.SIGTERM, frame))
