"""The contract between hasher and its stores."""

from abc import ABC, abstractmethod
from typing import ClassVar


class StoreFull(Exception):
    """The store takes no new message until there is room again; nothing that it holds is lost."""


class Store(ABC):
    """Messages by digest. What this says binds both sides; tests/test_stores.py holds it.

    The caller gives digests that are well-formed (64 lowercase hexadecimal characters) and that
    are the message's own, and calls no method after `close`. Messages are bytes, empty ones too.

    The store may be called from any thread at any time, and keeps no connection across a fork.
    It never alters, expires or evicts a message: what `put` has returned for, every later `get`
    finds, from every process that shares the store. When it cannot tell, it raises one of `errors`.
    """

    errors: ClassVar[tuple[type[Exception], ...]]
    """The exceptions, of any method, that mean "cannot be reached": a 503, worth another try."""

    shared: ClassVar[bool]
    """Whether all processes that open the same URL see the same messages."""

    @abstractmethod
    def put(self, digest: str, message: bytes) -> bool:
        """Store `message`; True when it is new, False when it was there. Atomic and idempotent.

        Of any number of simultaneous calls with one new message, exactly one returns True.
        Raises StoreFull where there is no room for a new message; a stored one still gives False.
        """

    @abstractmethod
    def get(self, digest: str) -> bytes | None:
        """The message stored under `digest`, or None where there is none."""

    @abstractmethod
    def count(self) -> int:
        """How many messages are stored."""

    @abstractmethod
    def close(self) -> None:
        """Let go of every file and connection."""
