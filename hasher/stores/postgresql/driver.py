"""The statements that store and find messages."""

import os
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from struct import Struct
from typing import ClassVar

import psycopg
from psycopg.errors import (
    DataCorrupted,
    DiskFull,
    DuplicatePreparedStatement,
    InvalidSqlStatementName,
    UndefinedTable,
)
from psycopg.pq.abc import PGresult

from hasher.stores.driver import DamagedMessage, Driver, Outcome, Stored, StoreFull, Unusable
from hasher.stores.group_commit import GroupCommit
from hasher.stores.postgresql.connection import OPERATE, Statement
from hasher.stores.postgresql.pool import Connections
from hasher.stores.postgresql.schema import Table

BYTEA, BYTEAS = 17, 1001  # object identifiers of types, as the server's pg_type has them
FIND = "SELECT message FROM {table} WHERE digest = $1"
# A repeat only reads. With standbys it takes the row's lock as well, so that its commit waits for
# them: the first commit may have been acknowledged by nobody.
PUT = """
INSERT INTO {table} AS kept (digest, message)
SELECT $1, $2 WHERE NOT EXISTS (
    SELECT FROM {table} WHERE digest = $1 AND message = $2
    AND current_setting('synchronous_standby_names', true) = ''
)
ON CONFLICT (digest) DO UPDATE SET message = excluded.message
WHERE kept.message IS DISTINCT FROM excluded.message
RETURNING xmax = 0
"""
# A subquery for each row, which is never planned as a join that reads the whole table.
PUT_MANY = """
INSERT INTO {table} AS kept (digest, message)
SELECT digest, message FROM unnest($1, $2) AS given (digest, message)
WHERE (
    SELECT stored.message = given.message
    AND current_setting('synchronous_standby_names', true) = ''
    FROM {table} AS stored WHERE stored.digest = given.digest
) IS NOT TRUE
ON CONFLICT (digest) DO UPDATE SET message = excluded.message
WHERE kept.message IS DISTINCT FROM excluded.message
RETURNING digest, xmax = 0
"""
# For a stored message that not even a comparison can read.
REPLACE = """
INSERT INTO {table} (digest, message) VALUES ($1, $2)
ON CONFLICT (digest) DO UPDATE SET message = excluded.message
"""
PAGE = """
SELECT digest, message FROM (
    SELECT digest, message,
           sum(octet_length(message)) OVER (ORDER BY digest) - octet_length(message) AS before
    FROM (SELECT * FROM {table} WHERE digest > $1 ORDER BY digest LIMIT 1000) AS next
) AS page WHERE before < 4194304
"""
KEYS = "SELECT digest FROM {table} WHERE digest > $1 ORDER BY digest LIMIT 100"
COUNT = "SELECT count(*) FROM {table} WHERE digest >= $1 AND digest < $2"

GROUP, GROUP_BYTES = 2000, 4 * 1024 * 1024  # messages put in one statement; either ends a group
PATIENCE = 0.8  # seconds for which a thread waits for those that write before it
READ = 1.4  # seconds that a page, or a part of the count, may take

ARRAY = Struct(">iiiii")  # dimensions, whether there are nulls, type, length, first subscript
LENGTH = Struct(">i")

NEW_OR_MENDED = {b"\1": Outcome.NEW, b"\0": Outcome.MENDED}

Row = tuple[bytes, bytes]  # the digest's 32 bytes, and the message


