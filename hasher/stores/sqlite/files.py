"""The files of an open database: whether their names still lead to what is open.

SQLite goes on with a file that was removed, moved or replaced, and nobody can open what it writes
there (https://sqlite.org/howtocorrupt.html, section 2.5).
"""

import os
import time
from pathlib import PurePath
from typing import NamedTuple

import apsw

from hasher.stores.driver import Unusable

LOG_HEADER, FRAME_HEADER = 32, 24  # bytes (https://sqlite.org/fileformat2.html#walformat)
LOOKS, NAP = 4, 0.005  # how often a file that seems truncated is checked, and seconds in between
PAGES = 28, 4  # offset and length of the number of pages in the header of a database


class Identity(NamedTuple):
    """What a name leads to."""

    device: int
    inode: int


class Start(NamedTuple):
    """Which process opened a database first, and what it found."""

    process: int
    database: Identity


STARTS: dict[str, Start] = {}
"""How the databases were opened by this process, or by the one that it was forked from."""


def inherited(path: str) -> Start | None:
    """Return how the process that this one was forked from has opened `path`, if it has."""
    start = STARTS.get(path)
    return start if start and start.process != os.getpid() else None


class Files:
    """The database of `connection`, its log and the log's index, as the connection opened them.

    While it is open, the log must not be removed: only the last connection to close removes it.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        database, log = connection.filename, connection.filename_wal
        self._names = database, log, f"{database}-shm"
        self._page: int = connection.pragma("page_size")
        self._size = 0
        self._identities = [identity(stat_of(name)) for name in self._names]
        start = inherited(database)
        if start:
            self._identities[0] = start.database
        else:
            STARTS[database] = Start(os.getpid(), self._identities[0])

    def require_same(self) -> list[os.stat_result]:
        """Return what the names lead to. Unusable if a file is missing or another one.

        Unusable if the database is empty, too: SQLite would remove the log as soon as it reads.
        """
        found = [same(*pair) for pair in zip(self._names, self._identities, strict=True)]
        if not found[0].st_size:
            raise truncated(self._names[0])
        return found

    def require_database(self) -> None:
        """Raise Unusable if the database's name leads to nothing, or to another file."""
        same(self._names[0], self._identities[0])

    def are_same(self) -> bool:
        """Return whether `require_same` finds nothing wrong."""
        try:
            self.require_same()
        except (Unusable, OSError):
            return False
        return True

    def require_whole(self, connection: apsw.Connection) -> None:
        """Raise Unusable if the files are not the same, or were truncated.

        Truncation is looked for only while `connection` is not reading. It must have read before:
        until then it knows nothing of the log.
        """
        if connection.txn_state("main") != apsw.SQLITE_TXN_NONE:
            self.require_same()
            return
        looks = 0
        while cut := self._truncated(connection):  # again, since another program may be writing
            looks += 1
            if looks == LOOKS:
                raise truncated(cut)
            time.sleep(NAP)

    def truncated_log(self) -> Unusable:
        """Return the exception for a log that ends before it should."""
        return truncated(self._names[1])

    def _truncated(self, connection: apsw.Connection) -> str | None:
        """Return which file is shorter than SQLite takes it to be.

        The database has all pages that its header counts, unless the log is being copied to it.
        """
        frames, copied = state = log_state(connection)
        pages = self._pages(connection)
        database, log, _ = self.require_same()
        needed = LOG_HEADER + frames * (FRAME_HEADER + self._page)
        cut = None
        if copied < frames and log.st_size < needed:
            cut = self._names[1]
        elif database.st_size < pages and (copied == frames or database.st_size < self._size):
            cut = self._names[0]
        if cut and log_state(connection) == state:
            return cut
        self._size = database.st_size
        return None

    def _pages(self, connection: apsw.Connection) -> int:
        """Return the bytes of all pages, as the header of the database counts them."""
        _, header = connection.read("main", 0, *PAGES)
        return max(1, int.from_bytes(header)) * self._page


def log_state(connection: apsw.Connection) -> tuple[int, int]:
    """Return how many frames the log has, and how many of them are copied to the database."""
    return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)


def same(name: str, opened: Identity) -> os.stat_result:
    """Return what `name` leads to. Unusable if it is not what was opened."""
    found = stat_of(name)
    if found.st_ino != opened.inode or found.st_dev != opened.device:
        raise Unusable(
            f"{PurePath(name).name} was replaced while it was in use: put the same file back, or "
            "restart the service"
        )
    return found


def stat_of(name: str) -> os.stat_result:
    """Return what `name` leads to. Unusable if there is nothing."""
    try:
        return os.stat(name)  # noqa: PTH116 - half as fast with pathlib
    except (FileNotFoundError, NotADirectoryError):
        raise Unusable(
            f"{PurePath(name).name} was removed or moved while it was in use: put it back, or "
            "restart the service"
        ) from None


def identity(found: os.stat_result) -> Identity:
    """Return what distinguishes a file from every other file of this machine."""
    return Identity(found.st_dev, found.st_ino)


def truncated(name: str) -> Unusable:
    """Return the exception for a file that has lost its end."""
    return Unusable(
        f"{PurePath(name).name} was truncated while it was in use: restore the store from a "
        "backup, and restart the service"
    )
