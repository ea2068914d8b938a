"""`redis://`, `rediss://` and `redis+cluster://`: a server that many machines share.

Speaks to Redis from version 6 on, and to Valkey. Whether an acknowledged message survives the
server's end is the server's own setting (https://redis.io/docs/management/persistence/);
`?replicas=N` also waits for N of its replicas (https://redis.io/commands/wait/).
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import SplitResult, unquote, urlsplit

from redis import BlockingConnectionPool, Redis, RedisCluster, SSLConnection
from redis.backoff import ConstantBackoff, NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import (
    AskError,
    MovedError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as Disconnected,
)
from redis.exceptions import (
    TimeoutError as TimedOut,
)
from redis.retry import Retry

from hasher.stores.driver import (
    DEFAULT,
    Driver,
    Location,
    Outcome,
    Resources,
    Stored,
    StoreFull,
    Unusable,
)
from hasher.stores.outage import Outage
from hasher.stores.urls import parameters

PREFIX = b"hasher:"
CONNECT, OPERATE, POOL = 0.5, 0.7, 0.5  # seconds until each is given up; a 503 is due within 2 s
ACKNOWLEDGE = 600  # milliseconds that replicas have, which is less than OPERATE
TRIP = 1000  # messages written in one trip
BATCH = 100  # messages read in one trip: at the default limit on bodies that is 100 MiB at most


class TooFewReplicas(RedisError):
    """The message is stored, but not on as many replicas as were asked for."""


@dataclass(frozen=True)
class RedisLocation(Location):
    """One server."""

    address: Mapping[str, Any]
    replicas: int

    @classmethod
    def parse(cls, url: str) -> Self:
        split = urlsplit(url)
        known: dict[str, Any] = {"replicas": [str(count) for count in range(10)]}
        if split.scheme == "rediss":
            known["ca"] = None
        query = parameters(split, **known)
        address = cluster_of(split) if "+" in split.scheme else server_of(split, query.get("ca"))
        return cls(url, address, int(query.get("replicas", 0)))

    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> "RedisDriver":  # noqa: ARG002 - nothing is made
        return RedisDriver(lambda: server(resources.threads, **self.address), self.replicas)


@dataclass(frozen=True)
class ClusterLocation(RedisLocation):
    """Some of the servers of a cluster."""

    def open(self, resources: Resources = DEFAULT, *, create: bool = True) -> "RedisDriver":  # noqa: ARG002 - nothing is made
        return RedisDriver(lambda: cluster(resources.threads, **self.address), self.replicas)


class RedisDriver(Driver):
    """Messages under `hasher:<digest>`, on one server or a cluster.

    `connect` makes the client, on first use, so that a service starts while its store is down.
    """

    errors: ClassVar[tuple[type[Exception], ...]] = (RedisError, RedisClusterException, OSError)
    blocking: ClassVar[frozenset[str]] = frozenset({"get", "put", "put_many", "check"})

    def __init__(self, connect: Callable[[], Any], replicas: int = 0) -> None:
        self._replicas = replicas
        self._outage = Outage()
        self._connected: Any = None
        self._connect = OneAtATime(connect)
        self._refresh = OneAtATime(self._learn_topology)

    def put(self, digest: str, message: bytes) -> Outcome:
        return Outcome.NEW if self.put_many([(digest, message)]).new else Outcome.REPEATED

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> Stored:
        pairs = {PREFIX + digest.encode(): message for digest, message in messages}
        new = sum(
            self._put_at_node(keys[start : start + TRIP], pairs)
            for keys in self._by_node(pairs)
            for start in range(0, len(keys), TRIP)
        )
        return Stored(new, len(messages) - new)

    def _put_at_node(self, keys: Sequence[bytes], pairs: Mapping[bytes, bytes]) -> int:
        """Store `keys`, which one server holds; how many are new."""
        try:
            new: int = self._at(keys[0], partial(self._add, keys, pairs))
        except OutOfMemoryError as error:
            self._require_known(keys, error)
            return 0
        return new

    def _add(self, keys: Sequence[bytes], pairs: Mapping[bytes, bytes], node: Any) -> int:
        """Store `keys` at `node`, in one trip; how many are new.

        WAIT counts the replicas that have all that this connection's last command could see, so
        a repeat too is acknowledged only when the message is where it was asked to be.
        """
        if len(keys) == 1 and not self._replicas:
            return int(node.set(keys[0], pairs[keys[0]], nx=True) is not None)
        pipeline = node.pipeline(transaction=False)
        for key in keys:
            pipeline.set(key, pairs[key], nx=True)
        if self._replicas:
            pipeline.execute_command("WAIT", self._replicas, ACKNOWLEDGE)
        results = pipeline.execute(raise_on_error=False)
        for failure in results:
            if isinstance(failure, Exception):
                raise failure  # the pipeline's own error would hold the message
        if self._replicas and results.pop() < self._replicas:
            raise TooFewReplicas(f"fewer than {self._replicas} replicas have acknowledged")
        return sum(result is not None for result in results)

    def _require_known(self, keys: Sequence[bytes], error: Exception) -> None:
        """StoreFull where a key would be new to a server that takes none."""
        count = self._at(keys[0], lambda node: node.exists(*keys))
        if count < len(keys):
            raise StoreFull from error
        if self._replicas:
            raise error

    def get(self, digest: str) -> bytes | None:
        key = PREFIX + digest.encode()
        message: bytes | None = self._at(key, lambda node: node.get(key))
        return message

    def items(self) -> Iterator[tuple[str, bytes]]:
        keys = self._client().scan_iter(match=PREFIX + b"*", count=1000)
        while batch := list(islice(keys, BATCH)):
            pipeline = self._client().pipeline(transaction=False)
            for key in batch:
                pipeline.get(key)
            for key, message in zip(batch, pipeline.execute(), strict=True):
                if message is not None:
                    yield key.removeprefix(PREFIX).decode(), message

    def count(self) -> int:
        return sum(1 for _ in self._client().scan_iter(match=PREFIX + b"*", count=10_000))

    def check(self) -> str | None:
        self._outage.require_over()
        try:
            remarks = [self._examine(node) for node in self._nodes()]
        except (TimedOut, TimeoutError):
            self._outage.begin()
            raise
        except (Disconnected, RedisClusterException):
            if isinstance(self._client(), Redis):
                raise
            self._refresh.wait(CONNECT)
            remarks = [self._examine(node) for node in self._nodes()]
        return next(filter(None, remarks), None)

    def _examine(self, node: Any) -> str | None:
        """What `check` says of one server."""
        node.ping()
        try:
            info = {**node.info("memory"), **node.info("replication")}
            settings = node.config_get("save", "appendonly")
        except ResponseError:
            return "the Redis server does not let hasher see whether it keeps what it is given"
        policy = info.get("maxmemory_policy", "noeviction")
        if policy.startswith("allkeys"):
            raise Unusable(
                f"the Redis server would drop messages to make room (maxmemory-policy {policy}): "
                "set its maxmemory-policy to noeviction"
            )
        if info.get("role") == "slave":
            raise Unusable(
                "the Redis server is a replica, which takes no messages: name its master"
            )
        if info.get("connected_slaves", 0) < self._replicas:
            raise TooFewReplicas(f"the Redis server has fewer than {self._replicas} replicas")
        if settings.get("appendonly") == "no" and not settings.get("save"):
            return "the Redis server keeps nothing on disk: messages end with it"
        return None

    def close(self) -> None:
        if self._connected is not None:
            self._connected.close()

    def _client(self) -> Any:
        """The client, made once for all threads."""
        if self._connected is None:
            self._connected = self._connect.wait(CONNECT + OPERATE)
        return self._connected

    def _learn_topology(self) -> None:
        """Ask the cluster which of its servers holds what."""
        self._client().nodes_manager.initialize()

    def _nodes(self) -> list[Any]:
        """A client for each server that holds messages."""
        client = self._client()
        if isinstance(client, Redis):
            return [client]
        return [client.get_redis_connection(node) for node in client.get_primaries()]

    def _by_node(self, keys: Mapping[bytes, bytes]) -> list[list[bytes]]:
        """`keys` in groups, each of which one server holds."""
        client = self._client()
        if isinstance(client, Redis):
            return [list(keys)] if keys else []
        groups = defaultdict(list)
        for key in keys:
            groups[client.get_node_from_key(key)].append(key)
        return list(groups.values())

    def _at(self, key: bytes, command: Callable[[Any], Any]) -> Any:
        """What `command` returns at the server that holds `key`."""
        self._outage.require_over()
        try:
            client = self._client()
            if isinstance(client, Redis):
                return command(client)
            return self._in_cluster(client, key, command)
        except (TimedOut, TimeoutError):
            self._outage.begin()
            raise

    def _in_cluster(self, client: Any, key: bytes, command: Callable[[Any], Any]) -> Any:
        """As `_at`, in a cluster, which is asked anew who holds what when a server fails."""
        try:
            return command(client.get_redis_connection(client.get_node_from_key(key)))
        except (MovedError, Disconnected, RedisClusterException):
            self._refresh.wait(CONNECT)
            return command(client.get_redis_connection(client.get_node_from_key(key)))
        except TimedOut:
            self._refresh.begin()  # there is no time to wait for it now
            raise
        except AskError:
            if self._replicas:
                raise
            return command(client)  # which follows a slot that is just being moved


class OneAtATime:
    """A call that many threads want: it runs in a thread of its own, and they wait for the same.

    So no thread waits longer than it wants to, and a server that hangs is not asked by each.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._running: Future[Any] | None = None

    def begin(self) -> "Future[Any]":
        """Start the call, unless it is running already."""
        with self._lock:
            if self._running is None or self._running.done():
                self._running = Future()
                threading.Thread(target=self._run, args=(self._running,), daemon=True).start()
            return self._running

    def wait(self, seconds: float) -> Any:
        """What the call returns, or raises; TimeoutError when that takes longer."""
        return self.begin().result(seconds)

    def _run(self, outcome: "Future[Any]") -> None:
        try:
            outcome.set_result(self._call())
        except Exception as error:  # noqa: BLE001 - it is raised where the call is waited for
            outcome.set_exception(error)


