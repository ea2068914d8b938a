"""A connection that prepares statements once, and does not wait long for their answers.

It uses libpq (https://www.psycopg.org/psycopg3/docs/api/pq.html) below psycopg's cursors, which
take as much processor time as the rest of a read.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from select import POLLIN, poll
from time import monotonic
from typing import Any, NamedTuple, Self

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import Diagnostic, error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow, tuple_row

OPERATE = 0.7  # seconds that a statement may take; a 503 is due within 2 s
MOMENT = 0.001  # seconds that are waited at least: psycopg takes 0 for no limit
CANCEL = 0.2  # seconds for asking the server to give a statement up
IDLE = 1.0  # seconds without use after which a connection is looked at before it is used again
BINARY = 1


class Lost(psycopg.OperationalError):
    """The connection ended before the answer came: it is unknown what the statement did."""


class Statement(NamedTuple):
    """A statement with binary parameters and results."""

    name: bytes
    text: bytes
    types: tuple[int, ...]
    """The object identifiers of the parameters' types."""


class Connection(psycopg.Connection[TupleRow]):
    """A connection that commits each statement on its own."""

    prepares = True
    """Whether the server keeps prepared statements for this connection."""
    deadline: float
    """The time by which the thread that uses it must have its answers."""

    def __init__(self, pgconn: PGconn, row_factory: Any = tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self.made = self.used = monotonic()
        self.deadline = inf
        self._sent: set[bytes] = set()
        self._warnings: list[str] = []
        self._poll = poll()
        self._poll.register(pgconn.socket, POLLIN)
        self.add_notice_handler(listener(self._warnings))

    @classmethod
    def connect(  # type: ignore[override] # it takes what the pool is given for it
        cls, conninfo: str = "", *, tell: Callable[[Exception | None], None], prepare: bool
    ) -> Self:
        """Connect with autocommit, and call `tell` with the exception, or with None on success."""
        try:
            connection = super().connect(conninfo, autocommit=True, prepare_threshold=None)
        except (psycopg.Error, OSError) as error:
            tell(error)
            raise
        tell(None)
        connection.prepares = prepare
        return connection

    @property
    def is_stale(self) -> bool:
        """Whether it was not used lately, and the server has closed it meanwhile."""
        return monotonic() - self.used > IDLE and bool(self._poll.poll(0))

    def ask(self, statement: Statement, values: Sequence[bytes], seconds: float) -> PGresult:
        """Return what the server answers to `statement`, in `seconds` and by the deadline.

        Raises a psycopg.Error with the server's error in one line, Lost if the connection ended,
        and TimeoutError if no answer came; the connection is closed then.
        """
        formats = [BINARY] * len(values)
        self._warnings.clear()
        if not self.prepares:
            self.pgconn.send_query_params(statement.text, values, statement.types, formats, BINARY)
            return self._answer(seconds)
        if statement.name not in self._sent:
            self.pgconn.send_prepare(statement.name, statement.text, statement.types)
            self._answer(seconds)
            self._sent.add(statement.name)
        self.pgconn.send_query_prepared(statement.name, values, formats, BINARY)
        return self._answer(seconds)

    def _answer(self, seconds: float) -> PGresult:
        """Wait for the results of what was sent, and return the last."""
        until = min(monotonic() + seconds, self.deadline)
        results = self._results(until)
        for result in filter(is_failure, results):
            raise self._failure(result)
        if self._warnings:
            # The one known: a commit whose wait for a standby was cancelled is on this server only.
            raise psycopg.OperationalError(f"the server warns: {', '.join(self._warnings)}")
        self.used = monotonic()
        return results[-1]

    def _results(self, until: float) -> list[PGresult]:
        """Receive what comes first, which nearly always is all, and the rest as psycopg does.

        psycopg's loop alone takes much more processor time. Lost unless the server has said that it
        is ready again: it commits just before, and after the result.
        """
        pgconn = self.pgconn
        try:
            if not pgconn.flush() and self._poll.poll(rest(until) * 1000):
                pgconn.consume_input()
        except psycopg.OperationalError as error:
            raise Lost(one_line(error)) from None
        results: list[PGresult] = []
        while not pgconn.is_busy():  # otherwise get_result waits, for as long as it takes
            if (result := pgconn.get_result()) is None:
                return results
            results.append(result)
        try:
            return [*results, *self.wait(execute(pgconn), timeout=rest(until))]
        except Lost:
            if not any(map(is_failure, results)):  # one of which says why the connection ended
                raise
            return results

    def _failure(self, result: PGresult) -> psycopg.Error:
        """Return the error in a result, without its details, which can hold a message."""
        error = error_from_result(result)
        text = error.diag.message_primary or "the server gives no reason"
        return Lost(text) if self.closed else type(error)(text)

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait as psycopg does, but until the deadline at most, and no longer than OPERATE.

        A `timeout` is taken as it is.
        """
        seconds = timeout or rest(min(self.deadline, monotonic() + OPERATE))
        try:
            return super().wait(gen, interval, seconds)
        except psycopg.OperationalError as error:
            if self.closed:
                raise Lost(one_line(error)) from None
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self._give_up()
            raise TimeoutError("it did not answer in time") from None

    def _give_up(self) -> None:
        """Cancel the statement in the server, which would hold a place there, and close."""
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=CANCEL)
        self.close()


def listener(warnings: list[str]) -> Callable[[Diagnostic], None]:
    """Return a function that appends the server's warnings to `warnings`."""

    def hear(notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(notice.message_primary or "")

    return hear


def is_failure(result: PGresult) -> bool:
    """Return whether the server has failed."""
    return result.status == ExecStatus.FATAL_ERROR


def rest(until: float) -> float:
    """Return the seconds until that time, MOMENT at least."""
    return max(MOMENT, until - monotonic())


def one_line(error: Exception) -> str:
    """Return the text of an error without line breaks."""
    return " ".join(str(error).split())
