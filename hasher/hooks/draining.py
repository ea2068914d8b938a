"""After SIGTERM, /readyz fails for a while before gunicorn stops, so that balancers turn away."""

import mmap
import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

from gunicorn.arbiter import Arbiter

# Shared with every worker, since gunicorn imports this before it forks them.
begun = mmap.mmap(-1, 1)


def has_begun() -> bool:
    """Return whether the service is about to stop."""
    return bool(begun[0])


def drain_before_stop(server: Arbiter, seconds: int) -> None:
    """Let SIGTERM stop gunicorn `seconds` later, and a second SIGTERM at once.

    Call it in the master, after gunicorn has set its signal handlers.
    """
    gunicorn: Any = signal.getsignal(signal.SIGTERM)
    master = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != master:
            os._exit(0)  # a worker just forked, which has yet to set handlers of its own
        gunicorn(number, frame)
        end_workers(server)

    def drain(number: int, frame: FrameType | None) -> None:
        if begun[0] or os.getpid() != master:
            stop(number, frame)
            return
        begun[0] = 1
        signal.setitimer(signal.ITIMER_REAL, seconds)

    signal.signal(signal.SIGTERM, drain if seconds else stop)
    signal.signal(signal.SIGALRM, lambda _, frame: stop(signal.SIGTERM, frame))


def end_workers(server: Arbiter) -> None:
    """Tell every worker to finish its requests and end.

    gunicorn tells them too, but not during a reload, which waits for the old workers.
    """
    for pid in list(server.WORKERS):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
