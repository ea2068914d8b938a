"""How two workers share new connections; both run in this thread, so the order is fixed."""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from leader_worker import connections
from leader_worker.connections import Connection, Connections
from leader_worker.shares import Share
from leader_worker.sockets import LeadersSocket

LONG = 60.0  # seconds
AGES = count(1)


class Worker:
    """A worker as its share sees it, with the connections that it has."""

    def __init__(self, listener: socket.socket) -> None:
        self.age = next(AGES)
        self.share = Share(self)
        self.connections = Connections([listener], 100, self.share, logging.getLogger())
        self.connections.listen(lambda _: self.welcome, self.connections.end, lambda: None)

    def welcome(self, accepted: socket.socket, client: Any) -> Connection:
        """Make a connection of an accepted socket."""
        accepted.settimeout(0)
        return Connection(LeadersSocket(fileno=accepted.detach()), client, None, {})

    def next_client(self) -> Any:
        """Return the address of the client that is taken, or that has sent something."""
        conn = self.connections.next_ready()
        if conn.sock.take(1) is None:
            self.connections.keep(conn, LONG)
        return conn.client


class Front:
    """A listening socket, its two workers, and clients that connect."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.busy, self.other = Worker(self.listener), Worker(self.listener)
        self.clients: list[socket.socket] = []

    def connect(self) -> Any:
        """Connect a client; return its address."""
        client = socket.create_connection(self.listener.getsockname())
        self.clients.append(self.stack.enter_context(client))
        return client.getsockname()


@pytest.fixture
def front() -> Iterator[Front]:
    """Return a front whose first worker has six connections and whose second has none."""
    with ExitStack() as stack:
        made = Front(stack)
        for _ in range(6):
            assert made.connect() == made.busy.next_client()
        yield made
        for worker in made.busy, made.other:
            for conn in list(worker.connections.all):
                worker.connections.end(conn)
            worker.share.leave()


def test_a_worker_that_has_more_leaves_the_next_to_another(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "YIELD", LONG)
    new = front.connect()
    front.clients[0].send(b"x")
    assert front.busy.next_client() == front.clients[0].getsockname()
    assert front.other.next_client() == new


def test_what_another_does_not_take_in_time_it_takes_itself(front: Front) -> None:
    new = front.connect()
    assert front.busy.next_client() == new


def test_a_worker_with_its_share_takes_the_next_at_once(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        assert front.connect() == front.other.next_client()
    monkeypatch.setattr(connections, "YIELD", LONG)
    new = front.connect()
    assert front.busy.next_client() == new


def test_nobody_waits_for_a_worker_that_has_left(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.other.share.leave()
    monkeypatch.setattr(connections, "YIELD", LONG)
    new = front.connect()
    assert front.busy.next_client() == new
