"""Many messages in one request, on every store, while others go on."""

import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from http.client import parse_headers
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.servers import PATIENCE, until
from tests.support.service import Service
from tests.support.stores import SERVERS

Record = Callable[[str, object], None]
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(params=["memory", "sqlite", *SERVERS])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """One worker on each store in turn."""
    with ExitStack() as stack:
        url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/messages.db"}
        if request.param in SERVERS:
            server = stack.enter_context(SERVERS[request.param](tmp_path))
            url[request.param] = server.url
        store = url[request.param]
        service = Service(tmp_path / "log", HASHER_STORE=store, WEB_CONCURRENCY="1")
        yield stack.enter_context(service)


def lines(texts: list[str]) -> bytes:
    """A body with these messages."""
    return "".join(json.dumps({"message": text}) + "\n" for text in texts).encode()


def test_100_000_messages_in_one_request_are_all_there(service: Service) -> None:
    texts = [
        f"message {number} of a hundred thousand, made as long as is usual: {'x' * 50}"
        for number in range(100_000)
    ]
    answer = service.request("POST", "/messages", lines(texts), NDJSON)
    assert answer.status == 200
    names = [sha256(text.encode()).hexdigest() for text in texts]
    assert answer.body == "".join(f'{{"digest":"{name}"}}\n' for name in names).encode()
    for number in range(0, 100_000, 997):
        assert service.get(names[number]).json == {"message": texts[number]}
    assert service.post(texts[0]).status == 200


def test_single_requests_go_on_meanwhile(service: Service, record_property: Record) -> None:
    with Load(service, clients=4) as load:
        until(lambda: load.has_sent(100))
        for part in range(3):
            texts = [f"part {part} number {number} {'x' * 80}" for number in range(100_000)]
            assert service.request("POST", "/messages", lines(texts), NDJSON).status == 200
    record_property("single requests during bulk", f"{service.log_file.parent.name} {load.said()}")
    assert load.failures == {}
    assert load.lost() == []


SMALLEST = b'{"message":""}\n'
MiB = 2**20
BODIES = {
    "16 MiB of the smallest messages": (SMALLEST * (16 * MiB // len(SMALLEST)), 413),
    "as many of the smallest as are taken": (SMALLEST * 100_000, 200),
    "as many as fill 16 MiB": (lines([f"{number:0149}" for number in range(100_000)]), 200),
}


def highest_memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def send(service: Service, body: bytes) -> int:
    """The status with which a bulk request is answered, whole; its answer is not looked into."""
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as connection:
        head = "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        with connection.makefile("rb") as stream:
            status = int(stream.readline().split()[1])
            headers = parse_headers(stream)
            length = int(headers["Content-Length"])
            assert len(stream.read(length)) == length
    assert (headers["Retry-After"] == "1") == (status == 503)
    return status


@pytest.mark.parametrize("what", BODIES)
def test_eight_at_once_leave_memory_and_threads_to_others(
    service: Service, what: str, request: pytest.FixtureRequest, record_property: Record
) -> None:
    body, status = BODIES[what]
    (worker,) = service.workers()
    with Load(service, clients=2) as load, ThreadPoolExecutor(8) as pool:
        until(lambda: load.has_sent(20))
        statuses = Counter(pool.map(lambda _: send(service, body), range(8)))
    memory = highest_memory(worker)
    said = f"{memory / MiB:.0f} MiB, single requests: {load.said()}"
    record_property(request.node.name, said)
    assert 1 <= statuses[status] == 8 - statuses[503]
    assert memory < 300 * MiB
    assert load.failures == {}
    assert load.lost() == []
    service.assert_well()


def test_a_chunked_body_is_taken(service: Service) -> None:
    texts = [f"chunked {number}" for number in range(1000)]
    body = iter([lines(texts[:500]), lines(texts[500:])])
    answer = service.request("POST", "/messages", body, NDJSON)
    assert answer.status == 200
    assert len(answer.body.splitlines()) == 1000


def test_a_body_over_the_limit_is_refused_unread(service: Service) -> None:
    head = "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
    for length in ("Content-Length: 16777217", "Content-Length: 100000000000"):
        answer = service.exchange(f"{head}{length}\r\n\r\n".encode())
        assert answer is not None
        assert (answer.status, answer.headers["Connection"]) == (413, "close")
    service.assert_well()


def test_a_cut_body_stores_nothing(service: Service) -> None:
    head = "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n"
    sent = f'{head}Content-Length: 1000\r\n\r\n{{"message":"cut"}}\n'.encode()
    answer = service.exchange(sent, end=True)
    assert answer is None or answer.status == 400
    assert service.get(sha256(b"cut").hexdigest()).status == 404
