"""The servers of every store that several machines share, for tests that are the same for all."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, Self

from tests.support.postgresql import PostgreSQLServer
from tests.support.servers import RedisServer


class StoreServer(Protocol):
    """A server that a test can break. It is up while its `with` block lasts."""

    @property
    def url(self) -> str:
        """The store's URL."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self) -> None:
        """Start it, and wait until it answers."""

    def runs(self) -> bool:
        """Whether it was started, and has not ended."""

    def kill(self) -> None:
        """End it as a power cut would."""

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""

    def alter(self, digest: str, text: str) -> None:
        """Store another text under a digest, behind hasher's back."""

    def crowded(self) -> AbstractContextManager[None]:
        """Hold all its connections while the block lasts."""

    def require_password(self, password: str) -> None:
        """Let in who brings this password only."""

    def url_with(self, password: str) -> str:
        """The store's URL, with a password."""


def redis(folder: Path) -> RedisServer:
    """A Redis that loses nothing."""
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    return RedisServer(folder / "redis", *durable)


def postgresql(_folder: Path) -> PostgreSQLServer:
    """A PostgreSQL as it comes, which loses nothing."""
    return PostgreSQLServer()


def few_of_redis(folder: Path) -> RedisServer:
    """A Redis that takes three connections."""
    return RedisServer(folder / "redis", "--maxclients", "3")


def few_of_postgresql(_folder: Path) -> PostgreSQLServer:
    """A PostgreSQL that takes six connections."""
    return PostgreSQLServer("max_connections=6", "superuser_reserved_connections=0")


Make = Callable[[Path], StoreServer]
SERVERS: dict[str, Make] = {"redis": redis, "postgresql": postgresql}
WITH_FEW_CONNECTIONS: dict[str, Make] = {"redis": few_of_redis, "postgresql": few_of_postgresql}
