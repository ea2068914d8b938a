"""The contract between hasher and its drivers: bytes by digest.

`hasher.stores.messages` is the layer over a driver: it hashes, verifies and times. The docstrings
here bind both sides, and the conformance suite holds every driver to them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, NamedTuple, Self

from hasher.stores import urls

MiB = 1024 * 1024


class StoreFull(Exception):
    """The store takes no new message until there is room again; nothing that it holds is lost."""


class Unusable(Exception):
    """The store must not be used as it is. The text says what is wrong and what to do."""


class DamagedMessage(Exception):
    """What the store holds under a digest is not the message that has this digest."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


class TakenDown(Exception):
    """An operator has taken down the message with this digest."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"{digest} was taken down")
        self.digest = digest


class Outcome(Enum):
    """What storing a message came to."""

    NEW = "new"
    REPEATED = "repeated"
    MENDED = "mended"
    """Other bytes stood under the digest, and the message replaced them."""


class Stored(NamedTuple):
    """How many messages came to each outcome."""

    new: int = 0
    repeated: int = 0
    mended: int = 0


@dataclass(frozen=True)
class Resources:
    """What one process has for its store."""

    memory_limit: int = 256 * MiB
    """The memory that a store in this process may fill, in bytes."""
    threads: int = 8
    """How many threads call the store at once."""


DEFAULT = Resources()


class Driver(ABC):
    """Messages by digest.

    The caller gives digests that are well-formed (64 lowercase hexadecimal characters) and that
    are the message's own, and calls no method after `close`. Messages are bytes, empty ones too.

    Every method may be called from any thread at any time, and no connection crosses a fork. A
    driver never alters, expires or evicts a message: once `put` has returned, every later `get`
    finds the message, from every process that shares the store, unless an operator calls `remove`.
    If it cannot tell, it raises one of `errors` within 2 s, and it works again without help when
    the cause has gone.

    `remove` puts a tombstone (`hasher.stores.tombstone`) under the digest, which no other method
    but `restore` replaces. `get`, `items` and `count` treat it as they do a message.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    """The exceptions that any method raises for "unreachable": a 503, worth another try."""

    shared: ClassVar[bool] = True
    """Whether all processes that open the same URL see the same messages."""

    blocking: ClassVar[frozenset[str]] = frozenset()
    """The methods that wait for a disk or another machine: other threads should go on meanwhile.

    Reading a local file does not count: it comes from the system's cache.
    """

    @abstractmethod
    def put(self, digest: str, message: bytes) -> Outcome:
        """Store `message`, in one atomic step that is safe to repeat.

        NEW if nothing stood under `digest`, REPEATED if this message did. If anything else did,
        `message` replaces it, and the outcome is MENDED: the caller has just hashed the message.
        Of any number of simultaneous calls with one new message, exactly one returns NEW.
        Raises TakenDown if a tombstone stands there. Raises StoreFull if there is no room for a new
        message; a stored one is still REPEATED.
        """

    @abstractmethod
    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        """Store distinct pairs of digest and message in few trips; return what they came to.

        It does not hold up calls of `put` until all are stored. Raises TakenDown with the digest of
        a message that was taken down. After an exception some of the pairs may be stored, and
        putting them again is safe.
        """

    @abstractmethod
    def get(self, digest: str) -> bytes | None:
        """Return the message or the tombstone that is stored under `digest`, or None.

        Raises DamagedMessage if it is something that cannot be a message, such as a list of Redis.
        """

    @abstractmethod
    def remove(self, digest: str, tombstone: bytes) -> Outcome:
        """Store `tombstone` in place of what stands under `digest`, in one atomic step.

        NEW if nothing stood there, MENDED if anything did, and REPEATED if a tombstone did, which
        stays. A full store takes it too, unless the disk has no room for any change.
        """

    @abstractmethod
    def restore(self, digest: str) -> bool:
        """Take away the tombstone under `digest`, in one atomic step; return whether it stood."""

    @abstractmethod
    def removed_of(self, digests: Sequence[str]) -> list[str]:
        """Return those of `digests` under which a tombstone stands."""

    @abstractmethod
    def removed(self) -> Iterator[tuple[str, bytes]]:
        """Yield every pair of digest and tombstone that is stored throughout, in bounded memory.

        It may yield a pair twice.
        """

    @abstractmethod
    def items(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield every digest, with the message or tombstone that is stored throughout under it.

        It takes bounded memory. None takes the place of a message that cannot be read. Raises
        Unusable at the end if the digests of some messages cannot be read either. It may or may not
        yield messages that are put meanwhile, and may yield a pair twice.
        """

    @abstractmethod
    def count(self) -> int:
        """Return how many messages and tombstones are stored."""

    @abstractmethod
    def check(self) -> str | None:
        """Ask whether the store can serve; return what an operator should know of it, or None.

        Raises one of `errors` if it cannot be reached, and Unusable if it may lose messages.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of every file and connection."""


@dataclass(frozen=True)
class Location(ABC):
    """Where messages are kept, as a store's URL says. `str()` is the URL without a password."""

    url: str = field(repr=False)

    shared: ClassVar[bool] = True
    """As the driver's."""

    engine: ClassVar[str] = ""
    """The library in this process that keeps the messages, with its version, if there is one."""

    @classmethod
    @abstractmethod
    def parse(cls, url: str) -> Self:
        """Return what `url` says. ValueError says what is allowed, and no password."""

    @abstractmethod
    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> Driver:
        """Open the store. Unusable if it cannot work as it is.

        The driver of a server that is down opens, and raises one of its `errors` when it is used.
        `create` says whether a store that does not exist yet may be made.
        """

    @abstractmethod
    def scratch(self) -> AbstractContextManager["Location"]:
        """Lend an empty place beside this one, for a test; it is removed afterwards."""

    @property
    def scheme(self) -> str:
        """The kind of store, as its URL says."""
        return self.url.partition("://")[0]

    def __str__(self) -> str:
        return urls.redacted(self.url)
