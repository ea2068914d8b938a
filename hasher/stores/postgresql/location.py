"""The location that a `postgresql://` URL names."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

import psycopg
from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo

from hasher.stores.driver import DEFAULT, Location, Resources
from hasher.stores.postgresql.driver import PostgreSQLDriver
from hasher.stores.postgresql.schema import Table
from hasher.stores.urls import parameters, split_url

FORM = "postgresql://[user[:password]@]host[:port][,host[:port]...]/database"
TABLE = re.compile(r"([a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,62}")
KNOWN = {
    "table": None,
    "synchronous": ("remote_apply", "on", "local", "off"),
    "prepare": ("on", "off"),
    "target_session_attrs": ("any", "read-write", "primary"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslrootcert": None,
    "options": None,
}
# A plan is made once for each statement of a connection, and must be right for a table of any size.
PLAN = "-c enable_seqscan=off -c plan_cache_mode=force_generic_plan"
# Warnings tell of a commit that a standby lacks. The last of several options counts.
WARN = "-c client_min_messages=warning"

STARTS: dict["PostgreSQLLocation", int] = {}
"""The process that has found the table of a location: this one, or the one it was forked from."""


@dataclass(frozen=True)
class PostgreSQLLocation(Location):
    """A table in a database, on the first of some servers that takes writes."""

    conninfo: str = field(repr=False)
    """The connection string for libpq, with the password."""
    table: str
    prepare: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        split = split_url(url)
        query = parameters(split, **KNOWN)
        table = query.pop("table", "hasher_messages")
        if not TABLE.fullmatch(table):
            raise ValueError("must have table as [schema.]name, of a-z, 0-9 and _")
        prepare = query.pop("prepare", "on") == "on"
        query["options"] = options_of(query, prepare=prepare)
        conninfo = conninfo_of({**address_of(split), **query})
        return cls(url, conninfo, table, prepare)

    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> PostgreSQLDriver:
        # A worker does not make what its master has found: it was dropped since.
        inherited = STARTS.get(self, os.getpid()) != os.getpid()
        driver = PostgreSQLDriver(
            self.conninfo,
            Table(self.table, create=create, found=inherited),
            threads=resources.threads,
            prepare=self.prepare,
        )
        if not inherited and driver.prepare():
            STARTS[self] = os.getpid()
        return driver

    @contextmanager
    def scratch(self) -> Iterator[Location]:
        schema = "".join(self.table.rpartition(".")[:2])
        place = replace(self, table=f"{schema}hasher_scratch_{token_hex(8)}")
        try:
            yield place
        finally:
            with suppress(psycopg.Error), psycopg.connect(self.conninfo) as connection:
                connection.execute(f"DROP TABLE IF EXISTS {Table(place.table).quoted}".encode())


def address_of(url: SplitResult) -> dict[str, str]:
    """Return servers, database, user and password, as libpq names them."""
    who, _, where = url.netloc.rpartition("@")
    hosts = [host_and_port(host) for host in where.split(",")]
    database = unquote(url.path.removeprefix("/"))
    if not database or not all(host for host, _ in hosts):
        raise ValueError(f"must be {FORM}")
    user, _, password = who.partition(":")
    return {
        "host": ",".join(host for host, _ in hosts),
        "port": ",".join(port for _, port in hosts),
        "dbname": database,
        "user": unquote(user),
        "password": unquote(password),
        "target_session_attrs": "read-write" if len(hosts) > 1 else "any",
    }


def host_and_port(address: str) -> tuple[str, str]:
    """Return the host and port of one server. ValueError if the port is not one."""
    try:
        split = urlsplit(f"//{address}")
        return unquote(split.hostname or ""), str(split.port or 5432)
    except ValueError:
        raise ValueError("must have a port from 1 to 65535") from None


def options_of(query: dict[str, str], *, prepare: bool) -> str:
    """Remove the options of the server's session from `query`, and return them.

    PgBouncer refuses a session with options, so with `prepare=off` there are only those that the
    URL asks for.
    """
    asked = query.pop("options", "")
    synchronous = query.pop("synchronous", None)
    if prepare:
        return f"{PLAN} -c synchronous_commit={synchronous or 'on'} {asked} {WARN}"
    if synchronous:
        raise ValueError(
            "must leave synchronous out with prepare=off: ALTER ROLE ... SET synchronous_commit"
        )
    return asked


def conninfo_of(asked: dict[str, str]) -> str:
    """Return the connection string, once libpq has accepted it."""
    named: dict[str, Any] = {name: value for name, value in asked.items() if value}
    root = named.get("sslrootcert", "system")
    if root != "system" and not Path(root).is_file():
        raise ValueError("must name a file with sslrootcert")
    try:
        return make_conninfo("", **named, application_name="hasher", connect_timeout=2)
    except ProgrammingError:
        raise ValueError(f"must be {FORM}") from None
