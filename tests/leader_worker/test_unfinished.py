"""Requests of which more has yet to come."""

import logging
import socket
import sys
import time

from leader_worker.connections import ROOM, Connection, Connections
from leader_worker.shares import Share
from leader_worker.sockets import LeadersSocket
from leader_worker.unfinished import PROGRESS, Unfinished


class Worker:
    """What a share is told of a worker."""

    age = 1


def test_the_smallest_parts_count_with_all_the_memory_that_they_need() -> None:
    ours, theirs = socket.socketpair()
    with LeadersSocket(fileno=ours.detach()) as wrapped, theirs:
        connections = Connections([], 1, Share(Worker()), logging.getLogger())
        conn = Connection(wrapped, None, None, {})
        unfinished = Unfinished(b"x", None, None)
        while connections.hold(conn, unfinished):
            unfinished.add(b"x")
        pointer = 8  # in the list of parts
        parts = len(unfinished.parts)
        assert 1 < parts * (sys.getsizeof(b"x") + pointer) <= ROOM
        assert connections.take_unfinished(conn) == b"x" * parts
        assert connections.hold(conn, Unfinished(bytes(ROOM // 2), None, None))


def test_what_comes_makes_up_for_the_time_before_by_its_share() -> None:
    long_ago = time.monotonic() - 100
    dripping = Unfinished(bytes(PROGRESS), None, long_ago)
    for _ in range(10):
        dripping.add(b"x")
    assert dripping.since < long_ago + 1
    dripping.add(bytes(PROGRESS // 2))
    assert long_ago + 49 < dripping.since < long_ago + 60
    dripping.add(bytes(PROGRESS))
    assert dripping.since > long_ago + 99
    large = Unfinished(bytes(80 * PROGRESS), None, long_ago)
    large.add(bytes(PROGRESS))
    assert long_ago + 9 < large.since < long_ago + 20
