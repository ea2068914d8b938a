"""Sockets on which the leader never waits for a client.

`take` and `push` never wait. `recv`, `send` and `sendall` wait for the client, as gunicorn's parser
and applications expect; a thread that leads hands the lead over first.
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


class Gone(ConnectionError):
    """The connection to a client has failed."""


class Waiting:
    """Waiting for a client, for both kinds of socket."""

    fileno: Callable[[], int]
    hand_over: Callable[[], None]
    """Called before every wait."""
    waits_since: float | None = None
    """When a thread first waited for the client of this request."""
    waits = False
    """Whether a thread does so now."""

    def wait(self, event: int) -> None:
        """Wait until the client can be read from, or written to. Stalled if it stalls."""
        if self.waits_since is None:
            self.waits_since = monotonic()
        self.hand_over()
        self.waits = True
        try:
            if not self.is_ready(event, STALL):
                raise Stalled
        finally:
            self.waits = False

    def is_ready(self, event: int, seconds: float) -> bool:
        """Return whether the client can be read from, or written to, within `seconds`."""
        poll = select.poll()
        poll.register(self.fileno(), event)
        return bool(poll.poll(seconds * 1000))

    def has_waited(self, since: float) -> bool:
        """Return whether a thread waits now, and first waited before `since`."""
        return self.waits and self.waits_since is not None and self.waits_since <= since


class LeadersSocket(Waiting, socket.socket):
    """A plain socket. It never blocks, but waits with `wait`. Its failures are Gone."""

    def take(self, size: int, flags: int = 0) -> bytes | None:
        """Return what has come, `b""` if the client has ended, or None if nothing has come."""
        try:
            return socket.socket.recv(self, size, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Gone from error

    def push(self, data: Any, flags: int = 0) -> int:
        """Send what the client takes of `data` at once, and return how much."""
        try:
            return socket.socket.send(self, data, flags)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Gone from error

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what comes, as soon as something does."""
        while (data := self.take(size, flags)) is None:
            self.wait(select.POLLIN)
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some of `data`, as soon as that can be done, and return how much."""
        while not (sent := self.push(data, flags)) and data:
            self.wait(select.POLLOUT)
        return sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send `data`."""
        with memoryview(data) as view:
            sent = 0
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

    wanted = 0
    """What `take` or `push` would have to wait for."""

    def take(self, size: int, flags: int = 0) -> bytes | None:
        """Return what has come, `b""` if the client has ended, or None if nothing has come."""
        try:
            return ssl.SSLSocket.recv(self, size, flags)
        except (ssl.SSLWantReadError, BlockingIOError):
            self.wanted = select.POLLIN
        except ssl.SSLWantWriteError:
            self.wanted = select.POLLOUT
        except OSError as error:
            raise Gone from error
        return None

    def push(self, data: Any, flags: int = 0) -> int:
        """Send what the client takes of `data` at once, and return how much."""
        try:
            return ssl.SSLSocket.send(self, data, flags) if data else 0
        except (ssl.SSLWantWriteError, BlockingIOError):
            self.wanted = select.POLLOUT
        except ssl.SSLWantReadError:
            self.wanted = select.POLLIN
        except OSError as error:
            raise Gone from error
        return 0

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        """Return what comes, as soon as something does."""
        while (data := self.take(size, flags)) is None:
            self.wait(self.wanted)
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some of `data`, as soon as that can be done, and return how much."""
        while not (sent := self.push(data, flags)) and data:
            self.wait(self.wanted)
        return sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send `data`."""
        LeadersSocket.sendall(self, data, flags)  # type: ignore[arg-type]

    def greet(self) -> bool:
        """Go on with the handshake; return whether it is done. The lead must be handed over."""
        while True:
            try:
                self.do_handshake()
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLWantWriteError:
                self.wait(select.POLLOUT)
            except ssl.SSLError:  # what the client speaks is no TLS
                raise
            except OSError as error:
                raise Gone from error
            else:
                return True
