"""`sqlite:///path`: a file that all workers of a machine share, and that outlives them.

What `put` has returned for is on the disk: the write-ahead log is synced first
(https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous).
"""

import fcntl
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import unquote, urlsplit

from hasher.stores.driver import (
    DEFAULT,
    Driver,
    Location,
    Outcome,
    Resources,
    Stored,
    StoreFull,
    Unusable,
)
from hasher.stores.outage import Outage
from hasher.stores.urls import parameters

T = TypeVar("T")
Row = tuple[bytes, bytes]  # the digest's 32 bytes, and the message

SCHEMA = 1
APPLICATION = 0x68617368  # "hash", in the header of the file (https://sqlite.org/fileformat.html)
# A table with an index, since messages within the index would make it deep and slow to search.
CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE messages (digest BLOB PRIMARY KEY NOT NULL, message BLOB NOT NULL);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""
# CAST, since another program may have put a text where a blob belongs.
FIND = "SELECT CAST(message AS BLOB) FROM messages WHERE digest = ?"
ADD = "INSERT INTO messages VALUES (?, ?) ON CONFLICT DO NOTHING"
PAGE = """
SELECT rowid, CAST(digest AS BLOB), CAST(message AS BLOB)
FROM messages WHERE rowid > ? ORDER BY rowid LIMIT 1000
"""

