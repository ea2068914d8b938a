"""`sqlite:///path`: a file that all workers of a machine share, and that outlives them.

When `put` returns, its message is on the disk: the write-ahead log is synced first
(https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous). APSW brings an
SQLite of its own, so every installation has the same one (docs/decisions/06-sqlite.md).
"""

from hasher.stores.sqlite.driver import SQLiteDriver, SQLiteLocation

__all__ = ["SQLiteDriver", "SQLiteLocation"]
