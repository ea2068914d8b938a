"""Messages over any driver: named by their digest, verified when they are read, timed.

The name of a message is its SHA-256 (FIPS 180-4), as 64 lowercase hexadecimal characters.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from time import perf_counter
from typing import Protocol, Self, TypeVar

from hasher.stores.driver import DamagedMessage, Driver, Outcome, Stored, TakenDown
from hasher.stores.tombstone import Tombstone, from_bytes, is_tombstone, to_bytes

T = TypeVar("T")

log = logging.getLogger("hasher.stores")

NEW, MENDED = Outcome.NEW, Outcome.MENDED
BATCH_MESSAGES, BATCH_BYTES = 25_000, 4 * 1024 * 1024  # either ends a batch
SIZE = 32  # bytes of a digest
LARGE = 1024 * 1024  # bytes that take as long to hash as many requests take to answer


class Caller(Protocol):
    """Who calls the store, and is told in the same thread what the driver did."""

    @property
    def before_wait(self) -> Callable[[], None]:
        """What to call before the thread waits for a driver, or computes for long."""

    def operated(self, name: str, seconds: float, error: Exception | None) -> None:
        """Note an operation of the driver, its time, and the exception that it raised."""

    def stored(self, counts: Stored) -> None:
        """Note that messages were stored."""


class Nobody:
    """A caller that ignores what it is told."""

    def before_wait(self) -> None:
        """Go on."""

    def operated(self, name: str, seconds: float, error: Exception | None) -> None:
        """Note nothing."""

    def stored(self, counts: Stored) -> None:
        """Note nothing."""


def digest_of(message: bytes) -> str:
    """Return the digest of `message`."""
    return sha256(message).hexdigest()


def hexadecimal(digests: bytes | bytearray) -> list[str]:
    """Return the digests in `digests`, which has SIZE bytes for each."""
    return digests.hex("|", SIZE).split("|")


def verified(message: bytes, digest: str) -> bytes:
    """Return `message`. TakenDown if it is a tombstone, DamagedMessage if it is anything else."""
    if sha256(message).hexdigest() != digest:
        raise (TakenDown if is_tombstone(message) else DamagedMessage)(digest)
    return message


def batches(
    messages: Iterable[bytes], count: int = BATCH_MESSAGES, length: int = BATCH_BYTES
) -> Iterator[list[bytes]]:
    """Yield `messages` in lists for `put_many`: large enough to be fast, and bounded in memory.

    A list ends with its `count`-th message, or with the one that brings it to `length` bytes. An
    exception of the iterable comes after the messages before it.
    """
    batch: list[bytes] = []
    size = 0
    try:
        for message in messages:
            batch.append(message)
            size += len(message)
            if len(batch) >= count or size >= length:
                yield batch
                batch, size = [], 0
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


class Messages:
    """The messages of a store.

    `caller` returns the Caller of the current thread. It is told before the thread waits for the
    driver or computes for long, and what the driver did. The driver's exceptions pass through.
    """

    def __init__(self, driver: Driver, caller: Callable[[], Caller] = Nobody) -> None:
        self.driver = driver
        self._caller = caller

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, message: bytes) -> tuple[str, bool]:
        """Store `message`; return its digest, and whether it is new.

        TakenDown if an operator has taken it down.
        """
        caller = self._caller()
        if len(message) > LARGE:
            caller.before_wait()
        digest = sha256(message).hexdigest()
        outcome = self._timed(caller, "put", self.driver.put, digest, message)
        caller.stored(COUNTS[outcome])
        if outcome is MENDED:
            log.warning("The damaged message %s was mended: its sender has brought it.", digest)
        return digest, outcome is NEW

    def put_many(self, messages: Iterable[bytes]) -> tuple[list[str], int]:
        """Store `messages`; return the digest of each, in their order, and how many are new.

        TakenDown if an operator has taken one of them down. After an exception some of them may be
        stored, and putting them again is safe.
        """
        caller = self._caller()
        caller.before_wait()
        found = list(messages)
        digests = [sha256(message).hexdigest() for message in found]
        return digests, self._put_named(caller, digests, found)

    def _put_named(self, caller: Caller, digests: Sequence[str], found: Sequence[bytes]) -> int:
        """Store the messages `found`, which have these digests; return how many are new."""
        distinct = dict(zip(digests, found, strict=True))
        counts = self._timed(caller, "put_many", self.driver.put_many, list(distinct.items()))
        caller.stored(counts._replace(repeated=counts.repeated + len(found) - len(distinct)))
        if counts.mended:
            log.warning("%d damaged messages were mended: they were sent again.", counts.mended)
        return counts.new

    def put_allowed(self, messages: Iterable[bytes]) -> bytes:
        """Store `messages`, which can be iterated twice; return their digests as `allowed` does.

        If one of them was taken down before, TakenDown names it, and none is stored.
        """
        names = self.allowed(messages)
        caller = self._caller()
        start = 0
        for batch in batches(messages):
            end = start + len(batch) * SIZE
            self._put_named(caller, hexadecimal(names[start:end]), batch)
            start = end
        return names

    def get(self, digest: str) -> bytes | None:
        """Return the message with this digest, or None.

        TakenDown if an operator has taken it down, DamagedMessage if it was altered.
        """
        caller = self._caller()
        message = self._timed(caller, "get", self.driver.get, digest)
        if message is None:
            return None
        if len(message) > LARGE:
            caller.before_wait()
        return verified(message, digest)

    def allowed(self, messages: Iterable[bytes]) -> bytes:
        """Return the digests of `messages`, 32 bytes each, in their order.

        TakenDown names the first that an operator has taken down. All are hashed before the store
        is asked.
        """
        caller = self._caller()
        caller.before_wait()
        names = bytearray()
        for message in messages:
            names += sha256(message).digest()
        for start in range(0, len(names), BATCH_MESSAGES * SIZE):
            part = hexadecimal(names[start : start + BATCH_MESSAGES * SIZE])
            removed = {*self._timed(caller, "removed_of", self.driver.removed_of, part)}
            if removed:
                raise TakenDown(next(digest for digest in part if digest in removed))
        return bytes(names)

    def removed_of(self, digests: Sequence[str]) -> list[str]:
        """Return those of `digests` whose messages an operator has taken down."""
        return self.driver.removed_of(digests)

    def remove(self, tombstone: Tombstone) -> Outcome:
        """Take down the message that `tombstone` names.

        MENDED if anything stood there, NEW if nothing did, REPEATED if it was taken down before.
        """
        return self.driver.remove(tombstone.digest, to_bytes(tombstone))

    def restore(self, digest: str) -> bool:
        """Let the message with this digest be stored again; return whether it was taken down."""
        return self.driver.restore(digest)

    def removed(self) -> Iterator[Tombstone]:
        """Yield the tombstone of every message that was taken down, in bounded memory."""
        return (from_bytes(*pair) for pair in self.driver.removed())

    def items(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield every digest with the message or tombstone under it, not verified.

        It takes bounded memory. None takes the place of a message that cannot be read. Raises
        Unusable at the end if the digests of some messages cannot be read either.
        """
        return self.driver.items()

    def count(self) -> int:
        """Return how many messages and tombstones are stored."""
        return self.driver.count()

    def check(self) -> str | None:
        """Ask whether the store can serve; return what an operator should know of it, or None."""
        return self._timed(self._caller(), "check", self.driver.check)

    def close(self) -> None:
        """Let go of every file and connection."""
        self.driver.close()

    def _timed(self, caller: Caller, name: str, call: Callable[..., T], *arguments: object) -> T:
        if name in self.driver.blocking:
            caller.before_wait()
        error = None
        started = perf_counter()
        try:
            return call(*arguments)
        except Exception as raised:
            error = raised
            raise
        finally:
            caller.operated(name, perf_counter() - started, error)


COUNTS = {
    Outcome.NEW: Stored(new=1),
    Outcome.REPEATED: Stored(repeated=1),
    Outcome.MENDED: Stored(mended=1),
}
