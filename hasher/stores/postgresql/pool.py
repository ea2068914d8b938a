"""The connections of this process: made after the fork, and waited for briefly."""

import logging
from collections.abc import Callable
from contextlib import suppress
from math import inf
from threading import Lock
from time import monotonic, sleep
from typing import Any, TypeVar

from psycopg.errors import DeadlockDetected, ReadOnlySqlTransaction, SerializationFailure
from psycopg.pq.abc import PGresult
from psycopg_pool import ConnectionPool, PoolTimeout

from hasher.stores.postgresql.connection import (
    OPERATE,
    Connection,
    Lost,
    Statement,
    one_line,
    rest,
)

T = TypeVar("T")

WAIT = 0.5  # seconds that a request waits for a connection
LIMIT = 1.5  # seconds for all attempts
SPEED = 20_000_000  # bytes of messages that give a statement a second more
NAP = 0.02  # seconds before a transaction that was in another's way is tried again
AGAIN = 0.1  # seconds after which a connection that could not be made is tried for the last time
LOAN = 60.0  # seconds after which a request gives the pool all idle connections, to close old ones

# The pool warns of connections that end; the driver raises an exception when it matters.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class Connections:
    """Up to `size` connections, one for each thread that asks at once.

    psycopg's pool makes and closes them. It is asked for one only if none is idle here, which saves
    its locks. `setup` is called with a connection before the first is used, until it succeeds.
    """

    def __init__(
        self, conninfo: str, *, size: int, prepare: bool, setup: Callable[[Connection], None]
    ) -> None:
        self._conninfo, self._size, self._setup = conninfo, size, setup
        self._options: dict[str, Any] = {"tell": self._note_failure, "prepare": prepare}
        self._inherited: list[object] = []
        self._pool: ConnectionPool[Connection] | None = None
        self._idle: list[Connection] = []
        self.forget()

    def forget(self) -> None:
        """Begin with no connection, as a forked process must.

        Those of the parent are kept: closing the pool would wait for threads that are not here.
        """
        self._inherited += [self._pool, self._idle]
        self._pool, self._idle = None, []
        self.waiting = 0  # threads that wait for the pool
        self._return_at = monotonic() + LOAN
        self._ready = False
        self._failure: Exception | None = None
        self._lock = Lock()

    def ask(
        self, statement: Statement, *values: bytes, seconds: float = OPERATE, deadline: float = inf
    ) -> PGresult:
        """Return the server's answer; what is transient is tried again once.

        TimeoutError if it does not come in time, or there is no connection. All attempts end by
        `deadline`, and within LIMIT, or longer for large values.
        """
        more = sum(map(len, values)) / SPEED
        seconds, deadline = seconds + more, min(deadline, monotonic() + LIMIT + more)
        self._require_ready(deadline)
        return self._ask_again(lambda it: it.ask(statement, values, seconds), deadline)

    def use(self, function: Callable[[Connection], T]) -> T:
        """Return what `function` returns for a connection, on which nothing is tried again."""
        deadline = monotonic() + LIMIT
        self._require_ready(deadline)
        return self._lend(function, deadline)

    def close(self) -> None:
        """Close all connections; those that are in use when they are given back."""
        if self._pool is not None:
            self._pool.close(timeout=WAIT)
            self._return_idle(self._pool)

    def _lend(self, function: Callable[[Connection], T], deadline: float, since: float = 0.0) -> T:
        """Return what `function` returns for a connection that was made after `since`."""
        pool = self._pool or self._open()
        connection = self._take(pool, deadline, since)
        connection.deadline = deadline
        try:
            returned = function(connection)
        except BaseException:
            pool.putconn(connection)  # which makes another if this one is closed
            raise
        self._idle.append(connection)
        if self.waiting or pool.closed or connection.used > self._return_at:
            self._return_idle(pool)
        return returned

    def _require_ready(self, deadline: float) -> None:
        if not self._ready:
            self._lend(self._setup, deadline)
            self._ready = True

    def _ask_again(self, ask: Callable[[Connection], T], deadline: float) -> T:
        """Ask once, and once more if another attempt can put right what the first has met."""
        try:
            return self._lend(ask, deadline)
        except (DeadlockDetected, SerializationFailure):
            sleep(NAP)  # the other transaction is just waking up, and goes first
            return self._lend(ask, deadline)
        except (Lost, ReadOnlySqlTransaction):
            return self._ask_anew(ask, deadline)

    def _ask_anew(self, ask: Callable[[Connection], T], deadline: float) -> T:
        """Ask over a new connection: the others may be ending just now, or be to a standby.

        An administrator who ends all of them may end that one, too: then ask over another.
        """
        try:
            return self._lend(ask, deadline, since=monotonic())
        except Lost:
            return self._lend(ask, deadline, since=monotonic())

    def _take(self, pool: ConnectionPool[Connection], deadline: float, since: float) -> Connection:
        """Take a connection that was made after `since`, and is not stale."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._wait(pool, deadline)
            if connection.made >= since and not connection.is_stale:
                return connection
            connection.close()
            pool.putconn(connection)

    def _wait(self, pool: ConnectionPool[Connection], deadline: float) -> Connection:
        """Take a connection from the pool. TimeoutError if it has none in time."""
        with self._lock:
            self.waiting += 1
        try:
            if self._idle:  # given back before `waiting` was raised; later ones go to the pool
                self._return_idle(pool)
            return pool.getconn(min(WAIT, rest(deadline)))
        except PoolTimeout:
            raise self._unavailable() from None
        finally:
            with self._lock:
                self.waiting -= 1

    def _return_idle(self, pool: ConnectionPool[Connection]) -> None:
        """Give the pool what is idle here."""
        self._return_at = monotonic() + LOAN
        with suppress(IndexError):  # raised when none is left; other threads take them, too
            while True:
                pool.putconn(self._idle.pop())

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

    def _note_failure(self, failure: Exception | None) -> None:
        """Keep the failure of the last attempt to connect, or None."""
        self._failure = failure

    def _unavailable(self) -> TimeoutError:
        """Return why there is no connection."""
        if self._failure is None:
            return TimeoutError("no connection came free in time")
        return TimeoutError(one_line(self._failure).rpartition("All failures were: ")[2])
