"""Two workers on a store that they share, seen by clients that meet either of them."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import RedisServer, until
from tests.system.service import Service


@pytest.fixture(params=["sqlite", "redis"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """Two workers of eight threads on each store in turn."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/messages.db"
        if request.param == "redis":
            url = stack.enter_context(RedisServer(tmp_path / "redis")).url
        service = Service(
            tmp_path / "log", HASHER_STORE=url, WEB_CONCURRENCY="2", HASHER_THREADS="8"
        )
        running = stack.enter_context(service)
        until(lambda: len(running.workers()) == 2)
        yield running


def test_what_one_worker_stores_the_other_reads_at_once(service: Service) -> None:
    for number in range(300):
        stored = service.post(f"message {number}")
        assert service.get(stored.json["digest"]).json == {"message": f"message {number}"}


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
