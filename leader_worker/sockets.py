"""Sockets on which the leader never waits for a client.

`recv`, `send` and `sendall` wait for the client, as gunicorn's parser and applications expect; the
thread hands the lead over first. `take` never waits.
"""

import select
import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any

STALL = 5.0  # seconds for which a client may neither send nor take a byte before it is cut


class Stalled(TimeoutError):
    """A client has neither sent nor taken a byte for STALL seconds."""


class Waiting:
    """Waiting for a client, for both kinds of socket."""

    fileno: Callable[[], int]
    hand_over: Callable[[], None]
    """Called before every wait."""
    stalled = False
    """Whether the client has had its time to send, so that no thread waits for more."""
    waits_since: float | None = None
    """When a thread first waited for the client of this request."""
    waits = False
    """Whether a thread does so now."""

    def wait(self, event: int) -> None:
        """Wait until the client can be read from, or written to. Stalled if it stalls."""
        if self.waits_since is None:
            self.waits_since = monotonic()
        self.hand_over()
        if self.stalled and event == select.POLLIN:
            raise Stalled
        poll = select.poll()
        poll.register(self.fileno(), event)
        self.waits = True
        try:
            if not poll.poll(STALL * 1000):
                raise Stalled
        finally:
            self.waits = False

    def has_waited(self, since: float) -> bool:
        """Return whether a thread waits now, and first waited before `since`."""
        return self.waits and self.waits_since is not None and self.waits_since <= since


class LeadersSocket(Waiting, socket.socket):
    """A plain socket. It never blocks, but waits with `wait`."""

    def take(self, size: int) -> bytes | None:
        """Return what has come, `b""` if the client has ended, or None if nothing has come."""
        try:
            return socket.socket.recv(self, size)
        except BlockingIOError:
            return None

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what comes, as soon as something does."""
        while True:
            try:
                return socket.socket.recv(self, size, flags)
            except BlockingIOError:
                self.wait(select.POLLIN)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some of `data`, as soon as that can be done, and return how much."""
        while True:
            try:
                return socket.socket.send(self, data, flags)
            except BlockingIOError:
                self.wait(select.POLLOUT)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send `data`."""
        try:
            sent = socket.socket.send(self, data, flags)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            with memoryview(data) as view:
                while sent < len(view):
                    sent += self.send(view[sent:], flags)

    def pending(self) -> int:
        """Return 0: unlike TLS, a plain socket keeps no received bytes."""
        return 0

    def greet(self) -> bool:
        """Return True: there is no handshake."""
        return True


class TLSSocket(Waiting, ssl.SSLSocket):
    """A socket over TLS. It never blocks, not even in its handshake, but waits with `wait`."""

    def take(self, size: int) -> bytes | None:
        """Return what has come, `b""` if the client has ended, or None if nothing has come."""
        try:
            return ssl.SSLSocket.recv(self, size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return None

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        """Return what comes, as soon as something does."""
        while True:
            try:
                return ssl.SSLSocket.recv(self, size, flags)
            except (ssl.SSLWantReadError, BlockingIOError):
                self.wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self.wait(select.POLLOUT)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some of `data`, as soon as that can be done, and return how much."""
        while True:
            try:
                return ssl.SSLSocket.send(self, data, flags)
            except (ssl.SSLWantWriteError, BlockingIOError):
                self.wait(select.POLLOUT)
            except ssl.SSLWantReadError:
                self.wait(select.POLLIN)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send `data`."""
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                sent += self.send(view[sent:], flags)

    def greet(self) -> bool:
        """Go on with the handshake; return whether it is done. The lead must be handed over."""
        while True:
            try:
                self.do_handshake()
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLWantWriteError:
                self.wait(select.POLLOUT)
            else:
                return True
