"""The statements on the table: its rows are a digest's 32 bytes and a message."""

from collections.abc import Iterator, Sequence

import apsw

from hasher.stores.driver import Outcome, Stored, Unusable

Row = tuple[bytes, bytes]

# CAST, since another program may have put a text where a blob belongs.
FIND = "SELECT CAST(message AS BLOB) FROM messages WHERE digest = ?"
READ = "SELECT CAST(message AS BLOB) FROM messages WHERE rowid = ?"
ADD = "INSERT INTO messages VALUES (?1, ?2) ON CONFLICT DO NOTHING"
MEND = "UPDATE messages SET message = ?2 WHERE digest = ?1 AND message IS NOT ?2"
# In pages, since a reader that stays keeps the write-ahead log from being reused.
PAGE = """
SELECT rowid, CAST(digest AS BLOB), CAST(message AS BLOB)
FROM messages WHERE rowid > ? ORDER BY rowid LIMIT 1000
"""
INDEX_PAGE = "SELECT digest, rowid FROM messages WHERE digest > ? ORDER BY digest LIMIT 1000"

GROUP = 2000  # messages of many that are committed at once, so that others' wait is short
UNREADABLE = (apsw.CorruptError, apsw.IOError, apsw.NotADBError)


def find(connection: apsw.Connection, digest: bytes) -> bytes | None:
    """Return the message of `digest`, or None."""
    row = connection.execute(FIND, (digest,)).fetchone()
    return row[0] if row else None


def store_each(connection: apsw.Connection, rows: Sequence[Row]) -> list[Outcome]:
    """Store rows; return what each came to."""
    return [store(connection, row) for row in rows]


def store(connection: apsw.Connection, row: Row) -> Outcome:
    """Store a row, in place of anything else under its digest."""
    connection.execute(ADD, row)
    if connection.changes():
        return Outcome.NEW
    connection.execute(MEND, row)
    return Outcome.MENDED if connection.changes() else Outcome.REPEATED


def store_all(connection: apsw.Connection, rows: Sequence[Row]) -> Stored:
    """Store rows; return how many came to each outcome."""
    before = connection.total_changes()
    connection.executemany(ADD, rows)
    new = connection.total_changes() - before
    if new == len(rows):
        return Stored(new)
    connection.executemany(MEND, rows)
    mended = connection.total_changes() - before - new
    return Stored(new, len(rows) - new - mended, mended)


def neighbours(messages: Sequence[tuple[str, bytes]]) -> Iterator[list[Row]]:
    """Yield rows for `messages` in groups of GROUP, each next to each other in the index.

    So a group changes few pages of it: four times as fast in a table of a million messages.
    """
    rows = sorted((bytes.fromhex(digest), message) for digest, message in messages)
    for start in range(0, len(rows), GROUP):
        yield rows[start : start + GROUP]


def walk(connection: apsw.Connection) -> Iterator[tuple[str, bytes | None]]:
    """Yield every pair of digest and message; None for a message that cannot be read."""
    last, found = 0, True
    try:
        while found:
            found = False
            for row, digest, message in connection.execute(PAGE, (last,)):
                last, found = row, True
                yield digest.hex(), message
    except UNREADABLE:
        yield from walk_index(connection, last)


def walk_index(connection: apsw.Connection, last: int) -> Iterator[tuple[str, bytes | None]]:
    """Yield the pairs whose row comes after `last`, in the order of their digests.

    The index leads past the pages of the table that cannot be read. Unusable at the end if some of
    the index cannot be read either.
    """
    start: bytes | None = b""
    whole = True
    while start is not None:
        digest = start
        try:
            for digest, row in connection.execute(INDEX_PAGE, (start,)):
                if row > last:
                    yield digest.hex(), read(connection, row)
            start = digest if digest != start else None
        except UNREADABLE:
            whole, start = False, behind(digest)
    if not whole:
        raise Unusable(
            "The file is damaged, and the digests of some messages cannot be read: restore it from "
            "a backup"
        )


def read(connection: apsw.Connection, row: int) -> bytes | None:
    """Return the message of a row; None if it cannot be read."""
    try:
        message: bytes | None = connection.execute(READ, (row,)).get
    except UNREADABLE:
        return None
    return message


def behind(digest: bytes) -> bytes | None:
    """Return where the index may be readable again: after all that begin with the same two bytes.

    A page of it has some hundred digests, so this passes over few that are whole.
    """
    first = int.from_bytes(digest[:2].ljust(2, b"\0"))
    return (first + 1).to_bytes(2) if first < 0xFFFF else None
