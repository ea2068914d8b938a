"""`memory://`, the default: a dict in this process, bounded, which ends with it."""

import ctypes
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, ClassVar, Self

from hasher.stores.base import Means, Store, StoreFull

# What CPython and glibc take from the system for an entry, in bytes on a 64-bit machine.
KEY = 80  # a bytes object of 32: 33 + 32, rounded up to pymalloc's 16
SLOT = 64  # the dict's own share, at its worst: just grown, with 60 bytes of table for each entry
OBJECT = 33  # a bytes object without its content
SMALL, ALIGNMENT = 512, 16  # up to SMALL pymalloc serves, above it malloc with 8 bytes more
M_MMAP_THRESHOLD = -3
LARGE, PAGE = 128 * 1024, 4096  # from LARGE malloc maps whole pages


def cost(message: bytes) -> int:
    """The memory that storing `message` takes, in bytes, all told."""
    size = OBJECT + len(message)
    if size <= SMALL:
        return KEY + SLOT + round_up(size, ALIGNMENT)
    if size < LARGE:
        return KEY + SLOT + round_up(size + 8, ALIGNMENT)
    return KEY + SLOT + round_up(size + 16, PAGE)


def round_up(size: int, step: int) -> int:
    """The least multiple of `step` that `size` fits in."""
    return -(-size // step) * step


def give_back_large_blocks() -> None:
    """Hold glibc to LARGE, so that memory of large bodies returns to the system (mallopt(3)).

    By itself it raises that threshold to the largest block freed so far, up to 32 MiB.
    """
    with suppress(AttributeError, OSError):  # where the C library is another one
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)


class MemoryStore(Store):
    """A dict under a lock, keyed by the 32 raw bytes of the digest.

    `limit` is in bytes of memory. When it is reached a new message is refused: nothing that was
    acknowledged is ever dropped to make room.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = ()
    shared: ClassVar[bool] = False
    files: ClassVar[int] = 0
    waits: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._messages: dict[bytes, bytes] = {}
        self._lock = Lock()
        self._tally: MutableSequence[int] = [0]

    @staticmethod
    def parse(url: str) -> dict[str, Any]:
        if url != "memory://":
            raise ValueError("must be memory:// with nothing behind it")
        return {}

    @classmethod
    def open(cls, means: Means, **_parsed: Any) -> Self:
        give_back_large_blocks()
        return cls(means.memory_limit)

    def put(self, digest: str, message: bytes) -> bool:
        key, size = bytes.fromhex(digest), cost(message)
        with self._lock:
            if key in self._messages:
                return False
            if self._used + size > self._limit:
                raise StoreFull
            self._messages[key] = message
            self._used += size
            self._tally[0] += 1
            return True

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> int:
        rows = ((bytes.fromhex(digest), message) for digest, message in messages)
        missing = [row for row in rows if row[0] not in self._messages]
        room = sum(cost(message) for _, message in missing)
        with self._lock:
            if self._used + room > self._limit:
                raise StoreFull
            self._used += room
        # All or none of them; the lock is not held throughout, so that others can put meanwhile.
        return sum([self._put_in_room(key, message) for key, message in missing])

    def _put_in_room(self, key: bytes, message: bytes) -> bool:
        """As `put`, where the room for `message` is counted as used already."""
        with self._lock:
            if key in self._messages:
                self._used -= cost(message)
                return False
            self._messages[key] = message
            self._tally[0] += 1
            return True

    def get(self, digest: str) -> bytes | None:
        # One lookup in a dict is atomic, and entries never change or go: nothing to lock.
        return self._messages.get(bytes.fromhex(digest))

    def items(self) -> Iterator[tuple[str, bytes]]:
        with self._lock:
            keys = list(self._messages)
        return ((key.hex(), self._messages[key]) for key in keys)

    def count(self) -> int:
        return len(self._messages)

    def check(self) -> str | None:
        return "messages end with this process"

    def close(self) -> None:
        self._messages.clear()

    def tally_in(self, tally: MutableSequence[int]) -> None:
        """Keep the count in `tally[0]` as well: in shared memory it outlives this process."""
        with self._lock:
            tally[0] = len(self._messages)
            self._tally = tally