def server_of(url: SplitResult, ca: str | None) -> dict[str, Any]:
    """The address in a `redis://` or `rediss://` URL, as arguments of `server`."""
    database = url.path.strip("/") or "0"
    if not url.hostname or not database.isdecimal():
        raise ValueError(f"must be {url.scheme}://[user:password@]host[:port][/database]")
    address = {"host": unquote(url.hostname), "port": port_of(url), "db": int(database)}
    if url.scheme == "rediss":
        address["connection_class"] = SSLConnection
        if ca and not Path(ca).is_file():
            raise ValueError("must name a file with ca")
        if ca:
            address["ssl_ca_certs"] = ca
    return {**address, **credentials(url)}


def cluster_of(url: SplitResult) -> dict[str, Any]:
    """The addresses in a `redis+cluster://` URL, as arguments of `cluster`."""
    hosts = [urlsplit(f"//{host}") for host in url.netloc.rpartition("@")[2].split(",")]
    if url.path.strip("/") or not all(host.hostname for host in hosts):
        raise ValueError("must be redis+cluster://[user:password@]host[:port][,host[:port]...]")
    nodes = [(host.hostname, port_of(host)) for host in hosts]
    first = urlsplit(f"//{url.netloc.split(',')[0]}")
    return {"startup_nodes": nodes, **credentials(first)}


