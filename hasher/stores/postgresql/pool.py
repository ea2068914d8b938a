"""The connections of this process: made after the fork, and waited for briefly."""

import logging
from collections.abc import Callable
from threading import Lock
from time import monotonic, sleep
from typing import Any, TypeVar

from psycopg.errors import DeadlockDetected, ReadOnlySqlTransaction, SerializationFailure
from psycopg.pq.abc import PGresult
from psycopg_pool import ConnectionPool, PoolTimeout

from hasher.stores.postgresql.connection import OPERATE, Connection, Lost, Statement, one_line

T = TypeVar("T")

WAIT = 0.5  # seconds that a request waits for a connection
LIMIT = 1.5  # seconds for all attempts
NAP = 0.02  # seconds before a transaction that was in another's way is tried again
AGAIN = 0.1  # seconds after which a connection that could not be made is tried for the last time

# The pool warns of connections that end; the driver raises an exception when it matters.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class Connections:
    """Up to `size` connections, one for each thread that asks at once.

    `setup` is called with a connection before the first is used, until it succeeds.
    """

    def __init__(
        self, conninfo: str, *, size: int, prepare: bool, setup: Callable[[Connection], None]
    ) -> None:
        self._conninfo, self._size, self._setup = conninfo, size, setup
        self._options: dict[str, Any] = {"tell": self._told, "prepare": prepare}
        self._inherited: list[ConnectionPool[Connection]] = []
        self._pool: ConnectionPool[Connection] | None = None
        self.forget()

    def forget(self) -> None:
        """Begin with no connection, as a forked process must.

        The connections of its parent are kept: closing them here would end the parent's sessions.
        """
        if self._pool is not None:
            self._inherited.append(self._pool)
        self._pool = None
        self._ready = False
        self._failure: Exception | None = None
        self._lock = Lock()

    def ask(self, statement: Statement, *values: bytes, seconds: float = OPERATE) -> PGresult:
        """Return the server's answer; what is transient is tried again once.

        TimeoutError if it does not come in time, or there is no connection.
        """
        deadline = monotonic() + LIMIT
        self._require_ready(deadline)
        return self._ask_again(statement, values, seconds, deadline)

    def use(self, function: Callable[[Connection], T]) -> T:
        """Return what `function` returns for a connection, on which nothing is tried again."""
        deadline = monotonic() + LIMIT
        self._require_ready(deadline)
        return self._lend(function, deadline)

    def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            self._pool.close(timeout=WAIT)

    def _lend(self, function: Callable[[Connection], T], deadline: float) -> T:
        connection = self._take(deadline)
        try:
            return function(connection)
        finally:
            self._give_back(connection)

    def _require_ready(self, deadline: float) -> None:
        if not self._ready:
            self._lend(self._setup, deadline)
            self._ready = True

    def _ask_again(
        self, statement: Statement, values: tuple[bytes, ...], seconds: float, deadline: float
    ) -> PGresult:
        """Ask once, and once more if another attempt can put right what the first has met."""
        try:
            return self._ask(statement, values, seconds, deadline)
        except (DeadlockDetected, SerializationFailure):
            sleep(NAP)  # the other transaction is just waking up, and goes first
            return self._ask(statement, values, seconds, deadline)
        except (Lost, ReadOnlySqlTransaction):
            return self._ask_anew(statement, values, seconds, deadline)

    def _ask_anew(
        self, statement: Statement, values: tuple[bytes, ...], seconds: float, deadline: float
    ) -> PGresult:
        """Ask over a new connection: the others may be ending just now, or be to a standby.

        An administrator who ends all of them may end that one, too: then ask over another.
        """
        try:
            return self._ask(statement, values, seconds, deadline, since=monotonic())
        except Lost:
            return self._ask(statement, values, seconds, deadline, since=monotonic())

    def _ask(
        self,
        statement: Statement,
        values: tuple[bytes, ...],
        seconds: float,
        deadline: float,
        since: float = 0.0,
    ) -> PGresult:
        connection = self._take(deadline, since)
        try:
            return connection.ask(statement, values, min(seconds, deadline - monotonic()))
        finally:
            self._give_back(connection)

    def _take(self, deadline: float, since: float = 0.0) -> Connection:
        """Take a connection out of the pool that was made after `since`, and is not stale."""
        pool = self._pool or self._open()
        while True:
            try:
                connection = pool.getconn(min(WAIT, deadline - monotonic()))
            except PoolTimeout:
                raise self._unavailable() from None
            if connection.made >= since and not connection.is_stale:
                return connection
            connection.close()
            self._give_back(connection)

    def _give_back(self, connection: Connection) -> None:
        """Return a connection; the pool makes another one for it if it is closed."""
        pool = self._pool
        if pool is not None:
            pool.putconn(connection)

    def _open(self) -> ConnectionPool[Connection]:
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._conninfo,
                    connection_class=Connection,
                    kwargs=self._options,
                    min_size=0,
                    max_size=self._size,
                    reconnect_timeout=AGAIN,
                    open=True,
                )
            return self._pool

    def _told(self, failure: Exception | None) -> None:
        """Keep the failure of the last attempt to connect, or None."""
        self._failure = failure

    def _unavailable(self) -> TimeoutError:
        """Return why there is no connection."""
        if self._failure is None:
            return TimeoutError("no connection came free in time")
        return TimeoutError(one_line(self._failure).rpartition("All failures were: ")[2])
