"""One Redis server, and the connections that this process keeps to it."""

import os
import socket
import ssl
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic

from hiredis import ReplyError

from hasher.stores.breaker import CircuitBreaker
from hasher.stores.redis.connection import Command, Connection, Reply, require
from hasher.stores.redis.shared_call import SharedCall

# Seconds until each is given up; together they are less than the 2 s within which a 503 is due.
RESOLVE, CONNECT, OPERATE = 0.5, 0.5, 0.7
ACKNOWLEDGE = b"600"  # milliseconds that replicas have, which is less than OPERATE


class TooFewReplicas(TimeoutError):
    """The message is stored, but not on as many replicas as were asked for."""


@dataclass(frozen=True)
class Access:
    """What a connection needs to be let in by a server."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: bool = False
    ca: str | None = None
    """The file of the authority to trust, in place of the system's."""

    def commands(self) -> list[Command]:
        """Return the commands that a connection begins with."""
        user = [self.username.encode()] if self.username else []
        auth = [(b"AUTH", *user, self.password.encode())] if self.password else []
        select = [(b"SELECT", b"%d" % self.database)] if self.database else []
        return [*auth, *select]


class Server:
    """A server. Each call is one trip, over a connection that no other thread uses meanwhile."""

    def __init__(self, host: str, port: int, access: Access) -> None:
        self.host, self.port = host, port
        self._access = access
        self._start()
        restart = weakref.WeakMethod(self._start)
        os.register_at_fork(after_in_child=lambda: (start := restart()) and start())

    def _start(self) -> None:
        """Begin with no connection, after a fork too: none may be used across it."""
        self._idle: list[Connection] = []
        self._closed = False
        self._answers = CircuitBreaker()
        self._replicates = CircuitBreaker()
        late = f"no name server has told the address of {self.host} in time"
        self._resolve = SharedCall(self._addresses, late)

    def call(self, commands: Sequence[Command], replicas: int = 0) -> list[Reply]:
        """Send `commands` and return the reply to each.

        If any of them was carried out, TooFewReplicas unless `replicas` replicas have it. WAIT
        counts the replicas that have all that this connection's last command could see, so a
        repeat is acknowledged only when they have its message too.
        """
        if not replicas:
            return self._answers.call(self._trip, commands)
        return self._replicates.call(self._replicated, commands, replicas)

    def close(self) -> None:
        """Let go of the connections: those that no thread uses now, and the others after it."""
        self._closed = True
        self._drop_idle()

    def _drop_idle(self) -> None:
        with suppress(IndexError):  # raised when none is left; other threads take them, too
            while True:
                self._idle.pop().close()

    def _replicated(self, commands: Sequence[Command], replicas: int) -> list[Reply]:
        wait = (b"WAIT", b"%d" % replicas, ACKNOWLEDGE)
        *replies, acknowledged = self._answers.call(self._trip, [*commands, wait])
        if not all(isinstance(reply, ReplyError) for reply in replies):
            require_replicas(require(acknowledged), replicas)
        return replies

    def _trip(self, commands: Sequence[Command]) -> list[Reply]:
        """Use an idle connection, or a new one if there is none or the server has dropped it.

        A time-out is not tried again: it has used up the time.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._use(self._connect(), commands)
        try:
            return self._use(connection, commands)
        except (ConnectionError, ssl.SSLError):
            self._drop_idle()  # the server was restarted: the other idle ones are lost, too
            return self._use(self._connect(), commands)

    def _use(self, connection: Connection, commands: Sequence[Command]) -> list[Reply]:
        try:
            replies = connection.call(commands)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        if self._closed:  # meanwhile: a thread that learns the cluster's servers outlives a driver
            self._drop_idle()
        return replies

    def _connect(self) -> Connection:
        connection = Connection(self._connected_socket(), OPERATE)
        try:
            for reply in connection.call(self._access.commands()):
                require(reply)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connected_socket(self) -> socket.socket:
        """Return a connection to the first of the host's addresses that takes one."""
        addresses = self._resolve.result(RESOLVE)
        deadline = monotonic() + CONNECT
        failure: OSError = ConnectionError(f"{self.host} has no address")
        for number, address in enumerate(addresses):
            share = (deadline - monotonic()) / (len(addresses) - number)
            try:
                return self._secured(socket.create_connection(address, max(share, 0.01)))
            except OSError as error:
                failure = error
        raise failure

    def _secured(self, connected: socket.socket) -> socket.socket:
        """Return `connected` with what the store's URL asks for."""
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls:
                return self._tls.wrap_socket(connected, server_hostname=self.host)
        except BaseException:
            connected.close()
            raise
        return connected

    def _addresses(self) -> list[tuple[str, int]]:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(str(host), self.port) for *_, (host, *_) in found]

    @cached_property
    def _tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self._access.ca) if self._access.tls else None


def require_replicas(acknowledged: int, replicas: int) -> None:
    """Raise TooFewReplicas if fewer than `replicas` have acknowledged."""
    if acknowledged < replicas:
        raise TooFewReplicas(f"fewer than {replicas} replicas have acknowledged")
