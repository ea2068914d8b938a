"""`memory://`, the default: a bounded dict, which ends with its process."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import ClassVar, Self

from hasher.stores.driver import (
    DEFAULT,
    Driver,
    Location,
    Outcome,
    Resources,
    Stored,
    StoreFull,
    TakenDown,
)
from hasher.stores.tombstone import is_tombstone

# Bytes that CPython and glibc take for an entry beside its message, on a 64-bit machine: a key of
# 80, the dict's share of up to 64, a bytes object's own 33, and what rounding adds.
ENTRY = 200


@dataclass(frozen=True)
class MemoryLocation(Location):
    """The location of `memory://`, which has no options."""

    url: str = "memory://"
    shared: ClassVar[bool] = False

    @classmethod
    def parse(cls, url: str) -> Self:
        if url != "memory://":
            raise ValueError("must be memory:// with nothing after it")
        return cls()

    def scratch(self) -> AbstractContextManager[Location]:
        return nullcontext(self)

    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> "MemoryDriver":  # noqa: ARG002 - it is always new
        return MemoryDriver(resources.memory_limit)


class MemoryDriver(Driver):
    """A dict under a lock, keyed by the 32 raw bytes of the digest.

    `limit` is in bytes of memory. When it is reached, new messages are refused: no acknowledged
    message is ever dropped to make room.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = ()
    shared: ClassVar[bool] = False

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._messages: dict[bytes, bytes] = {}
        self._lock = Lock()

    def put(self, digest: str, message: bytes) -> Outcome:
        return self._put(bytes.fromhex(digest), message)

    def _put(self, key: bytes, message: bytes) -> Outcome:
        with self._lock:
            kept = self._messages.get(key)
            if kept is None:
                size = ENTRY + len(message)
                if self._used + size > self._limit:
                    raise StoreFull
                self._messages[key] = message
                self._used += size
                return Outcome.NEW
            if kept == message:
                return Outcome.REPEATED
            if is_tombstone(kept):
                raise TakenDown(key.hex())
            self._messages[key] = message
            self._used += len(message) - len(kept)
            return Outcome.MENDED

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        rows = [(bytes.fromhex(digest), message) for digest, message in messages]
        self._require_room(rows)
        # The lock is not held throughout, so that others can put meanwhile.
        outcomes = [self._put(key, message) for key, message in rows]
        return Stored(*(outcomes.count(outcome) for outcome in Outcome))

    def _require_room(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Raise StoreFull if not all of them fit, before the first is stored."""
        missing = (ENTRY + len(message) for key, message in rows if key not in self._messages)
        if self._used + sum(missing) > self._limit:
            raise StoreFull

    def get(self, digest: str) -> bytes | None:
        # One lookup in a dict is atomic: there is nothing to lock.
        return self._messages.get(bytes.fromhex(digest))

    def remove(self, digest: str, tombstone: bytes) -> Outcome:
        key = bytes.fromhex(digest)
        with self._lock:
            kept = self._messages.get(key)
            if is_tombstone(kept):
                return Outcome.REPEATED
            self._messages[key] = tombstone
            self._used += len(tombstone) + (ENTRY if kept is None else -len(kept))
            return Outcome.NEW if kept is None else Outcome.MENDED

    def restore(self, digest: str) -> bool:
        key = bytes.fromhex(digest)
        with self._lock:
            kept = self._messages.get(key)
            if not is_tombstone(kept):
                return False
            del self._messages[key]
            self._used -= ENTRY + len(kept)
            return True

    def removed_of(self, digests: Sequence[str]) -> list[str]:
        return [digest for digest in digests if is_tombstone(self.get(digest))]

    def removed(self) -> Iterator[tuple[str, bytes]]:
        return (pair for pair in self.items() if is_tombstone(pair[1]))

    def items(self) -> Iterator[tuple[str, bytes]]:
        with self._lock:
            keys = list(self._messages)
        found = ((key, self._messages.get(key)) for key in keys)
        return ((key.hex(), message) for key, message in found if message is not None)

    def count(self) -> int:
        return len(self._messages)

    def check(self) -> str | None:
        return "messages end with this process"

    def close(self) -> None:
        self._messages.clear()
