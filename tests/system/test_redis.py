"""A service on a Redis server, and every way in which that fails."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.load import Load, Reads
from tests.support.outages import assert_recovers, assert_unavailable, status
from tests.support.servers import RedisServer, certificate, free_ports, until
from tests.support.service import Service, refused_start

Record = Callable[[str, object], None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server with an append-only file that is synced at every write."""
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with RedisServer(tmp_path / "redis", *durable) as running:
        yield running


@pytest.fixture
def service(tmp_path: Path, server: RedisServer) -> Iterator[Service]:
    """Two workers on that server."""
    with Service(tmp_path / "log", HASHER_STORE=server.url, WEB_CONCURRENCY="2") as running:
        until(lambda: len(running.workers()) == 2)
        yield running


def test_a_server_out_of_memory_is_507_for_new_messages_only(
    service: Service, server: RedisServer
) -> None:
    known = service.post("known").json["digest"]
    with closing(server.client()) as client:
        client.config_set("maxmemory", "3mb")
    statuses = [service.post("x" * 100_000 + str(number)).status for number in range(60)]
    assert set(statuses) == {201, 507}
    with closing(server.client()) as client:
        client.config_set("maxmemory", "1mb")  # less than is used, so that nothing fits any more
    assert service.post("another").status == 507
    assert service.post("known").status == 200
    assert service.post("known").status == 200
    assert service.get(known).json == {"message": "known"}
    with closing(server.client()) as client:
        client.config_set("maxmemory", "0")
    assert_recovers(service, known)


def test_a_server_that_evicts_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru") as server:
        code, lines = refused_start("make", "run", HASHER_STORE=server.url)
    assert code != 0
    assert len(lines) == 1
    assert "maxmemory-policy allkeys-lru" in lines[0]
    assert "noeviction" in lines[0]


def test_a_server_that_begins_to_evict_is_not_ready(service: Service, server: RedisServer) -> None:
    with closing(server.client()) as client:
        client.config_set("maxmemory-policy", "allkeys-random")
        until(lambda: {status(service, "/readyz") for _ in range(20)} == {503})
        assert "noeviction" in service.request("GET", "/readyz").json["error"]
        client.config_set("maxmemory-policy", "noeviction")
    until(lambda: {status(service, "/readyz") for _ in range(20)} == {200})


def test_a_server_without_persistence_is_warned_of(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "redis") as server,
        Service(tmp_path / "log", HASHER_STORE=server.url) as service,
    ):
        assert "the Redis server keeps nothing on disk" in service.log


@pytest.mark.parametrize("replicas", [0, 1])
def test_replicas_that_do_not_follow_are_waited_for_when_asked(
    tmp_path: Path, server: RedisServer, replicas: int
) -> None:
    follow = ("--replicaof", "127.0.0.1", str(server.port))
    with (
        RedisServer(tmp_path / "replica", *follow) as replica,
        Service(tmp_path / "log", HASHER_STORE=f"{server.url}?replicas={replicas}") as service,
    ):
        until(lambda: service.post("first").status in {200, 201})
        os.kill(replica.pid, signal.SIGSTOP)
        expected = 503 if replicas else 201
        for _ in range(2):  # the message is stored now, and still not where it was asked to be
            started = time.monotonic()
            assert service.post("second").status == expected
            assert time.monotonic() - started < 2
            expected = 503 if replicas else 200
        os.kill(replica.pid, signal.SIGCONT)
        until(lambda: service.post("second").status == 200, within=5)


def test_replicas_that_do_not_follow_hold_up_nobody_who_reads(
    tmp_path: Path, server: RedisServer, record_property: Record
) -> None:
    follow = ("--replicaof", "127.0.0.1", str(server.port))
    with (
        RedisServer(tmp_path / "replica", *follow) as replica,
        Service(tmp_path / "log", HASHER_STORE=f"{server.url}?replicas=1") as service,
    ):
        until(lambda: service.post("known").status in {200, 201})
        os.kill(replica.pid, signal.SIGSTOP)
        with Load(service, clients=32) as writes, Reads(service, ["known"]) as reads:
            until(lambda: writes.outcomes[503] >= 256 and reads.has_sent(100))
        record_property("a replica paused", f"writes {writes.said()}; reads {reads.said()}")
        assert set(writes.outcomes) == {503}
        assert set(reads.outcomes) == {200}
        assert writes.slowest < 2
        os.kill(replica.pid, signal.SIGCONT)
        service.assert_recovers(within=5)


def test_tls_is_spoken_and_the_authority_checked(tmp_path: Path) -> None:
    authority, key = certificate(tmp_path)
    (port,) = free_ports(1)
    tls = ("--tls-port", str(port), "--tls-auth-clients", "no")
    pair = ("--tls-cert-file", str(authority), "--tls-key-file", str(key))
    with RedisServer(tmp_path / "redis", *tls, *pair):
        url = f"rediss://127.0.0.1:{port}"
        with Service(tmp_path / "log", HASHER_STORE=f"{url}?ca={authority}") as service:
            service.assert_well()
        with Service(tmp_path / "log2", HASHER_STORE=url) as service:
            assert_unavailable(service, "0" * 64)