class PostgreSQLDriver(Driver):
    """Messages in a table, by the digest's 32 bytes.

    One of the threads that wait to write stores the messages of all of them in one statement.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, OSError)
    blocking: ClassVar[frozenset[str]] = frozenset({"get", "put", "put_many", "check"})

    _group: GroupCommit[Row, Outcome]

    def __init__(self, conninfo: str, table: Table, *, threads: int, prepare: bool) -> None:
        self._table = table
        self._connections = Connections(conninfo, size=threads, prepare=prepare, setup=table.make)
        self._find = self._statement(b"find", FIND, BYTEA)
        self._put = self._statement(b"put", PUT, BYTEA, BYTEA, writes=True)
        self._put_many = self._statement(b"put_many", PUT_MANY, BYTEAS, BYTEAS, writes=True)
        self._replace = self._statement(b"replace", REPLACE, BYTEA, BYTEA, writes=True)
        self._page = self._statement(b"page", PAGE, BYTEA)
        self._keys = self._statement(b"keys", KEYS, BYTEA)
        self._count = self._statement(b"count", COUNT, BYTEA, BYTEA)
        self._start()
        ours = weakref.WeakMethod(self._start)
        os.register_at_fork(after_in_child=lambda: (start := ours()) and start())

    def _start(self) -> None:
        """Begin with no connection and no writer, after a fork too."""
        self._connections.forget()
        self._group = GroupCommit(self._commit, PATIENCE)

    def _statement(self, name: bytes, text: str, *types: int, writes: bool = False) -> Statement:
        return Statement(name, text.format(table=self._table.quoted).encode(), types, writes)

    def prepare(self) -> None:
        """Make the table if it is missing. A server that is down is left for later."""
        with suppress(*self.errors), self._connections.borrowed():
            return

    def put(self, digest: str, message: bytes) -> Outcome:
        row = bytes.fromhex(digest), message
        try:
            return self._group.write(row)
        except (StoreFull, DataCorrupted):  # of which another thread's message may be the cause
            return self._put_alone(*row)

    def _commit(self, rows: Sequence[Row], _deadline: float) -> list[Outcome]:
        """Store the rows of several threads in one statement."""
        if len(rows) == 1:
            return [self._put_alone(*rows[0])]
        written = self._put_rows(sorted(dict(rows).items()))
        # If two threads bring the same message, the second repeats it.
        return [written.pop(key, Outcome.REPEATED) for key, _ in rows]

    def _put_alone(self, key: bytes, message: bytes) -> Outcome:
        try:
            answer = self._ask(self._put, key, message)
        except DataCorrupted:
            self._ask(self._replace, key, message)
            return Outcome.MENDED
        if not answer.ntuples:
            return Outcome.REPEATED
        return NEW_OR_MENDED[answer.get_value(0, 0) or b""]

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        outcomes = Counter[Outcome]()
        for rows in grouped(messages):
            outcomes.update(self._put_group(rows))
        return Stored(*(outcomes[outcome] for outcome in Outcome))

    def _put_group(self, rows: Sequence[Row]) -> list[Outcome]:
        try:
            written = self._put_rows(rows)
        except DataCorrupted:
            return [self._put_alone(*row) for row in rows]
        return [written.get(key, Outcome.REPEATED) for key, _ in rows]

    def _put_rows(self, rows: Sequence[Row]) -> dict[bytes, Outcome]:
        """Store rows of distinct digests, in their order; return the outcomes of those written."""
        keys, messages = zip(*rows, strict=True)
        answer = self._ask(self._put_many, array(keys), array(messages))
        return {key: NEW_OR_MENDED[new] for key, new in rows_of(answer)}

    def get(self, digest: str) -> bytes | None:
        try:
            answer = self._ask(self._find, bytes.fromhex(digest))
        except DataCorrupted:
            raise DamagedMessage(digest) from None
        return answer.get_value(0, 0) if answer.ntuples else None

    def items(self) -> Iterator[tuple[str, bytes | None]]:
        # Page by page, since a long transaction would keep vacuum from its work.
        last = b""
        while page := self._read_page(last):
            last = page[-1][0]
            yield from ((key.hex(), message) for key, message in page)

    def _read_page(self, last: bytes) -> list[tuple[bytes, bytes | None]]:
        """Return the rows after `last`; None takes the place of a message that cannot be read."""
        try:
            page = self._ask(self._page, last, seconds=READ)
        except DataCorrupted:
            keys = self._ask(self._keys, last, seconds=READ)
            return [(key, self._readable(key)) for (key,) in rows_of(keys)]
        return [(key, message) for key, message in rows_of(page)]

    def _readable(self, key: bytes) -> bytes | None:
        try:
            return self.get(key.hex())
        except DamagedMessage:
            return None

    def count(self) -> int:
        bounds = [*(bytes([first]) for first in range(256)), b"\xff" * 33]
        bounds[0] = b""
        parts = pairwise(bounds)
        return sum(integer(self._ask(self._count, *part, seconds=READ)) for part in parts)

    def check(self) -> str | None:
        with self._connections.borrowed() as connection:
            remark = self._table.require(connection)
        self._ask(self._find, b"")
        return remark

    def close(self) -> None:
        self._connections.close()

    def _ask(self, statement: Statement, *values: bytes, seconds: float = OPERATE) -> PGresult:
        """Return the server's answer, or raise the driver's exception for its error."""
        try:
            return self._connections.ask(statement, *values, seconds=seconds)
        except DiskFull as error:
            raise StoreFull from error
        except UndefinedTable:
            raise Unusable(f"there is no table {self._table.name} any more") from None
        except (DuplicatePreparedStatement, InvalidSqlStatementName):
            raise Unusable(
                "the server forgets prepared statements, as PgBouncer does in transaction mode: "
                "add ?prepare=off"
            ) from None


def grouped(messages: Sequence[tuple[str, bytes]]) -> Iterator[list[Row]]:
    """Yield rows in groups for one statement each.

    All are in one order, so that several statements at once cannot deadlock.
    """
    group: list[Row] = []
    size = 0
    for digest, message in sorted(messages):
        group.append((bytes.fromhex(digest), message))
        size += len(message)
        if len(group) == GROUP or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def array(values: Sequence[bytes]) -> bytes:
    """Return a `bytea[]` in the server's binary form: ten times as fast as psycopg's."""
    pack = LENGTH.pack
    items = b"".join([pack(len(value)) + value for value in values])
    return ARRAY.pack(1, 0, BYTEA, len(values), 1) + items


def rows_of(answer: PGresult) -> Iterator[tuple[bytes, ...]]:
    """Yield the rows of an answer in which nothing is null."""
    columns = range(answer.nfields)
    for row in range(answer.ntuples):
        yield tuple(answer.get_value(row, column) or b"" for column in columns)


def integer(answer: PGresult) -> int:
    """Return the number in the first row."""
    return int.from_bytes(answer.get_value(0, 0) or b"", "big")