def port_of(url: SplitResult) -> int:
    """The port, or Redis's own."""
    try:
        return url.port or 6379
    except ValueError:
        raise ValueError("must have a port from 1 to 65535") from None


def credentials(url: SplitResult) -> dict[str, str]:
    """The user and password, where there are any."""
    named = {"username": url.username, "password": url.password}
    return {name: unquote(value) for name, value in named.items() if value}


COMMON: dict[str, Any] = {
    "socket_connect_timeout": CONNECT,
    "socket_timeout": OPERATE,
    "socket_keepalive": True,
    "protocol": 2,
}


def server(threads: int, **address: Any) -> Redis:
    """A client of one server, with a connection for every thread.

    A lost connection is made anew once, since the server may have restarted; a time-out is not
    tried again, since it has used up the time.
    """
    retry = Retry(NoBackoff(), 1, supported_errors=(Disconnected,))
    pool = BlockingConnectionPool(  # type: ignore[no-untyped-call]
        max_connections=threads, timeout=POOL, retry=retry, **COMMON, **address
    )
    return Redis(connection_pool=pool)


def cluster(threads: int, startup_nodes: Sequence[tuple[str, int]], **address: Any) -> RedisCluster:
    """A client of a cluster, with up to a connection for every thread to each of its servers."""
    return RedisCluster(
        startup_nodes=[
            ClusterNode(host, port)  # type: ignore[no-untyped-call]
            for host, port in startup_nodes
        ],
        retry=Retry(ConstantBackoff(0), 1),
        max_connections=threads,
        **COMMON,
        **address,
    )
