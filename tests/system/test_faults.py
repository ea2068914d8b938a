"""Faults of one gunicorn with the embedded store, with nothing in front of it."""

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.servers import until
from tests.support.service import Client, Service, is_running

Record = Callable[[str, object], None]

SLOW_POST = (
    b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
)
CHUNKED_POST = (
    b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
NAME = "0" * 64
STALLED = {
    "connection": b"",
    "request line": b"G",
    "head": b"GET / HTTP/1.1\r\nX: ",
    "body": SLOW_POST + b"f",
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of this test's own."""
    with Service(tmp_path / "log") as running:
        yield running


def test_a_worker_added_at_run_time_is_refused(service: Service) -> None:
    stored = service.post("foo")
    (worker,) = service.workers()
    service.signal(signal.SIGTTIN)
    until(lambda: "No worker was added, since memory://" in service.log)
    assert service.workers() == [worker]
    assert service.get(stored.json["digest"]).json == {"message": "foo"}


def test_a_second_master_is_refused(service: Service) -> None:
    stored = service.post("foo")
    (worker,) = service.workers()
    service.signal(signal.SIGUSR2)
    until(lambda: "No second master was started, since memory://" in service.log)
    service.signal(signal.SIGHUP)  # the first master goes on, and takes signals
    until(lambda: not is_running(worker))
    until(lambda: len(service.workers()) == 1)
    assert service.get(stored.json["digest"]).status == 404
    assert service.log.count("Listening at") == 1


def test_a_reload_says_that_all_messages_went(service: Service) -> None:
    for number in range(5):
        service.post(f"message {number}")
    service.signal(signal.SIGHUP)
    until(lambda: "has ended, and all messages with it, since memory://" in service.log)
    service.assert_well(within=10)
    assert len(service.workers()) == 1


def test_a_reload_starts_no_worker_before_the_old_one_has_ended(service: Service) -> None:
    with service.connect() as kept:  # which the old worker would go on serving for a while
        kept.send(f"GET /messages/{NAME} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert kept.receive()
        service.signal(signal.SIGHUP)
        until(lambda: service.log.count("Booting worker") == 2)
    assert service.log.index("has ended") < service.log.rindex("Booting worker")
    service.assert_well()


def test_a_lost_worker_is_replaced_and_its_loss_told(service: Service) -> None:
    for number in range(7):
        service.post(f"message {number}")
    (lost,) = service.workers()
    os.kill(lost, signal.SIGKILL)
    until(lambda: "has ended, and all messages with it, since memory://" in service.log)
    service.assert_well(within=10)
    assert len(service.workers()) == 1


def test_a_stop_answers_what_is_in_flight(service: Service) -> None:
    with service.connect() as client, service.connect():
        client.send(SLOW_POST + b"fo")
        service.assert_well()
        service.signal(signal.SIGTERM)
        until(lambda: "Handling signal: term" in service.log)
        client.send(b"o!")
        answer = client.receive()
    assert answer is not None
    assert answer.status == 201
    assert service.process.wait(10) == 0


def test_a_body_that_drips_makes_room_and_is_told_so(service: Service) -> None:
    """Others, which fill the room for bodies that come slowly, need it."""
    head = SLOW_POST.replace(b"Length: 4", b"Length: 1000000")
    with ExitStack() as stack:
        slow = [stack.enter_context(service.connect()) for _ in range(200)]
        for client in slow:
            client.send(head + b"x" * 90_000)
        until(lambda: "others needed the room that it held." in service.log)
        service.assert_well()
        answers = (client.receive() for client in slow)
        assert next(answer.status for answer in answers if answer) == 408


@pytest.mark.parametrize("part", STALLED)
def test_a_stalled_client_delays_no_stop(
    service: Service, part: str, record_property: Record
) -> None:
    with service.connect() as client:
        client.send(STALLED[part])
        service.assert_well()
        started = time.monotonic()
        service.signal(signal.SIGTERM)
        assert service.process.wait(10) == 0
    record_property(
        f"direct, a stop, a client stalled in its {part}",
        f"{time.monotonic() - started:.1f} s, status 0",
    )


@pytest.mark.parametrize("part", STALLED)
def test_a_stalled_client_delays_no_reload(
    service: Service, part: str, record_property: Record
) -> None:
    with service.connect() as client:
        client.send(STALLED[part])
        service.assert_well()
        (old,) = service.workers()
        started = time.monotonic()
        service.signal(signal.SIGHUP)
        until(lambda: not is_running(old), within=10)
        service.assert_well()
    record_property(
        f"direct, a reload, a client stalled in its {part}", f"{time.monotonic() - started:.1f} s"
    )


@pytest.mark.parametrize("part", ["request line", "head"])
def test_a_client_that_stalls_in_its_head_is_cut(
    service: Service, part: str, record_property: Record
) -> None:
    with service.connect() as client:
        client.socket.settimeout(15)
        client.send(STALLED[part])
        started = time.monotonic()
        assert client.is_closed()
    record_property(
        f"direct, a client stalled in its {part} is cut",
        f"after {time.monotonic() - started:.1f} s",
    )
    until(lambda: "it stalled for 5 s." in service.log)
    assert "Traceback" not in service.log


def test_a_client_that_stalls_in_its_body_is_told_so(service: Service) -> None:
    with service.connect() as client:
        client.socket.settimeout(15)
        client.send(SLOW_POST + b"foo")
        answer = client.receive()
        assert answer is not None
        assert (answer.status, answer.headers["Connection"]) == (408, "close")
        assert client.is_closed()
    assert "Traceback" not in service.log


def test_a_client_that_takes_nothing_is_cut(service: Service) -> None:
    text = "x" * 1_000_000
    name = service.post(text).json["digest"]
    with service.connect() as client:
        client.socket.settimeout(15)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(f"GET /messages/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 20)
        until(lambda: "it stalled for 5 s." in service.log)
    service.assert_well()
    assert "Traceback" not in service.log


def held(service: Service, count: int, sent: bytes) -> list[Client]:
    """Clients that have sent something, and that neither read nor hang up."""
    clients = [service.connect() for _ in range(count)]
    for client in clients:
        client.send(sent)
    return clients


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["silent", "HTTP/1.0", "Connection: close", "keep-alive"],
)
def test_clients_that_do_not_hang_up_delay_nobody(service: Service, sent: bytes) -> None:
    clients = held(service, 50, sent)
    service.assert_well()
    for client in clients:
        client.close()
    service.assert_well()


@pytest.mark.parametrize(
    "sent", [b"foo\r\n\r\n", SLOW_POST.replace(b"plain", b"html")], ids=["no HTTP", "refused"]
)
def test_refused_clients_that_do_not_hang_up_delay_nobody(service: Service, sent: bytes) -> None:
    clients = held(service, 40, sent)  # more than there are threads
    service.assert_well()
    for client in clients:
        client.close()


def test_a_stop_during_a_reload_ends_in_time(service: Service) -> None:
    with service.connect() as client:
        client.send(f"GET /messages/{NAME} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert client.receive()
        service.signal(signal.SIGHUP)
        until(lambda: "Handling signal: hup" in service.log)
        service.signal(signal.SIGTERM)
        assert service.process.wait(10) == 0


def test_a_stop_during_a_reload_with_slow_bodies_ends_in_time(tmp_path: Path) -> None:
    """A reload waits for the old workers; the new ones learn of a stop meanwhile."""
    url = f"sqlite:///{tmp_path}/messages.db"
    ended = threading.Event()
    with Service(tmp_path / "log", HASHER_STORE=url, WEB_CONCURRENCY="1") as service:
        clients = held(service, 2, CHUNKED_POST)

        def drip() -> None:
            while not ended.wait(0.2):
                for client in list(clients):
                    client.send(b"1\r\nx\r\n")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            service.signal(signal.SIGHUP)
            until(lambda: service.log.count("Booting worker") == 2)
            until(service.is_answering)
            clients += held(service, 20, CHUNKED_POST)  # some of which the new worker gets
            service.signal(signal.SIGTERM)
            assert service.process.wait(10) == 0
        finally:
            ended.set()
            dripping.join()
            for client in clients:
                client.close()


def test_a_thousand_idle_connections_lose_nothing(
    service: Service, record_property: Record
) -> None:
    stored = service.post("foo")
    (worker,) = service.workers()
    kept_alive = f"GET /messages/{NAME} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    clients = held(service, 1500, b"") + held(service, 500, kept_alive)
    service.assert_well()
    record_property("direct, idle connections held", f"{len(clients)}, 0 lost, well meanwhile")
    for client in clients:
        client.close()
    service.assert_well()
    assert service.get(stored.json["digest"]).json == {"message": "foo"}
    assert service.workers() == [worker]


def few_files() -> None:
    """Leave the service so few file descriptors that its clients can use them up."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))


def test_running_out_of_file_descriptors_loses_nothing(
    tmp_path: Path, record_property: Record
) -> None:
    with Service(tmp_path / "log", limits=few_files) as service:
        stored = service.post("foo")
        (worker,) = service.workers()
        kept_alive = f"GET /messages/{NAME} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        clients = held(service, 300, kept_alive) + held(service, 100, b"")
        service.assert_well()  # those that are idle for the longest make room
        record_property("direct, connections to 128 files", f"{len(clients)}, well meanwhile")
        for client in clients:
            client.close()
        service.assert_well()
        assert service.get(stored.json["digest"]).json == {"message": "foo"}
        assert service.workers() == [worker]
        assert "Traceback" not in service.log


def test_concurrent_clients_read_at_once_what_was_acknowledged(service: Service) -> None:
    threads, each = 16, 50
    created: list[int] = []
    barrier = threading.Barrier(threads)

    def client() -> None:
        barrier.wait()
        for number in range(each):
            stored = service.post(f"raced {number}")
            created.append(stored.status)
            assert service.get(stored.json["digest"]).json == {"message": f"raced {number}"}

    workers = [threading.Thread(target=client) for _ in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert len(created) == threads * each
    assert created.count(201) == each
    assert created.count(200) == (threads - 1) * each
