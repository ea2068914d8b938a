"""How connections come to the threads of a worker, on one gunicorn with nothing in front of it."""

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPSConnection
from pathlib import Path
from threading import Thread

import pytest

from tests.support.servers import certificate, until
from tests.support.service import Client, Service

THREADS = 3
HEAD = b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
STALLED = {
    "silent": b"",
    "head": b"GET /healthz HTTP/1.1\r\nX: ",
    "body": HEAD + b"Content-Length: 10\r\n\r\nx",
    "large body": HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000,
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nx",
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with few threads."""
    log = tmp_path_factory.mktemp("few") / "log"
    with Service(log, HASHER_THREADS=str(THREADS)) as running:
        yield running


@pytest.mark.parametrize("kind", STALLED)
def test_one_thread_that_is_left_answers_all(few: Service, kind: str) -> None:
    with ExitStack() as stack:
        for _ in range(THREADS - 1):
            stack.enter_context(few.connect()).send(STALLED[kind])
        for _ in range(20):
            few.assert_well(within=1)


def test_a_reader_of_much_that_stalls_leaves_the_lead_to_others(few: Service) -> None:
    name = few.post("x" * 1_000_000).json["digest"]
    with ExitStack() as stack:
        for _ in range(THREADS - 1):
            client = stack.enter_context(few.connect())
            client.send(f"GET /messages/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 20)
        for _ in range(20):
            few.assert_well(within=1)


def test_requests_on_many_connections_are_all_answered(few: Service) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(few.connect()) for _ in range(50)]
        for _ in range(5):
            for client in clients:
                client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
            assert [status(client) for client in clients for _ in range(3)] == [200] * 150


def test_a_client_that_sends_without_end_leaves_others_their_turn(few: Service) -> None:
    ended = threading.Event()
    requests = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 2000

    def send(client: Client) -> None:
        with suppress(OSError):
            while not ended.is_set():
                client.socket.sendall(requests)

    def take(client: Client) -> None:
        with suppress(OSError):
            while client.socket.recv(2**16):
                pass

    clients = [few.connect() for _ in range(2)]
    threads = [Thread(target=act, args=(one,)) for one in clients for act in (send, take)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            few.assert_well()
    finally:
        ended.set()
        for client in clients:
            client.socket.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()


def status(client: Client) -> int:
    """That of the next answer."""
    answer = client.receive()
    assert answer
    return answer.status


def test_without_keep_alive_each_answer_ends_its_connection(tmp_path: Path) -> None:
    with (
        Service(tmp_path / "log", "--keep-alive", "0") as service,
        service.connect() as client,
    ):
        client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.receive()
        assert answer
        assert answer.headers["Connection"] == "close"
        assert client.is_closed()


class TLS(Service):
    """A service that speaks TLS by itself."""

    def __init__(self, folder: Path, threads: int) -> None:
        authority, key = certificate(folder)
        self.context = ssl.create_default_context(cafile=authority)
        options = ("--certfile", str(authority), "--keyfile", str(key))
        super().__init__(folder / "log", *options, HASHER_THREADS=str(threads))

    def is_listening(self) -> bool:
        """Whether the server has said on which port."""
        assert self.process.poll() is None, self.log
        _, _, rest = self.log.partition("Listening at: https://127.0.0.1:")
        self.port = int(rest.split()[0]) if rest else 0
        return bool(rest)

    def is_answering(self) -> bool:
        """Whether a worker answers, on two requests of one connection."""
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=5, context=self.context)
        try:
            for _ in range(2):
                connection.request("GET", "/healthz")
                response = connection.getresponse()
                response.read()
        except OSError:
            return False
        finally:
            connection.close()
        return response.status == 200


def test_requests_in_one_tls_record_are_all_answered(tmp_path: Path) -> None:
    """Of a record, 8,192 bytes are read at a time: of what is left no poller tells."""
    start = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: "
    filler = (8192 - len(start) - 2 * len(b"\r\nY: ")) // 2
    first = (
        start + b"x" * filler + b"\r\nY: " + b"y" * (8192 - len(start) - filler - 9) + b"\r\n\r\n"
    )
    assert len(first) == 8192
    with (
        TLS(tmp_path, THREADS) as service,
        service.connect() as plain,
        service.context.wrap_socket(plain.socket, server_hostname="localhost") as client,
    ):
        client.settimeout(5)
        client.sendall(first + b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        with client.makefile("rb") as stream:
            answers = stream.read()
    assert re.findall(rb"^HTTP/1.1 (\d+)", answers, re.MULTILINE) == [b"200", b"404"]


def test_what_is_no_tls_is_refused_in_one_line(tmp_path: Path) -> None:
    with TLS(tmp_path, THREADS) as service:
        with service.connect() as client:
            client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.receive() is None or client.is_closed()
        until(lambda: "Refused request" in service.log)
        assert service.is_answering()
        assert "Traceback" not in service.log


def test_a_client_that_stalls_in_its_handshake_delays_nobody(tmp_path: Path) -> None:
    with TLS(tmp_path, THREADS) as service, ExitStack() as stack:
        for _ in range(THREADS - 1):
            stack.enter_context(service.connect()).send(b"\x16\x03\x01\x02\x00\x01")
        for _ in range(20):
            until(service.is_answering, within=1)


def test_as_many_stalled_tls_clients_as_threads_are_cut(tmp_path: Path) -> None:
    with TLS(tmp_path, THREADS) as service, ExitStack() as stack:
        clients = [stack.enter_context(service.connect()) for _ in range(THREADS)]
        for client in clients:
            client.send(b"\x16\x03\x01\x02\x00\x01")
        assert all(client.is_closed() for client in clients)
        until(service.is_answering, within=3)
        assert "Traceback" not in service.log
