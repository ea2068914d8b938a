"""TLS by gunicorn itself: it takes the fast lane, and no client of it delays another."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leader_worker.server import HELLO, Client, Server
from tests.leader_worker.test_answers import LANES, request
from tests.leader_worker.test_faults import MANY, clients
from tests.support.servers import certificate, until

START = b"\x16\x03\x01\x02\x00\x01"  # of a handshake


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def context(files: tuple[Path, Path]) -> ssl.SSLContext:
    """What a client needs to trust the server."""
    return ssl.create_default_context(cafile=files[0])


@pytest.fixture(scope="module")
def secure(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two threads that speaks TLS."""
    options = ("--threads", "2", "--certfile", str(files[0]), "--keyfile", str(files[1]))
    with Server(tmp_path_factory.mktemp("tls"), *options) as server:
        yield server


def is_well(server: Server, context: ssl.SSLContext) -> bool:
    """Return whether it says hello."""
    with Client(server.address, context) as client:
        client.send(HELLO)
        return client.content() == b"hello"


def test_both_ways_serve(secure: Server, context: ssl.SSLContext) -> None:
    with Client(secure.address, context) as client:
        for fields in LANES.values():
            names = fields.split("\r\n")[:-1]
            client.send(request("/environment", *names) * 2)
            for _ in range(2):
                assert client.receive().json["wsgi.url_scheme"] == "https"


def test_large_bodies_go_in_and_out(secure: Server, context: ssl.SSLContext) -> None:
    body = b"y" * 500_000
    with Client(secure.address, context) as client:
        client.send(request("/echo", body=body, method="POST"))
        assert client.content() == body
        client.send(request("/large?3000000"))
        assert client.content() == b"x" * 3_000_000


@pytest.mark.parametrize("fields", LANES.values(), ids=LANES)
@pytest.mark.parametrize("size", [8191, 8192, 8193, 16_000])
def test_requests_in_one_record_are_all_answered(
    secure: Server, context: ssl.SSLContext, fields: str, size: int
) -> None:
    """Of what is left of a record that was read in part, no poller tells."""
    names = fields.split("\r\n")[:-1]
    bare = len(request("/echo", *names, body=b"x" * 1000, method="POST"))
    body = b"x" * (size - bare + 999)  # whose length has as many digits, or one more
    with Client(secure.address, context) as client:
        client.send(request("/echo", *names, body=body, method="POST") + HELLO * 3)
        assert client.content() == body
        assert [client.content() for _ in range(3)] == [b"hello"] * 3


@pytest.mark.parametrize("size", range(8100, 8200, 10))
def test_a_request_that_begins_in_what_is_left_of_a_record_is_answered(
    secure: Server, context: ssl.SSLContext, size: int
) -> None:
    """Gunicorn's parser takes 8,192 bytes of the record, which end in the next request's head."""
    head, body = request("/echo", "Transfer-Encoding: chunked", method="POST"), b"x" * size
    with Client(secure.address, context) as client:
        client.send(head)
        assert is_well(secure, context)  # by then a thread waits for the body
        client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) + HELLO * 3)
        assert client.content() == body
        assert [client.content() for _ in range(3)] == [b"hello"] * 3


def test_what_is_no_tls_is_refused_in_one_line(secure: Server, context: ssl.SSLContext) -> None:
    with clients(secure, 5, HELLO) as plain:
        assert all(client.rest() == b"" for client in plain)
    until(lambda: "Refused request" in secure.log)
    assert is_well(secure, context)
    assert "Traceback" not in secure.log


def test_stalled_handshakes_delay_nobody_and_are_cut(
    secure: Server, context: ssl.SSLContext
) -> None:
    with clients(secure, MANY, START) as stalled:
        for _ in range(10):
            assert is_well(secure, context)
        assert all(client.rest() == b"" for client in stalled)
    assert is_well(secure, context)
    assert "Traceback" not in secure.log


def test_clients_that_stall_after_their_handshake_hold_no_thread(
    secure: Server, context: ssl.SSLContext
) -> None:
    stalled = [Client(secure.address, context) for _ in range(MANY)]
    for client in stalled:
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
    for _ in range(10):
        assert is_well(secure, context)
    for client in stalled:
        client.close()


def test_a_client_that_resets_its_handshake_leaves_no_trace(
    secure: Server, context: ssl.SSLContext
) -> None:
    for sent in (b"", START):
        with Client(secure.address) as client:
            client.send(sent)
            assert is_well(secure, context)  # so its handshake was begun
            linger = b"\1\0\0\0\0\0\0\0"  # so that closing sends a reset
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert is_well(secure, context)  # so the reset was looked at
    assert "Traceback" not in secure.log
