"""The connections of one process to a database."""

import os
import threading
import weakref
from contextlib import suppress
from ctypes import addressof, c_int
from pathlib import PurePath

import apsw

from hasher.stores.driver import Unusable
from hasher.stores.sqlite import schema
from hasher.stores.sqlite.files import Files, stat_of

YES = c_int(1)
CACHE = 16 * 1024  # KiB of the file that are kept for writing: the index of some 300,000 messages


class Connections:
    """One connection to write, and one to read for each thread that asks.

    The one to write is the first, and stays open: later checks compare the files with those that it
    has opened. No connection creates a file.
    """

    def __init__(self, path: str, synchronous: str) -> None:
        self._path, self._synchronous = path, synchronous
        self._process = os.getpid()
        self._opening = threading.RLock()
        self._local = threading.local()
        self._all: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._first: tuple[apsw.Connection, Files] | None = None

    def writer(self) -> tuple[apsw.Connection, Files]:
        """Return the connection to write over, and the files that it has open.

        All threads should write over it, one at a time: its cache is valid as long as no other
        process writes.
        """
        if not self._first:
            with self._opening:
                self._first = self._first or self._open_first()
        return self._first

    def reader(self) -> apsw.Connection:
        """Return the connection that this thread reads over."""
        try:
            connection: apsw.Connection = self._local.connection
        except AttributeError:
            files = self.files()
            files.require_same()
            connection = self._open()
            files.require_same()  # still: SQLite would make a log when it reads
            self._local.connection = connection
        return connection

    def files(self) -> Files:
        """Return the files that are open."""
        return self.writer()[1]

    def close(self) -> None:
        """Close the connections that no thread is using; do nothing in a forked process.

        The last connection to close a database copies the log to it, and removes the log. It holds
        up whoever opens the database meanwhile, so the log is copied before. If the log was lost,
        the file that now has its name is left alone.
        """
        if self._process != os.getpid():
            return
        lost = self._first and not self._first[1].are_same()
        with self._opening:
            found = list(self._all)
        if self._first and not lost:
            with suppress(apsw.Error):
                self._first[0].wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        for connection in found:
            with suppress(apsw.ThreadingViolationError, apsw.ConnectionClosedError):
                if lost:
                    connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, addressof(YES))
                connection.close()

    def _open_first(self) -> tuple[apsw.Connection, Files]:
        if not stat_of(self._path).st_size:  # SQLite would remove the log of an empty file
            raise Unusable(f"{PurePath(self._path).name} is empty")
        connection = self._open()
        try:
            connection.pragma("synchronous", self._synchronous)
            connection.pragma("cache_size", -CACHE)
            connection.pragma("journal_mode", "wal")  # which a copy by another program may lack
            schema.require(connection)
            files = Files(connection)
            files.require_whole(connection)
        except BaseException:
            connection.close()
            raise
        return connection, files

    def _open(self) -> apsw.Connection:
        connection = schema.connect(self._path)
        with self._opening:
            self._all.add(connection)
        return connection
