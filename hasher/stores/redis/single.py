"""Messages on one Redis server."""

from collections.abc import Iterable, Sequence

from hasher.stores.redis.connection import Command, Reply
from hasher.stores.redis.driver import PREFIX, RedisDriver, Row
from hasher.stores.redis.server import Server


class SingleDriver(RedisDriver):
    """Messages on `server`."""

    def __init__(self, server: Server, replicas: int = 0, prefix: bytes = PREFIX) -> None:
        super().__init__(replicas, prefix)
        self._server = server

    def _call(self, commands: Sequence[Command], replicas: int = 0) -> list[Reply]:
        return self._server.call(commands, replicas)

    def _by_server(self, rows: Iterable[Row]) -> Iterable[list[Row]]:
        return [list(rows)]

    def _servers(self) -> list[Server]:
        return [self._server]

    def close(self) -> None:
        self._server.close()
