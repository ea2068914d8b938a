"""The schema of the file: one table of messages, and the marks that it is hasher's."""

from pathlib import Path, PurePath

import apsw

from hasher.stores.driver import Unusable

BUSY = 100  # milliseconds for which SQLite waits for a lock, before it is asked again
SCHEMA = 1
APPLICATION = 0x68617368  # "hash", in the header of the file (https://sqlite.org/fileformat.html)
COUNT = "SELECT count(*) FROM sqlite_schema"
# A table with an index, since messages within the index would make it deep and slow to search.
CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE messages (digest BLOB PRIMARY KEY NOT NULL, message BLOB NOT NULL);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""


def connect(path: str, flags: int = apsw.SQLITE_OPEN_READWRITE) -> apsw.Connection:
    """Return a connection that waits for locks."""
    connection = apsw.Connection(path, flags=flags)
    connection.set_busy_timeout(BUSY)
    return connection


def exists(path: str) -> bool:
    """Return whether there is a database at `path` with anything in it."""
    file = Path(path)
    if not file.exists() or not file.stat().st_size:
        return False
    connection = connect(path)
    try:
        return bool(connection.execute(COUNT).get)
    finally:
        connection.close()


def create(path: str) -> None:
    """Make the file and the table if they do not exist. Only one process at a time may call it."""
    connection = connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        connection.pragma("journal_mode", "wal")
        if not connection.execute(COUNT).get:
            connection.execute(CREATE)
    finally:
        connection.close()


def require(connection: apsw.Connection) -> None:
    """Raise Unusable if the database is not hasher's, or has another version of the schema."""
    name = PurePath(connection.filename).name
    if connection.pragma("application_id") != APPLICATION:
        raise Unusable(f"{name} is a database of another program")
    version = connection.pragma("user_version")
    if version != SCHEMA:
        raise Unusable(
            f"{name} has schema {version}, and this hasher knows {SCHEMA}: use the "
            "hasher that wrote it, and flask store copy"
        )
