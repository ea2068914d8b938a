"""The statements that store and find messages."""

import os
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf
from struct import Struct
from time import monotonic
from typing import ClassVar

import psycopg
from psycopg.errors import (
    DataCorrupted,
    DiskFull,
    DuplicatePreparedStatement,
    InsufficientPrivilege,
    InvalidSqlStatementName,
    UndefinedTable,
)
from psycopg.pq.abc import PGresult

from hasher.stores.breaker import CircuitBreaker
from hasher.stores.driver import (
    DamagedMessage,
    Driver,
    Outcome,
    Stored,
    StoreFull,
    TakenDown,
    Unusable,
)
from hasher.stores.group_commit import GroupCommit
from hasher.stores.postgresql.connection import OPERATE, Statement
from hasher.stores.postgresql.pool import LIMIT, SPEED, Connections
from hasher.stores.postgresql.schema import Table
from hasher.stores.tombstone import LONGEST, MARK

BYTEA, BYTEAS = 17, 1001  # object identifiers of types, as the server's pg_type has them
FIND = "SELECT message FROM {table} WHERE digest = $1"
# The length first: what is longer may have lost the pieces in which it is stored.
IS_TOMBSTONE = f"""
CASE WHEN octet_length(kept.message) <= {LONGEST}
THEN substring(kept.message FOR {len(MARK)}) = '\\x{MARK.hex()}'::bytea ELSE false END
""".strip()
# A repeat only reads. With standbys it takes the row's lock as well, so that its commit waits for
# them: the first commit may have been acknowledged by nobody. A tombstone is found under the lock
# too, even if it is newer than the statement; it is replaced by itself, and null is returned.
PUT = """
INSERT INTO {table} AS kept (digest, message)
SELECT $1, $2 WHERE NOT EXISTS (
    SELECT FROM {table} WHERE digest = $1 AND message = $2
    AND current_setting('synchronous_standby_names', true) = ''
)
ON CONFLICT (digest) DO UPDATE
SET message = CASE WHEN {tombstone} THEN kept.message ELSE excluded.message END
WHERE kept.message IS DISTINCT FROM excluded.message
RETURNING CASE WHEN {tombstone} THEN null ELSE xmax = 0 END
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
ON CONFLICT (digest) DO UPDATE
SET message = CASE WHEN {tombstone} THEN kept.message ELSE excluded.message END
WHERE kept.message IS DISTINCT FROM excluded.message
RETURNING digest, CASE WHEN {tombstone} THEN null ELSE xmax = 0 END
"""
# For a tombstone, and for a message in place of one that not even a comparison can read.
REPLACE = """
INSERT INTO {table} AS kept (digest, message) VALUES ($1, $2)
ON CONFLICT (digest) DO UPDATE SET message = excluded.message WHERE NOT {tombstone}
RETURNING xmax = 0
"""
RESTORE = "DELETE FROM {table} AS kept WHERE digest = $1 AND {tombstone} RETURNING true"
REMOVED_OF = "SELECT digest FROM {table} AS kept WHERE digest = ANY ($1) AND {tombstone}"
REMOVED = """
SELECT digest, message FROM {table} AS kept
WHERE digest >= $1 AND digest < $2 AND {tombstone}
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

OUTCOMES = {b"\1": Outcome.NEW, b"\0": Outcome.MENDED, b"": None}  # None: it was taken down

# The ranges of digests, by their first byte.
PARTS = list(pairwise([b"", *(bytes([first]) for first in range(1, 256)), b"\xff" * 33]))

Row = tuple[bytes, bytes]  # the digest's 32 bytes, and the message


class PostgreSQLDriver(Driver):
    """Messages in a table, by the digest's 32 bytes.

    One of the threads that wait to write stores the messages of all of them in one statement.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, OSError)
    blocking: ClassVar[frozenset[str]] = frozenset(
        {"get", "put", "put_many", "remove", "restore", "removed_of", "check"}
    )

    _group: GroupCommit[Row, Outcome | None]

    def __init__(self, conninfo: str, table: Table, *, threads: int, prepare: bool) -> None:
        self._table = table
        self._connections = Connections(conninfo, size=threads, prepare=prepare, setup=table.make)
        self._find = self._statement(b"find", FIND, BYTEA)
        self._put = self._statement(b"put", PUT, BYTEA, BYTEA)
        self._put_many = self._statement(b"put_many", PUT_MANY, BYTEAS, BYTEAS)
        self._replace = self._statement(b"replace", REPLACE, BYTEA, BYTEA)
        self._restore = self._statement(b"restore", RESTORE, BYTEA)
        self._removed_of = self._statement(b"removed_of", REMOVED_OF, BYTEAS)
        self._removed = self._statement(b"removed", REMOVED, BYTEA, BYTEA)
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
        # A write may wait for a standby or a lock: reads go on meanwhile.
        self._reads, self._writes = CircuitBreaker(), CircuitBreaker()

    def _statement(self, name: bytes, text: str, *types: int) -> Statement:
        text = text.format(table=self._table.quoted, tombstone=IS_TOMBSTONE)
        return Statement(name, text.encode(), types)

    def prepare(self) -> bool:
        """Make the table if it is missing; return whether it is there.

        A server that is down is left for later. Unusable if the table must not be used.
        """
        try:
            self.check()
        except Unusable:
            self.close()
            raise
        except self.errors:
            return False
        return True

    def put(self, digest: str, message: bytes) -> Outcome:
        row = bytes.fromhex(digest), message
        deadline = monotonic() + LIMIT + len(message) / SPEED
        try:
            outcome = self._writes.call(self._group.write, row)
        except (StoreFull, DataCorrupted):  # of which another thread's message may be the cause
            outcome = self._writes.call(self._put_alone, *row, deadline)
        if outcome is None:
            raise TakenDown(digest)
        return outcome

    def _commit(self, rows: Sequence[Row], deadline: float) -> list[Outcome | None]:
        """Store the rows of several threads in one statement; None for each that was taken down."""
        # For the statement, after the wait for the turn: as long as for the largest alone.
        deadline += OPERATE + max(len(message) for _, message in rows) / SPEED
        if len(rows) == 1:
            return [self._put_alone(*rows[0], deadline)]
        written = self._put_rows(sorted(dict(rows).items()), deadline)
        outcomes = []
        for key, _ in rows:
            outcomes.append(written.get(key, Outcome.REPEATED))
            if outcomes[-1]:  # if another thread brings the same message, it repeats it
                written[key] = Outcome.REPEATED
        return outcomes

    def _put_alone(self, key: bytes, message: bytes, deadline: float = inf) -> Outcome | None:
        try:
            answer = self._ask(self._put, key, message, deadline=deadline)
        except DataCorrupted:
            answer = self._ask(self._replace, key, message, deadline=deadline)
            return outcome_of(answer, otherwise=None)
        return outcome_of(answer, otherwise=Outcome.REPEATED)

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        counts = Counter[Outcome]()
        for rows in grouped(messages):
            outcomes = self._writes.call(self._put_group, rows)
            for outcome, (key, _) in zip(outcomes, rows, strict=True):
                if outcome is None:
                    raise TakenDown(key.hex())
                counts[outcome] += 1
        return Stored(*(counts[outcome] for outcome in Outcome))

    def _put_group(self, rows: Sequence[Row]) -> list[Outcome | None]:
        try:
            written = self._put_rows(rows)
        except DataCorrupted:
            return [self._put_alone(*row) for row in rows]
        return [written.get(key, Outcome.REPEATED) for key, _ in rows]

    def _put_rows(self, rows: Sequence[Row], deadline: float = inf) -> dict[bytes, Outcome | None]:
        """Store rows of distinct digests, in their order; return the outcomes of those written."""
        keys, messages = zip(*rows, strict=True)
        answer = self._ask(self._put_many, array(keys), array(messages), deadline=deadline)
        return {key: OUTCOMES[new] for key, new in rows_of(answer)}

    def remove(self, digest: str, tombstone: bytes) -> Outcome:
        answer = self._writes.call(self._ask, self._replace, bytes.fromhex(digest), tombstone)
        return outcome_of(answer, otherwise=None) or Outcome.REPEATED

    def restore(self, digest: str) -> bool:
        try:
            answer = self._writes.call(self._ask, self._restore, bytes.fromhex(digest))
        except InsufficientPrivilege:
            name = self._table.name
            raise Unusable(f"the role may not restore: GRANT DELETE ON {name}") from None
        return bool(answer.ntuples)

    def removed_of(self, digests: Sequence[str]) -> list[str]:
        keys = [bytes.fromhex(digest) for digest in digests]
        parts = (keys[start : start + GROUP] for start in range(0, len(keys), GROUP))
        answers = (self._read(self._removed_of, array(part)) for part in parts)
        return [key.hex() for answer in answers for (key,) in rows_of(answer)]

    def removed(self) -> Iterator[tuple[str, bytes]]:
        for part in PARTS:
            for key, tombstone in rows_of(self._read(self._removed, *part, seconds=READ)):
                yield key.hex(), tombstone

    def get(self, digest: str) -> bytes | None:
        try:
            answer = self._read(self._find, bytes.fromhex(digest))
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
            page = self._read(self._page, last, seconds=READ)
        except DataCorrupted:
            keys = self._read(self._keys, last, seconds=READ)
            return [(key, self._readable(key)) for (key,) in rows_of(keys)]
        return [(key, message) for key, message in rows_of(page)]

    def _readable(self, key: bytes) -> bytes | None:
        try:
            return self.get(key.hex())
        except DamagedMessage:
            return None

    def count(self) -> int:
        return sum(integer(self._read(self._count, *part, seconds=READ)) for part in PARTS)

    def check(self) -> str | None:
        remark = self._reads.call(self._connections.use, self._table.require)
        self._read(self._find, b"")
        return remark

    def close(self) -> None:
        self._connections.close()

    def _read(self, statement: Statement, *values: bytes, **limits: float) -> PGresult:
        return self._reads.call(self._ask, statement, *values, **limits)

    def _ask(self, statement: Statement, *values: bytes, **limits: float) -> PGresult:
        """Return the server's answer, or raise the driver's exception for its error."""
        try:
            return self._connections.ask(statement, *values, **limits)
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


def outcome_of(answer: PGresult, otherwise: Outcome | None) -> Outcome | None:
    """Return what the one row of an answer says, or `otherwise` if there is none."""
    return OUTCOMES[answer.get_value(0, 0) or b""] if answer.ntuples else otherwise


def rows_of(answer: PGresult) -> Iterator[tuple[bytes, ...]]:
    """Yield the rows of an answer; an empty field may be null."""
    columns = range(answer.nfields)
    for row in range(answer.ntuples):
        yield tuple(answer.get_value(row, column) or b"" for column in columns)


def integer(answer: PGresult) -> int:
    """Return the number in the first row."""
    return int.from_bytes(answer.get_value(0, 0) or b"", "big")
