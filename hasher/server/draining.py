"""From SIGTERM on, /readyz fails for a while before gunicorn stops: balancers turn away first."""

import mmap
import signal
from types import FrameType
from typing import Any

# Shared with every worker, since gunicorn imports this before it forks them.
begun = mmap.mmap(-1, 1)


def drain_before_stop(seconds: int) -> None:
    """Let SIGTERM stop gunicorn `seconds` later, and a second one at once.

    To be called in the master, after gunicorn has set its signal handlers.
    """
    stop: Any = signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: FrameType | None) -> None:
        if begun[0]:
            stop(number, frame)
        begun[0] = 1
        signal.setitimer(signal.ITIMER_REAL, seconds)

    if seconds:
        signal.signal(signal.SIGTERM, drain)
        signal.signal(signal.SIGALRM, lambda _, frame: stop(signal.SIGTERM, frame))
