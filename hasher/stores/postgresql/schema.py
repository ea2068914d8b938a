"""The table of messages: how it is made, and whether it may be used as it is."""

from typing import NamedTuple

from psycopg.errors import InsufficientPrivilege, InvalidSchemaName
from psycopg.rows import class_row

from hasher.stores.driver import Unusable
from hasher.stores.postgresql.connection import Connection

VERSION = 1
MARK = "hasher schema "  # the table's comment is this and its version
LOCK = 0x68617368  # "hash": the advisory lock under which the table is made

FIND = """
SELECT obj_description(found, 'pg_class') AS comment, persistence, may,
       current_setting('fsync', true) AS fsync,
       current_setting('synchronous_commit', true) AS synchronous,
       current_setting('transaction_read_only') = 'on' AS read_only
FROM (SELECT to_regclass(%(name)s) AS found) AS named
LEFT JOIN LATERAL (
    SELECT relpersistence::text AS persistence,
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
    may: bool | None
    fsync: str | None
    synchronous: str | None
    read_only: bool


class Table:
    """A table by its name, `name` or `schema.name`, made at first use if `create`."""

    def __init__(self, name: str, *, create: bool = False) -> None:
        self.name = name
        self.quoted = ".".join(f'"{part}"' for part in name.split("."))
        self._create = create

    def require(self, connection: Connection) -> str | None:
        """Return what an operator should know, or None. Unusable if the table must not be used."""
        return self._judge(self._find(connection))

    def make(self, connection: Connection) -> None:
        """Make the table if there is none. Unusable if it must not be used."""
        found = self._find(connection)
        if self._create and found.persistence is None and not found.read_only:
            self._make(connection)
            found = self._find(connection)
        self._judge(found)

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
        fault = server_fault(found) or self._fault(found)
        if fault:
            raise Unusable(fault)
        if found.fsync is None:
            return "the server does not let hasher see whether it syncs its disk (fsync)"
        if found.synchronous == "off":
            return "with synchronous=off a power cut can lose the last messages"
        return None

    def _fault(self, found: Found) -> str | None:
        """Return what is wrong with the table and what to do, or None."""
        if found.persistence is None:
            return f"there is no table {self.name}: flask store schema makes it"
        mark, _, version = (found.comment or "").rpartition(" ")
        if f"{mark} " != MARK:
            return f"the table {self.name} is another program's: choose another with ?table="
        if version != str(VERSION):
            return (
                f"the table {self.name} has schema {version}, and this hasher knows {VERSION}: "
                "use the hasher that made it, and flask store copy"
            )
        if found.persistence == "u":
            return f"the table {self.name} is emptied by a crash: ALTER TABLE ... SET LOGGED"
        if not found.may:
            return f"the role may not use it: GRANT SELECT, INSERT, UPDATE ON {self.name}"
        return None


def server_fault(found: Found) -> str | None:
    """Return what is wrong with the server and what to do, or None."""
    if found.read_only:
        return "the server takes no messages (a standby, or read-only): name its primary"
    if found.fsync == "off":
        return "the server does not sync its disk, and can lose everything: set fsync=on"
    return None
