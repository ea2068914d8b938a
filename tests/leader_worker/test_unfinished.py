"""Requests of which more has yet to come."""

import logging
import socket
import sys
import time

import pytest

from leader_worker.connections import UNFINISHED, Connection, Connections
from leader_worker.lane import is_whole
from leader_worker.shares import Share
from leader_worker.sockets import LeadersSocket
from leader_worker.unfinished import PROGRESS, Unfinished

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


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
        assert 1 < parts * (sys.getsizeof(b"x") + pointer) <= UNFINISHED
        assert connections.take_unfinished(conn) == b"x" * parts
        assert connections.hold(conn, Unfinished(bytes(UNFINISHED // 2), None, None))


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


@pytest.mark.parametrize(
    "body",
    [
        b"0\r\n\r\n",
        b"3\r\nfoo\r\n0\r\n\r\n",
        b"A;b=c\r\n\r\n0\r\n\r\nfoo\r\n00\r\n\r\n",
        b"7\r\n\r\n0\r\n\r\n\r\n3 ; a\r\nfoo\r\n0\r\nX: y\r\nZ: \r\n\r\n",
    ],
)
def test_chunks_are_whole_at_their_last_byte_and_not_before(body: bytes) -> None:
    sent = HEAD + body
    end = sent.find(b"\r\n\r\n")
    whole = [size for size in range(len(HEAD), len(sent) + 1) if is_whole(sent[:size], end)]
    assert whole == [len(sent)]
    assert is_whole(sent + b"GET", end)


@pytest.mark.parametrize("body", [b"-5\r\n", b"x\r\n0\r\n\r\n", b"f" * 17 + b"\r\n", b"1\n"])
def test_what_are_no_chunks_is_not_whole(body: bytes) -> None:
    assert not is_whole(HEAD + body, len(HEAD) - 4)
