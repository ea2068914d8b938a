"""Two workers on a store that they share, seen by clients that meet either of them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.postgresql import PostgreSQLServer
from tests.support.servers import RedisServer, until
from tests.support.service import Service

Record = Callable[[str, object], None]


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Each store in turn."""
    with ExitStack() as stack:
        if request.param == "redis":
            yield stack.enter_context(RedisServer(tmp_path / "redis")).url
        elif request.param == "postgresql":
            yield stack.enter_context(PostgreSQLServer()).url
        else:
            yield f"sqlite:///{tmp_path}/messages.db"


@pytest.fixture
def service(tmp_path: Path, url: str) -> Iterator[Service]:
    """Two workers of eight threads on the store."""
    env = {"HASHER_STORE": url, "WEB_CONCURRENCY": "2", "HASHER_THREADS": "8"}
    with Service(tmp_path / "log", **env) as running:  # type: ignore[arg-type] # all are settings
        until(lambda: len(running.workers()) == 2)
        yield running


def test_what_one_process_stores_another_reads_at_once(
    service: Service, tmp_path: Path, url: str, record_property: Record
) -> None:
    misses = 0
    with Service(tmp_path / "other", HASHER_STORE=url, WEB_CONCURRENCY="1") as other:
        pairs = [(service, other), (other, service)] * 150
        for number, (first, second) in enumerate(pairs):
            name = first.post(f"message {number}").json["digest"]
            misses += second.get(name).json != {"message": f"message {number}"}
    record_property(
        f"direct, POST here and GET there x 300, {url.partition(':')[0]}", f"{misses} misses"
    )
    assert misses == 0


def test_one_of_16_racing_clients_creates_the_message(service: Service) -> None:
    threads, rounds = 16, 20
    barrier = threading.Barrier(threads)
    statuses: list[tuple[int, int]] = []

    def race() -> None:
        for number in range(rounds):
            barrier.wait()
            statuses.append((number, service.post(f"raced {number}").status))

    racers = [threading.Thread(target=race) for _ in range(threads)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    for number in range(rounds):
        assert statuses.count((number, 201)) == 1
        assert statuses.count((number, 200)) == threads - 1
