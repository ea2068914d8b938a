"""The lead: one thread at a time takes requests, until it has to wait (leader and followers).

Python runs one thread at a time. Threads that each wait for requests of their own wake each other
up for every request, and then wait for the interpreter, which costs a third of a core. So one
thread leads: it takes a request, answers it, and takes the next. Before it waits for a client, a
disk or another machine, it hands the lead over, and another thread goes on
(Schmidt et al., Leader/Followers, 2000: https://www.dre.vanderbilt.edu/~schmidt/PDF/lf.pdf).
"""

from collections.abc import Callable
from threading import Lock, get_ident
from time import monotonic


class Lead:
    """The right to take requests, which one thread has at a time.

    The leader calls `before_hand_over` just before it hands over.
    """

    def __init__(self, before_hand_over: Callable[[], None]) -> None:
        self._before_hand_over = before_hand_over
        self._lock = Lock()
        self._leader: int | None = None
        self._free_since = monotonic()

    def take(self) -> None:
        """Wait until this thread leads; return at once if it does so already."""
        if self._leader != get_ident():
            self._lock.acquire()
            self._leader = get_ident()

    def hand_over(self) -> None:
        """Let another thread lead, if this one does."""
        if self._leader == get_ident():
            self._before_hand_over()
            self._free_since = monotonic()
            self._leader = None
            self._lock.release()

    def is_mine(self) -> bool:
        """Return whether this thread leads."""
        return self._leader == get_ident()

    def free_since(self) -> float:
        """Return since when no thread has led: now if one leads."""
        since = self._free_since
        return monotonic() if self._leader is not None else since
