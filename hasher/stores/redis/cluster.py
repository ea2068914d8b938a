"""Messages on a Redis Cluster.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

import os
import random
import weakref
from binascii import crc_hqx
from collections import defaultdict
from collections.abc import Iterable, Sequence

from hasher.stores.breaker import CircuitBreaker
from hasher.stores.redis.connection import Command, Reply, kind, require
from hasher.stores.redis.driver import PREFIX, RedisDriver, Row
from hasher.stores.redis.server import Access, Server
from hasher.stores.redis.shared_call import SharedCall

SLOTS = 16384
LEARN = 0.5  # seconds for which a call waits to learn which server holds what; learning goes on
Address = tuple[str, int]


class ClusterDriver(RedisDriver):
    """Messages on the masters of a cluster, some of whose servers are at `addresses`.

    Only masters are asked: a replica that lags could say that a stored message is missing. Which
    server holds what is learned on first use, and again when a server fails or has moved a slot.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        access: Access,
        replicas: int = 0,
        prefix: bytes = PREFIX,
    ) -> None:
        super().__init__(replicas, prefix)
        self._access = access
        self._known: dict[Address, Server] = {}
        self._entrances = [self._server_at(address) for address in addresses]
        self._holders: list[Server | None] = []
        self._start()
        restart = weakref.WeakMethod(self._start)
        os.register_at_fork(after_in_child=lambda: (start := restart()) and start())

    def _start(self) -> None:
        """Begin with no call in hand, after a fork too."""
        self._learning = SharedCall(self._learn, "the Redis cluster has not said who holds what")
        self._tells = CircuitBreaker()

    def _call(self, commands: Sequence[Command], replicas: int = 0) -> list[Reply]:
        replies = self._call_holder(commands, replicas)
        return [
            self._redirected(command, reply, replicas) if kind(reply) in {"MOVED", "ASK"} else reply
            for command, reply in zip(commands, replies, strict=True)
        ]

    def _call_holder(self, commands: Sequence[Command], replicas: int) -> list[Reply]:
        """Call the server that holds the first key, as far as this process knows."""
        key = key_of(commands[0])
        try:
            return self._holder(key).call(commands, replicas)
        except ConnectionError:
            self._wait_to_learn()
            return self._holder(key).call(commands, replicas)
        except TimeoutError:
            self._learning.begin()  # there is no time left to wait for it
            raise

    def _redirected(self, command: Command, redirection: Reply, replicas: int) -> Reply:
        """Call the server that another has named: for good (MOVED), or for now (ASK)."""
        how, _, address = str(redirection).split()
        host, _, port = address.rpartition(":")
        server = self._server_at((host or self._holder(key_of(command)).host, int(port)))
        if how == "MOVED":
            self._learning.begin()
            return server.call([command], replicas)[0]
        return server.call([(b"ASKING",), command], replicas)[1]

    def _by_server(self, rows: Iterable[Row]) -> Iterable[list[Row]]:
        groups = defaultdict(list)
        for row in rows:
            groups[self._holder(row[0])].append(row)
        return groups.values()

    def _servers(self) -> list[Server]:
        if not self._holders:
            self._wait_to_learn()
        return [holder for holder in dict.fromkeys(self._holders) if holder]

    def check(self) -> str | None:
        try:
            return super().check()
        except ConnectionError:
            self._wait_to_learn()
            return super().check()

    def _holder(self, key: bytes) -> Server:
        """Return the server that holds `key`, as far as this process knows."""
        if not self._holders:
            self._wait_to_learn()
        holder = self._holders[crc_hqx(key, 0) % SLOTS]
        if holder is None:
            raise ConnectionError("no server of the Redis cluster holds the slot")
        return holder

    def _wait_to_learn(self) -> None:
        """Wait until the cluster has said which server holds what."""
        self._tells.call(self._learning.result, LEARN)

    def _learn(self) -> None:
        """Ask any of the servers which of them holds what."""
        failure: Exception = ConnectionError("the Redis cluster has no servers")
        servers = {*self._entrances, *self._known.values()}
        for server in random.sample(list(servers), len(servers)):
            try:
                ranges = require(server.call([(b"CLUSTER", b"SLOTS")])[0])
            except self.errors as error:
                failure = error
            else:
                self._holders = self._holders_of(ranges, server)
                return
        raise failure

    def _holders_of(self, ranges: Reply, teller: Server) -> list[Server | None]:
        """Return the holder of each slot. A server without a host has that of `teller`."""
        holders: list[Server | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_replicas in ranges:
            name = host.decode() if host else teller.host
            holders[first : last + 1] = [self._server_at((name, port))] * (last + 1 - first)
        return holders

    def _server_at(self, address: Address) -> Server:
        if address not in self._known:
            self._known.setdefault(address, Server(*address, self._access))
        return self._known[address]

    def close(self) -> None:
        for server in self._known.values():
            server.close()


def key_of(command: Command) -> bytes:
    """Return the one key that `command` names."""
    return command[3] if command[0] == b"EVAL" else command[1]
