"""The contract between hasher and its stores."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self


class StoreFull(Exception):
    """The store takes no new message until there is room again; nothing that it holds is lost."""


class Unusable(Exception):
    """The store must not be used as it is. The text says what is wrong and what to do."""


@dataclass(frozen=True)
class Means:
    """What a process has for its store."""

    memory_limit: int = 256 * 1024 * 1024
    """The memory that a store in this process may fill, in bytes."""
    threads: int = 8
    """How many threads call the store at once."""


DEFAULT = Means()


class Store(ABC):
    """Messages by digest. What this says binds both sides; tests/test_stores.py holds it.

    The caller gives digests that are well-formed (64 lowercase hexadecimal characters) and that
    are the message's own, and calls no method after `close`. Messages are bytes, empty ones too.

    The store may be called from any thread at any time, and uses no connection across a fork.
    It never alters, expires or evicts a message: what `put` has returned for, every later `get`
    finds, from every process that shares the store. When it cannot tell, it raises one of `errors`
    within 2 s, and works again by itself when the cause has gone.
    """

    errors: ClassVar[tuple[type[Exception], ...]]
    """The exceptions, of any method, that mean "cannot be reached": a 503, worth another try."""

    shared: ClassVar[bool]
    """Whether all processes that open the same URL see the same messages."""

    files: ClassVar[int]
    """How many file descriptors the store may hold for each thread that calls it."""

    waits: ClassVar[frozenset[str]]
    """The methods that wait for a disk or another machine, so that others should go on meanwhile.

    Reading a local file does not count: it comes from the system's cache.
    """

    @staticmethod
    @abstractmethod
    def parse(url: str) -> dict[str, Any]:
        """What `url` says, as arguments of `open`; ValueError with what is allowed."""

    @classmethod
    @abstractmethod
    def open(cls, means: Means, **parsed: Any) -> Self:
        """The store that `parse` has understood; Unusable where it can be seen not to work."""

    @abstractmethod
    def put(self, digest: str, message: bytes) -> bool:
        """Store `message`; True when it is new, False when it was there. Atomic and idempotent.

        Of any number of simultaneous calls with one new message, exactly one returns True.
        Raises StoreFull where there is no room for a new message; a stored one still gives False.
        """

    @abstractmethod
    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """Store pairs of digest and message, distinct ones, in few trips; how many are new.

        Calls of `put` meanwhile are not held up until all are stored. After an exception some of
        them may be stored, and putting them again is safe.
        """

    @abstractmethod
    def get(self, digest: str) -> bytes | None:
        """The message stored under `digest`, or None where there is none."""

    @abstractmethod
    def items(self) -> Iterator[tuple[str, bytes]]:
        """Every pair of digest and message that is stored throughout, in bounded memory.

        Whether it gives those that are put meanwhile is open, and a pair can come twice.
        """

    @abstractmethod
    def count(self) -> int:
        """How many messages are stored."""

    @abstractmethod
    def check(self) -> str | None:
        """Ask whether the store can serve; what an operator should know of it, or None.

        Raises one of `errors` where it cannot be reached, and Unusable where it could lose
        messages.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of every file and connection."""
