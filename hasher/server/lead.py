"""Who takes the next request: one thread at a time, until it has to wait (leader and followers).

Python runs one thread at a time. Threads that each wait for requests of their own wake each other
up for every request, and then wait for the interpreter: on one core that costs a third of it. So
one thread leads: it takes a request, answers it, and takes the next. Where it would have to wait,
for a client, a disk or another machine, it hands the lead over first, and others go on meanwhile
(Schmidt et al., Leader/Followers, 2000: https://www.dre.vanderbilt.edu/~schmidt/PDF/lf.pdf).
"""

import socket
from collections.abc import Callable
from threading import Lock, get_ident
from typing import Any


class Lead:
    """The right to take requests, which one thread has at a time.

    `before_hand_over` is what the leader does last.
    """

    def __init__(self, before_hand_over: Callable[[], None]) -> None:
        self._before_hand_over = before_hand_over
        self._lock = Lock()
        self._leader: int | None = None

    def take(self) -> None:
        """Wait until this thread leads; at once where it does so already."""
        if self._leader != get_ident():
            self._lock.acquire()
            self._leader = get_ident()

    def hand_over(self) -> None:
        """Let another thread lead, where this one does."""
        if self._leader == get_ident():
            self._before_hand_over()
            self._leader = None
            self._lock.release()


class LeadersSocket(socket.socket):
    """A connection on whose client nobody waits while leading. It blocks, as gunicorn wants it."""

    def __init__(self, accepted: socket.socket, lead: Lead) -> None:
        super().__init__(fileno=accepted.detach())
        self._lead = lead

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As a socket's, after handing the lead over where nothing has come yet."""
        try:
            return super().recv(size, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._lead.hand_over()
            return super().recv(size, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As a socket's, after handing the lead over where not all can be sent at once."""
        try:
            sent = super().send(data, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._lead.hand_over()
            super().sendall(memoryview(data)[sent:], flags)
