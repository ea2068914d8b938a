"""The locations that the URLs of Redis name."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Self
from urllib.parse import SplitResult, unquote

from hasher.stores.driver import DEFAULT, Location, Resources
from hasher.stores.redis.cluster import ClusterDriver
from hasher.stores.redis.driver import PREFIX, RedisDriver
from hasher.stores.redis.server import Access, Server
from hasher.stores.redis.single import SingleDriver
from hasher.stores.urls import parameters, split_url

REPLICAS = [str(count) for count in range(10)]


@dataclass(frozen=True)
class RedisLocation(Location):
    """A database of one server."""

    host: str
    port: int
    access: Access
    replicas: int
    prefix: bytes = PREFIX

    @classmethod
    def parse(cls, url: str) -> Self:
        split = split_url(url)
        tls = split.scheme == "rediss"
        query = parameters(split, replicas=REPLICAS, **({"ca": None} if tls else {}))
        database = split.path.strip("/") or "0"
        if not split.hostname or not database.isdecimal():
            raise ValueError(f"must be {split.scheme}://[user:password@]host[:port][/database]")
        ca = query.get("ca")
        if ca and not Path(ca).is_file():
            raise ValueError("must name a file with ca")
        access = Access(*credentials(split), int(database), tls, ca)
        replicas = int(query.get("replicas", 0))
        return cls(url, host_of(split), port_of(split), access, replicas)

    def scratch(self) -> AbstractContextManager[Location]:
        return emptied(replace(self, prefix=new_prefix()))

    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> RedisDriver:  # noqa: ARG002 - nothing is made
        return SingleDriver(Server(self.host, self.port, self.access), self.replicas, self.prefix)


@dataclass(frozen=True)
class ClusterLocation(Location):
    """A cluster, of which some servers are named."""

    addresses: tuple[tuple[str, int], ...]
    access: Access
    replicas: int
    prefix: bytes = PREFIX

    @classmethod
    def parse(cls, url: str) -> Self:
        split = split_url(url)
        query = parameters(split, replicas=REPLICAS)
        who, _, where = split.netloc.rpartition("@")
        hosts = [split_url(f"//{host}") for host in where.split(",")]
        if split.path.strip("/") or not all(host.hostname for host in hosts):
            raise ValueError("must be redis+cluster://[user:password@]host[:port][,host[:port]...]")
        addresses = tuple((host_of(host), port_of(host)) for host in hosts)
        access = Access(*credentials(split_url(f"//{who}@")))
        return cls(url, addresses, access, int(query.get("replicas", 0)))

    def scratch(self) -> AbstractContextManager[Location]:
        return emptied(replace(self, prefix=new_prefix()))

    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> RedisDriver:  # noqa: ARG002 - nothing is made
        return ClusterDriver(self.addresses, self.access, self.replicas, self.prefix)


def new_prefix() -> bytes:
    """Return a new prefix for the keys of a scratch place."""
    return b"hasher-scratch-%s:" % token_hex(8).encode()


@contextmanager
def emptied(place: RedisLocation | ClusterLocation) -> Iterator[Location]:
    """Lend a scratch place, and remove its messages afterwards."""
    try:
        yield place
    finally:
        with closing(place.open()) as driver, suppress(*driver.errors):
            driver.remove_all()


def host_of(url: SplitResult) -> str:
    """Return the name or the IP address of the server."""
    host = unquote(url.hostname or "")
    try:
        encoded = host.encode("idna")  # as the resolver does
    except UnicodeError:
        encoded = b""
    if not encoded or b"\0" in encoded:
        raise ValueError("must have a host that is a name or an IP address")
    return host


def port_of(url: SplitResult) -> int:
    """Return the port, or Redis's own."""
    try:
        return url.port or 6379
    except ValueError:
        raise ValueError("must have a port from 1 to 65535") from None


def credentials(url: SplitResult) -> tuple[str | None, str | None]:
    """Return the user and the password, or None for each that is not given."""
    user, password = url.username, url.password
    return unquote(user) if user else None, unquote(password) if password else None
