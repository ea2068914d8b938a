"""A service on a server that several machines share, and the ways in which every server fails."""

import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.outages import assert_recovers, assert_unavailable, status
from tests.support.servers import until
from tests.support.service import Service
from tests.support.stores import SERVERS, WITH_FEW_CONNECTIONS, StoreServer

Record = Callable[[str, object], None]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreServer]:
    """A server of this test's own."""
    with SERVERS[request.param](tmp_path) as running:
        yield running


@pytest.fixture
def service(tmp_path: Path, server: StoreServer) -> Iterator[Service]:
    """Two workers on that server."""
    with Service(tmp_path / "log", HASHER_STORE=server.url, WEB_CONCURRENCY="2") as running:
        until(lambda: len(running.workers()) == 2)
        yield running


def test_a_server_that_is_down_is_503_until_it_is_back(
    service: Service, server: StoreServer
) -> None:
    known = service.post("known").json["digest"]
    server.kill()
    assert_unavailable(service, known)
    server.start()
    assert_recovers(service, known)


def test_a_paused_server_is_503_until_it_goes_on(service: Service, server: StoreServer) -> None:
    known = service.post("known").json["digest"]
    server.signal(signal.SIGSTOP)
    assert_unavailable(service, known)
    with Load(service, clients=64) as load:
        until(lambda: load.outcomes[503] >= 256)
    assert set(load.outcomes) == {503}
    assert load.slowest < 2
    server.signal(signal.SIGCONT)
    assert_recovers(service, known)


def test_a_server_that_restarts_is_met_again_by_every_connection(
    service: Service, server: StoreServer
) -> None:
    with Load(service) as load:
        until(lambda: load.has_sent(200))  # so that each thread has a connection
    known = sha256(load.acknowledged[0].encode()).hexdigest()
    for _ in range(3):
        server.kill()
        server.start()
        assert_recovers(service, known)


def test_a_server_that_ends_without_warning_loses_nothing(
    service: Service, server: StoreServer, record_property: Record
) -> None:
    with Load(service) as load:
        for _ in range(3):
            until(lambda sent=load.sent: load.has_sent(sent + 200))  # type: ignore[misc]
            server.kill()
            until(lambda count=load.outcomes[503]: load.outcomes[503] > count)  # type: ignore[misc]
            server.start()
        until(lambda sent=load.sent: load.has_sent(sent + 200))  # type: ignore[misc]
    record_property(f"{server.url.partition(':')[0]} killed and started x 3", load.said())
    assert set(load.outcomes) <= {200, 201, 503}
    assert load.slowest < 2.5
    assert load.lost() == []


def test_a_service_starts_while_its_server_is_down(tmp_path: Path, server: StoreServer) -> None:
    server.kill()
    with Service(tmp_path / "log", HASHER_STORE=server.url) as service:
        assert "it cannot be reached yet" in service.log
        assert_unavailable(service, "0" * 64)
        server.start()
        until(lambda: status(service, "/readyz") == 200, within=2)
        service.assert_well()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{}", "postgresql://127.0.0.1:{}/hasher"])
def test_a_server_that_takes_connections_and_says_nothing_is_503(tmp_path: Path, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = url.format(silent.getsockname()[1])
        with Service(tmp_path / "log", HASHER_STORE=store) as service:
            assert_unavailable(service, "0" * 64)


@pytest.mark.parametrize("make", WITH_FEW_CONNECTIONS.values(), ids=WITH_FEW_CONNECTIONS)
def test_a_server_out_of_connections_is_503_until_it_has_some(
    tmp_path: Path, make: Callable[[Path], StoreServer]
) -> None:
    env = {"HASHER_THREADS": "2", "WEB_CONCURRENCY": "1"}
    with make(tmp_path) as server, ExitStack() as stack:
        with server.crowded():
            service = Service(tmp_path / "log", HASHER_STORE=server.url, **env)  # type: ignore[arg-type] # all are settings
            stack.enter_context(service)
            assert_unavailable(service, "0" * 64)
            assert re.search("max number of clients|too many clients", service.log)
        until(lambda: status(service, "/readyz") == 200, within=2)
        service.assert_well()


def test_more_clients_than_connections_wait_their_turn(tmp_path: Path, server: StoreServer) -> None:
    with (
        Service(tmp_path / "log", HASHER_STORE=server.url, HASHER_THREADS="2") as service,
        Load(service, clients=16) as load,
    ):
        until(lambda: load.has_sent(500))
    assert set(load.outcomes) == {200, 201}


def test_a_wrong_password_is_503_and_in_no_log(tmp_path: Path, server: StoreServer) -> None:
    server.require_password("right-password")
    for password, works in (("wrong-password", False), ("right-password", True)):
        url = server.url_with(password)
        with Service(tmp_path / password, HASHER_STORE=url) as service:
            if works:
                service.assert_well()
            else:
                assert_unavailable(service, "0" * 64)
                assert re.search("invalid username-password|password auth", service.log)
            assert password not in service.log


def test_a_message_altered_in_the_server_is_never_served_until_it_is_sent_again(
    service: Service, server: StoreServer
) -> None:
    name = service.post("foo").json["digest"]
    server.alter(name, "not foo")
    for path in (f"/messages/{name}", f"/messages/{name}.txt"):
        answer = service.request("GET", path)
        assert answer.status == 500
        assert b"not foo" not in answer.body
    assert f"the message stored under {name} is damaged" in service.log
    assert service.post("foo").status == 200
    assert f"The damaged message {name} was mended" in service.log
    assert service.get(name).json == {"message": "foo"}