PATIENCE = 0.8  # seconds for which a writer waits for others, before it gives up with a 503
GROUP = 2000  # messages of many that are committed at once, so that others' wait is short
CACHE = 16 * 1024  # KiB of the file that are kept for writing: the index of some 300,000 messages
NAP = 0.0005  # seconds between two looks at whether another process has ended its turn
BUSY = 0.1  # seconds for which SQLite waits for a lock, before it is asked again
# An open file that cannot be extended: the disk, a quota or the limit of a file's size is reached.
FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code (https://sqlite.org/rescode.html)."""
    return error.sqlite_errorcode & 0xFF


def taken(descriptor: int) -> bool:
    """Whether the lock of an open file could be had at once."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def add_each(rows: Sequence[Row], connection: sqlite3.Connection) -> list[bool]:
    """Add rows; for each whether it is new."""
    return [connection.execute(ADD, row).rowcount == 1 for row in rows]


def add_all(rows: Sequence[Row], connection: sqlite3.Connection) -> int:
    """Add rows; how many are new."""
    return connection.executemany(ADD, rows).rowcount


def neighbours(messages: Sequence[tuple[str, bytes]]) -> list[list[Row]]:
    """Rows for `messages` in groups of about GROUP, each next to each other in the index.

    So a group changes few pages of it: four times as fast in a table of a million messages.
    """
    count = min(256, -(-len(messages) // GROUP))
    groups: list[list[Row]] = [[] for _ in range(count)]
    for digest, message in messages:
        key = bytes.fromhex(digest)
        groups[key[0] * count >> 8].append((key, message))
    for group in groups:
        group.sort()
    return groups


class Held:
    """What a thread holds of its connection, which closes with it.

    By itself a connection waits for the garbage collector: it stands in a cycle with its cache.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Put:
    """One call of `put` that waits: for its commit, or to be the one who commits for all."""

    def __init__(self, key: bytes, message: bytes) -> None:
        self.row = (key, message)
        self.deadline = time.monotonic() + PATIENCE
        self.new: bool | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.wake = threading.Lock()
        self.wake.acquire()


@dataclass(frozen=True)
class SQLiteLocation(Location):
    """A file, and how its writes are synced."""

    path: str
    synchronous: str = "full"

    @classmethod
    def parse(cls, url: str) -> Self:
        split = urlsplit(url)
        path = unquote(split.path[1:])
        if split.netloc or not path.strip("/") or path == ":memory:" or "\0" in path:
            raise ValueError("must be sqlite:///file or sqlite:////absolute/path/of/file")
        return cls(url, path, **parameters(split, synchronous=("full", "normal")))

    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> "SQLiteDriver":  # noqa: ARG002 - it needs none
        if not create and not Path(self.path).is_file():
            raise Unusable(f"{self.path} does not exist")
        driver = SQLiteDriver(self.path, self.synchronous)
        driver.prepare()
        return driver


class SQLiteDriver(Driver):
    """A table of messages. Readers wait for nobody; writers take turns and share commits.

    Each thread reads over a connection of its own. Of the threads that wait to write, one commits
    the messages of all, so that they share one disk sync. Processes queue for the file
    `<path>-turn` (flock(2)); for SQLite's own lock they would wait in ever longer naps, and of two
    busy writers one for seconds.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error, OSError)
    blocking: ClassVar[frozenset[str]] = frozenset({"put", "put_many"})

    _held: weakref.WeakSet[Held]
    _writing: Held | None
    _waiting: list[Put]
    _committing: bool

    def __init__(self, path: str, synchronous: str = "full") -> None:
        self._path = path
        self._synchronous = synchronous
        self._outage = Outage()
        self._inherited: list[Any] = []
        self._start()
        ours = weakref.WeakMethod(self._start)
        os.register_at_fork(after_in_child=lambda: (start := ours()) and start())

    def prepare(self) -> None:
        """Make the file where there is none yet; Unusable where it is not a store of hasher's."""
        try:
            deadline = time.monotonic() + PATIENCE
            with self._turn_until(deadline), closing(self._connect()) as connection:
                self._require_schema(connection)
        except (OSError, sqlite3.Error) as error:
            directory = Path(self._path).absolute().parent
            missing = "" if directory.is_dir() else f": there is no directory {directory}"
            raise Unusable(f"{self._path} cannot be used ({error}){missing}") from None

    def _require_schema(self, connection: sqlite3.Connection) -> None:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            connection.executescript(CREATE)
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION:
            raise Unusable(f"{self._path} is a database of another program")
        if version != SCHEMA:
            raise Unusable(
                f"{self._path} has schema {version}, and this hasher knows {SCHEMA}: "
                "use the hasher that wrote it, and flask store copy"
            )

    def put(self, digest: str, message: bytes) -> Outcome:
        try:
            new = self._put(bytes.fromhex(digest), message)
        except (StoreFull, sqlite3.Error, OSError):
            if self.get(digest) is None:
                raise
            return Outcome.REPEATED  # which needs no turn to write, and no room on the disk
        return Outcome.NEW if new else Outcome.REPEATED

    def _put(self, key: bytes, message: bytes) -> bool:
        """Store `message` together with those of other threads; whether it is new."""
        self._outage.require_over()
        put = Put(key, message)
        self._wait(put)
        if put.leads:
            self._commit_all()
        if put.error:
            raise put.error
        return bool(put.new)

    def _wait(self, put: Put) -> None:
        """Wait until `put` is committed, or must commit for all; TimeoutError where that is long.

        Only the one who commits can be held up by another process: the others give up in time,
        and leave their threads to those who read.
        """
        with self._lock:
            self._waiting.append(put)
            first, self._committing = not self._committing, True
            put.leads = first  # from here on, another thread may set it
        if not first and not put.wake.acquire(timeout=PATIENCE):
            self._give_up(put)

    def _give_up(self, put: Put) -> None:
        """Wait no longer, unless the turn of `put` has come just now."""
        with self._lock:
            if not put.leads:
                if put in self._waiting:
                    self._waiting.remove(put)
                self._outage.begin()
                raise TimeoutError("the turn to write did not come in time")
        put.wake.acquire()

    def _commit_all(self) -> None:
        """Store what every waiting thread has asked for, then let the next one do the same."""
        with self._lock:
            puts, self._waiting = self._waiting, []
        try:
            news = self._write(partial(add_each, [put.row for put in puts]), puts[0].deadline)
        except BaseException as error:  # noqa: BLE001 - it is the outcome of each of them
            if isinstance(error, (TimeoutError, sqlite3.OperationalError)):
                self._outage.begin()
            for put in puts:
                put.error = error
        else:
            for put, new in zip(puts, news, strict=True):
                put.new = new
        with self._lock:
            self._committing = bool(self._waiting)
            for put in self._waiting[:1]:
                put.leads = True
                puts.append(put)
        for put in puts:
            put.wake.release()

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        new = 0
        for number, rows in enumerate(neighbours(messages)):
            if number:
                time.sleep(2 * NAP)  # who waits for the turn would else hardly ever see it free
            new += self._write(partial(add_all, rows), time.monotonic() + PATIENCE)
        return Stored(new, len(messages) - new)

    def _write(self, change: Callable[[sqlite3.Connection], T], deadline: float) -> T:
        """What `change` returns, in one transaction of its own.

        While another program has the file locked, it is tried again until the deadline; the turn
        is given up in between, so that every process can tell its clients in time.
        """
        while True:
            try:
                with self._turn_until(deadline), self._transaction() as connection:
                    return change(connection)
            except sqlite3.OperationalError as error:
                if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed, or undone; StoreFull where there is no room for it.

        To be used by who has the turn. All threads write over one connection: what it has read of
        the file stays right for as long as no other process writes.
        """
        connection = self._writer()
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if error.sqlite_errorcode in FULL or code_of(error) == sqlite3.SQLITE_FULL:
                raise StoreFull from error
            raise
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    @contextmanager
    def _turn_until(self, deadline: float) -> Iterator[None]:
        """The turn among the processes that write to the file; TimeoutError after the deadline."""
        descriptor = os.open(f"{self._path}-turn", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            while not taken(descriptor):
                if time.monotonic() > deadline:
                    raise TimeoutError("another process does not end its turn to write")
                time.sleep(NAP)
            yield
        finally:
            os.close(descriptor)

    def get(self, digest: str) -> bytes | None:
        row = self._connection().execute(FIND, (bytes.fromhex(digest),)).fetchone()
        return row[0] if row else None

    def items(self) -> Iterator[tuple[str, bytes]]:
        # Page by page, since a reader that stays keeps the write-ahead log from being reused.
        last, found = 0, True
        while found:
            found = False
            for row, key, message in self._connection().execute(PAGE, (last,)):
                last, found = row, True
                yield key.hex(), message

    def count(self) -> int:
        count: int = self._connection().execute("SELECT count(*) FROM messages").fetchone()[0]
        return count

    def check(self) -> str | None:
        self._connection().execute(FIND, (b"",)).fetchone()
        if self._synchronous != "full":
            return f"with synchronous={self._synchronous} a power cut can lose the last messages"
        return None

    def close(self) -> None:
        for held in self._held:
            held.connection.close()

    def _connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        try:
            held: Held = self._local.held
        except AttributeError:
            held = self._local.held = Held(self._connect())
            self._held.add(held)
        return held.connection

    def _writer(self) -> sqlite3.Connection:
        """The connection of whichever thread has the turn to write."""
        if self._writing is None:
            self._writing = Held(self._connect())
            self._held.add(self._writing)
            self._writing.connection.execute(f"PRAGMA cache_size = -{CACHE}")
        return self._writing.connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY,
            isolation_level=None,
            check_same_thread=False,  # `close` is called from any thread
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        return connection

    def _start(self) -> None:
        """Begin with no connection, in a new process too: SQLite's must not cross a fork.

        Those of the parent are kept, since closing them here would drop the parent's locks.
        """
        self._inherited += getattr(self, "_local", None), getattr(self, "_writing", None)
        self._local = threading.local()
        self._held = weakref.WeakSet()
        self._writing = None
        self._lock = threading.Lock()
        self._waiting = []
        self._committing = False
