"""The driver: which thread reads and writes over which connection, and when."""

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import unquote

import apsw

from hasher.stores.breaker import CircuitBreaker
from hasher.stores.driver import (
    DEFAULT,
    Driver,
    Location,
    Outcome,
    Resources,
    Stored,
    StoreFull,
    TakenDown,
    Unusable,
)
from hasher.stores.group_commit import GroupCommit
from hasher.stores.sqlite import schema, table
from hasher.stores.sqlite.connections import Connections
from hasher.stores.sqlite.files import inherited
from hasher.stores.sqlite.table import Row
from hasher.stores.sqlite.turn import NAP, Turn
from hasher.stores.urls import parameters, split_url

T = TypeVar("T")

PATIENCE = 0.8  # seconds for which a writer waits for others, before it gives up with a 503
# An open file that cannot be extended: the disk, a quota or the limit of a file's size is reached.
FULL = {apsw.SQLITE_FULL, apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE}


def extended_result(error: Any) -> int:
    """Return SQLite's extended result code (https://sqlite.org/rescode.html).

    APSW's types omit it.
    """
    code: int = error.extendedresult
    return code


@dataclass(frozen=True)
class SQLiteLocation(Location):
    """A file, and how its writes are synced."""

    engine: ClassVar[str] = f"SQLite {apsw.sqlite_lib_version()}"

    path: str
    synchronous: str = "full"

    @classmethod
    def parse(cls, url: str) -> Self:
        split = split_url(url)
        path = unquote(split.path[1:])
        if split.netloc or not path.strip("/") or path == ":memory:" or "\0" in path:
            raise ValueError("must be sqlite:///file or sqlite:////absolute/path/of/file")
        return cls(url, path, **parameters(split, synchronous=("full", "normal")))

    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> "SQLiteDriver":  # noqa: ARG002 - it needs none
        """Open the file.

        A process whose parent had opened it makes no other file: its calls raise Unusable until the
        same file is back.
        """
        driver = SQLiteDriver(os.path.realpath(self.path), self.synchronous)
        if not create or not inherited(driver.path):
            driver.prepare(create=create)
        return driver

    @contextmanager
    def scratch(self) -> Iterator[Location]:
        place = replace(self, path=f"{self.path}-scratch-{token_hex(8)}")
        try:
            yield place
        finally:
            for suffix in ("", "-wal", "-shm", "-turn"):
                Path(f"{place.path}{suffix}").unlink(missing_ok=True)


