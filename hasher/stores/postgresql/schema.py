"""The table of messages: how it is made, and whether it may be used as it is."""

from collections.abc import Iterator
from typing import NamedTuple

from psycopg.errors import InsufficientPrivilege, InvalidSchemaName
from psycopg.rows import class_row

from hasher.stores.driver import Unusable
from hasher.stores.postgresql.connection import Connection

VERSION = 1
MARK = "hasher schema "  # the table's comment is this and its version
LOCK = 0x68617368  # "hash": the advisory lock under which the table is made

FIND = """
SELECT obj_description(found, 'pg_class') AS comment, persistence, whole, may,
       current_setting('fsync', true) AS fsync,
       current_setting('synchronous_commit', true) AS synchronous,
       current_setting('transaction_read_only') = 'on' AS read_only,
       current_setting('client_min_messages') = 'error' AS silent
FROM (SELECT to_regclass(%(name)s) AS found) AS named
LEFT JOIN LATERAL (
    SELECT relpersistence::text AS persistence,
           EXISTS (
               SELECT FROM pg_attribute AS kept JOIN pg_attribute AS key USING (attrelid)
               JOIN pg_index ON indrelid = attrelid AND indkey::text = key.attnum::text
               WHERE attrelid = oid AND indisunique AND indisvalid AND indpred IS NULL
               AND key.attname = 'digest' AND key.atttypid = 'bytea'::regtype
               AND kept.attname = 'message' AND kept.atttypid = 'bytea'::regtype
           ) AS whole,
           has_table_privilege(oid, 'SELECT')
           AND has_table_privilege(oid, 'INSERT')
           AND has_table_privilege(oid, 'UPDATE') AS may
    FROM pg_class WHERE oid = found
) AS kept ON true
"""
CREATE = """
CREATE TABLE {name} (digest bytea PRIMARY KEY, message bytea NOT NULL);
ALTER TABLE {name} ALTER COLUMN message SET STORAGE EXTERNAL;
COMMENT ON TABLE {name} IS '{mark}{version}'
"""


class Found(NamedTuple):
    """What the server says of the table and of itself; None for what it does not say."""

    comment: str | None
    persistence: str | None
    whole: bool | None
    may: bool | None
    fsync: str | None
    synchronous: str | None
    read_only: bool
    silent: bool


class Table:
    """A table by its name, `name` or `schema.name`, made at first use if `create`.

    Once it was `found` it is not made again: what was stored would seem never to have been.
    """

    def __init__(self, name: str, *, create: bool = False, found: bool = False) -> None:
        self.name = name
        self.quoted = ".".join(f'"{part}"' for part in name.split("."))
        self._create, self._found = create, found

    def require(self, connection: Connection) -> str | None:
        """Return what an operator should know, or None. Unusable if the table must not be used."""
        return self._judge(self._find(connection))

    def make(self, connection: Connection) -> None:
        """Make the table if there is none. Unusable if it must not be used."""
        if self._found:  # by the process that this one was forked from
            return
        found = self._find(connection)
        if self._create and found.persistence is None and not found.read_only:
            self._make(connection)
            found = self._find(connection)
        self._judge(found)
        self._found = True

    def _find(self, connection: Connection) -> Found:
        with connection.cursor(row_factory=class_row(Found)) as cursor:
            row = cursor.execute(FIND, {"name": self.quoted}).fetchone()
        assert row is not None  # noqa: S101 - a SELECT from one row has one
        return row

    def _make(self, connection: Connection) -> None:
        """Make the table, unless another process has made it meanwhile."""
        text = CREATE.format(name=self.quoted, mark=MARK, version=VERSION)
        try:
            with connection.transaction():
                connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
                if self._find(connection).persistence is None:
                    connection.execute(text)
        except (InsufficientPrivilege, InvalidSchemaName) as error:
            raise Unusable(
                f"the table {self.name} is missing, and cannot be made here "
                f"({error.diag.message_primary}): run flask store schema as a role that may"
            ) from None

    def _judge(self, found: Found) -> str | None:
        """Return what an operator should know. Unusable if the table must not be used."""
        for fault in self._faults(found):
            raise Unusable(fault)
        if found.fsync is None:
            return "the server does not let hasher see whether it syncs its disk (fsync)"
        if found.synchronous == "off":
            return "with synchronous=off a power cut can lose the last messages"
        return None

    def _faults(self, found: Found) -> Iterator[str]:
        """Yield what is wrong and what to do, the most important first."""
        if found.read_only:
            yield "the server takes no messages (a standby, or read-only): name its primary"
        if found.silent:
            yield "the server gives no warnings (client_min_messages=error): set it to warning"
        if found.fsync == "off":
            yield "the server does not sync its disk, and can lose everything: set fsync=on"
        if found.persistence is None:
            yield f"there is no table {self.name}: flask store schema makes it"
        mark, _, version = (found.comment or "").rpartition(" ")
        if f"{mark} " != MARK:
            yield f"the table {self.name} is another program's: choose another with ?table="
        if version != str(VERSION):
            yield (
                f"the table {self.name} has schema {version}, and this hasher knows {VERSION}: "
                "use the hasher that made it, and flask store copy"
            )
        if found.persistence == "u":
            yield f"the table {self.name} is emptied by a crash: ALTER TABLE ... SET LOGGED"
        if not found.whole:
            yield (
                f"the table {self.name} has lost what hasher made (digest bytea PRIMARY KEY, "
                "message bytea): mend it, or restore a backup"
            )
        if not found.may:
            yield f"the role may not use it: GRANT SELECT, INSERT, UPDATE ON {self.name}"
