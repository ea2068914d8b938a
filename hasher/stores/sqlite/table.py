"""The statements on the table: its rows are a digest's 32 bytes and a message."""

from collections.abc import Iterator, Sequence

import apsw

from hasher.stores.driver import Outcome, Stored, TakenDown, Unusable
from hasher.stores.tombstone import MARK

Row = tuple[bytes, bytes]

TOMBSTONE = f"substr(message, 1, {len(MARK)}) IS X'{MARK.hex()}'"


def marked(statement: str) -> str:
    """Return `statement` with the test whether what stands under a digest is a tombstone."""
    return statement.format(tombstone=TOMBSTONE)


# CAST, since another program may have put a text where a blob belongs.
FIND = "SELECT CAST(message AS BLOB) FROM messages WHERE digest = ?"
READ = "SELECT CAST(message AS BLOB) FROM messages WHERE rowid = ?"
ADD = "INSERT INTO messages VALUES (?1, ?2) ON CONFLICT DO NOTHING"
# It says whether a tombstone stands there, which stays.
MEND = marked("""
UPDATE messages SET message = CASE WHEN {tombstone} THEN message ELSE ?2 END
WHERE digest = ?1 AND message IS NOT ?2
RETURNING digest, {tombstone}
""")
REMOVE = marked("UPDATE messages SET message = ?2 WHERE digest = ?1 AND NOT {tombstone}")
RESTORE = marked("DELETE FROM messages WHERE digest = ? AND {tombstone}")
REMOVED_OF = marked("SELECT digest FROM messages WHERE digest = ? AND {tombstone}")
REMOVED = marked("""
SELECT CAST(digest AS BLOB), CAST(message AS BLOB)
FROM messages WHERE rowid > ? AND rowid <= ? AND {tombstone}
""")
LAST = "SELECT max(rowid) FROM messages"
# In pages, since a reader that stays keeps the write-ahead log from being reused.
PAGE = """
SELECT rowid, CAST(digest AS BLOB), CAST(message AS BLOB)
FROM messages WHERE rowid > ? ORDER BY rowid LIMIT 1000
"""
INDEX_PAGE = "SELECT digest, rowid FROM messages WHERE digest > ? ORDER BY digest LIMIT 1000"

PART = 100_000  # rows among which tombstones are looked for at once
GROUP = 2000  # messages of many that are committed at once, so that others' wait is short
UNREADABLE = (apsw.CorruptError, apsw.IOError, apsw.NotADBError)


def find(connection: apsw.Connection, digest: bytes) -> bytes | None:
    """Return the message of `digest`, or None."""
    row = connection.execute(FIND, (digest,)).fetchone()
    return row[0] if row else None


def store_each(connection: apsw.Connection, rows: Sequence[Row]) -> list[Outcome | None]:
    """Store rows; return what each came to, and None for one that was taken down."""
    return [store(connection, row) for row in rows]


def store(connection: apsw.Connection, row: Row) -> Outcome | None:
    """Store a row, in place of anything else under its digest; None if that is a tombstone."""
    connection.execute(ADD, row)
    if connection.changes():
        return Outcome.NEW
    for _, removed in list(connection.execute(MEND, row)):
        return None if removed else Outcome.MENDED
    return Outcome.REPEATED


def store_all(connection: apsw.Connection, rows: Sequence[Row]) -> Stored:
    """Store rows; return how many came to each outcome. TakenDown if a tombstone stands for one."""
    before = connection.total_changes()
    connection.executemany(ADD, rows)
    new = connection.total_changes() - before
    if new == len(rows):
        return Stored(new)
    differing = list(connection.executemany(MEND, rows))
    for digest, removed in differing:
        if removed:
            raise TakenDown(digest.hex())
    return Stored(new, len(rows) - new - len(differing), len(differing))


def remove(connection: apsw.Connection, row: Row) -> Outcome:
    """Store the tombstone of a row, unless one stands there already. Overwrite what it replaces."""
    connection.pragma("secure_delete", True)  # noqa: FBT003 - SQLite's own
    try:
        connection.execute(ADD, row)
        if connection.changes():
            return Outcome.NEW
        connection.execute(REMOVE, row)
        return Outcome.MENDED if connection.changes() else Outcome.REPEATED
    finally:
        connection.pragma("secure_delete", False)  # noqa: FBT003 - SQLite's own


def restore(connection: apsw.Connection, digest: bytes) -> bool:
    """Take away the tombstone of `digest`; return whether there was one."""
    connection.execute(RESTORE, (digest,))
    return bool(connection.changes())


def removed_of(connection: apsw.Connection, digests: Sequence[str]) -> list[str]:
    """Return those of `digests` that have a tombstone."""
    keys = [(bytes.fromhex(digest),) for digest in sorted(digests)]
    return [digest.hex() for (digest,) in connection.executemany(REMOVED_OF, keys)]


def removed(connection: apsw.Connection) -> Iterator[tuple[str, bytes]]:
    """Yield every pair of digest and tombstone."""
    last = connection.execute(LAST).get or 0
    for start in range(0, last, PART):
        for digest, tombstone in list(connection.execute(REMOVED, (start, start + PART))):
            yield digest.hex(), tombstone


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