class SQLiteDriver(Driver):
    """A table of messages. Readers never wait; writers take turns and share commits.

    Each thread reads over a connection of its own. Of the threads that wait to write, one commits
    the messages of all, so that they share one disk sync. Threads and processes queue for the file
    `<path>-turn`.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (apsw.Error, OSError)
    blocking: ClassVar[frozenset[str]] = frozenset({"put", "put_many", "remove", "restore"})

    _turn: Turn
    _connections: Connections
    _group: GroupCommit[Row, Outcome | None]

    def __init__(self, path: str, synchronous: str = "full") -> None:
        self.path = path
        self._synchronous = synchronous
        self._inherited: list[Connections] = []
        self._start()
        ours = weakref.WeakMethod(self._start)
        os.register_at_fork(after_in_child=lambda: (start := ours()) and start())

    def prepare(self, *, create: bool) -> None:
        """Open the file, and make it first if `create`. Unusable if it is not hasher's."""
        if not create and not Path(self.path).is_file():
            raise Unusable(f"{self.path} does not exist")
        deadline = time.monotonic() + PATIENCE
        try:
            patiently(partial(self._open, deadline, create=create), deadline)
        except (OSError, apsw.Error) as error:
            directory = Path(self.path).parent
            missing = "" if directory.is_dir() else f": there is no directory {directory}"
            raise Unusable(f"{self.path} cannot be used ({error}){missing}") from None

    def _open(self, deadline: float, *, create: bool) -> None:
        if create and not schema.exists(self.path):
            with self._turn.held(deadline):
                schema.create(self.path)
        self._connections.writer()

    def put(self, digest: str, message: bytes) -> Outcome:
        try:
            return self._put((bytes.fromhex(digest), message))
        except (StoreFull, apsw.Error, OSError):
            if self.get(digest) != message:
                raise
            self._connections.files().require_same()
            return Outcome.REPEATED  # a repeat needs no turn to write, and no room on the disk

    def _put(self, row: Row) -> Outcome:
        """Store a row together with those of other threads."""
        outcome = self._writes.call(self._group.write, row)
        if outcome is None:
            raise TakenDown(row[0].hex())
        return outcome

    def _commit(self, rows: Sequence[Row], deadline: float) -> list[Outcome | None]:
        """Store the rows of several threads; return None for each that was taken down."""
        return self._write(partial(table.store_each, rows=rows), deadline)

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        counts = Stored()
        for number, rows in enumerate(table.neighbours(messages)):
            if number:
                time.sleep(2 * NAP)  # otherwise others would hardly ever find the turn free
            store = partial(table.store_all, rows=rows)
            stored = self._write(store, time.monotonic() + PATIENCE)
            counts = Stored(*map(sum, zip(counts, stored, strict=True)))
        return counts

    def _write(self, change: Callable[[apsw.Connection], T], deadline: float) -> T:
        """Call `change` in a transaction of its own, and return what it returns.

        While another program has the file locked, this tries again until the deadline. It gives up
        the turn in between, so that every process can answer its clients in time.
        """
        try:
            return patiently(partial(self._write_once, change, deadline), deadline)
        except FileNotFoundError:  # the folder of the turn
            self._connections.files().require_same()
            raise

    def _write_once(self, change: Callable[[apsw.Connection], T], deadline: float) -> T:
        with self._turn.held(deadline), self._transaction() as connection:
            return change(connection)

    @contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        """Open a transaction, and commit it, or undo it. StoreFull if there is no room for it.

        The caller must hold the turn.
        """
        connection, files = self._connections.writer()
        files.require_whole(connection)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except apsw.Error as error:
            if extended_result(error) in FULL:
                raise StoreFull from error
            raise
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def get(self, digest: str) -> bytes | None:
        message = table.find(self._connections.reader(), bytes.fromhex(digest))
        if message is None:
            self._connections.files().require_database()
        return message

    def remove(self, digest: str, tombstone: bytes) -> Outcome:
        change = partial(table.remove, row=(bytes.fromhex(digest), tombstone))
        outcome = self._write(change, time.monotonic() + PATIENCE)
        self._empty_log()
        return outcome

    def _empty_log(self) -> None:
        """Copy the log to the database and empty it, since it has what was removed.

        While another reads, that is left to a later checkpoint.
        """
        with suppress(apsw.BusyError, TimeoutError), self._turn.held(time.monotonic() + PATIENCE):
            connection, _ = self._connections.writer()
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def restore(self, digest: str) -> bool:
        change = partial(table.restore, digest=bytes.fromhex(digest))
        return self._write(change, time.monotonic() + PATIENCE)

    def removed_of(self, digests: Sequence[str]) -> list[str]:
        return table.removed_of(self._connections.reader(), digests)

    def removed(self) -> Iterator[tuple[str, bytes]]:
        return table.removed(self._connections.reader())

    def items(self) -> Iterator[tuple[str, bytes | None]]:
        return table.walk(self._connections.reader())

    def count(self) -> int:
        count: int = self._connections.reader().execute("SELECT count(*) FROM messages").get
        return count

    def check(self) -> str | None:
        try:
            self._check_files()
        except apsw.IOError as error:
            if extended_result(error) == apsw.SQLITE_IOERR_SHORT_READ:
                raise self._connections.files().truncated_log() from None
            raise
        if self._synchronous != "full":
            return f"with synchronous={self._synchronous} a power cut can lose the last messages"
        return None

    def _check_files(self) -> None:
        """Read, and check the files even if that fails: they may be the reason."""
        reader, files = self._connections.reader(), self._connections.files()
        try:
            table.find(reader, b"")
        finally:
            files.require_whole(reader)

    def close(self) -> None:
        self._connections.close()
        self._turn.close()

    def _start(self) -> None:
        """Begin with no connection, after a fork too: SQLite's connections must not cross it.

        Those of the parent are kept, since closing them here would drop the parent's locks.
        """
        if hasattr(self, "_connections"):
            self._inherited.append(self._connections)
            self._turn.close()
        self._turn = Turn(f"{self.path}-turn")
        self._connections = Connections(self.path, self._synchronous)
        for used in (self._connections, self._turn):
            weakref.finalize(self, used.close)  # at exit, if not before
        self._group = GroupCommit(self._commit, PATIENCE)
        self._writes = CircuitBreaker(apsw.BusyError)


def patiently(call: Callable[[], T], deadline: float) -> T:
    """Return what `call` returns; try again while the file is locked, until the deadline."""
    while True:
        try:
            return call()
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
