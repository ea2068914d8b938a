"""Metrics over workers: checked against what the clients themselves have counted."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.load import Load
from tests.support.servers import until
from tests.support.service import Service, is_running

FILES = Path("/dev/shm")  # noqa: S108 - where the service keeps them


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Two workers on one database."""
    url = f"sqlite:///{tmp_path}/messages.db"
    with Service(tmp_path / "log", HASHER_STORE=url, WEB_CONCURRENCY="2") as running:
        until(lambda: len(running.workers()) == 2)
        yield running


def samples(service: Service, name: str) -> dict[str, float]:
    """The samples of a metric, by the values of their labels."""
    text = service.request("GET", "/metrics").body.decode()
    return {
        " ".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def counted(service: Service) -> Counter[object]:
    """The answers to messages' requests that the service has counted, by their status."""
    found: Counter[object] = Counter()
    for labels, value in samples(service, "hasher_requests_total").items():
        if "/messages" in labels:
            found[int(labels.split()[-1])] += int(value)
    return found


def test_the_counts_are_the_clients_own_over_workers_and_their_deaths(service: Service) -> None:
    with Load(service) as load:
        until(lambda: load.has_sent(500))
    until(lambda: counted(service) == load.outcomes)  # the other worker's within a second
    for lost in service.workers():
        os.kill(lost, signal.SIGKILL)
        until(lambda lost=lost: not is_running(lost))  # type: ignore[misc]
        until(lambda: len(service.workers()) == 2)
    with Load(service) as more:
        until(lambda: more.has_sent(500))
    until(lambda: counted(service) == load.outcomes + more.outcomes)
    news = len(load.acknowledged) + len(more.acknowledged)
    assert samples(service, "hasher_messages_total") == {"new": news, "repeated": 0, "mended": 0}
    puts = samples(service, "hasher_store_operation_duration_seconds_count")["put"]
    assert puts == news


def test_every_worker_gives_the_same_counts(service: Service) -> None:
    for number in range(50):
        service.post(f"message {number}")
    until(lambda: samples(service, "hasher_messages_total")["new"] == 50)
    for _ in range(20):
        assert samples(service, "hasher_messages_total")["new"] == 50


def test_a_request_that_a_lost_worker_had_is_no_longer_in_flight(service: Service) -> None:
    clients = [service.connect() for _ in range(4)]
    for client in clients:
        client.send(b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n")
        client.send(b"Transfer-Encoding: chunked\r\n\r\n9\r\n")
    until(lambda: samples(service, "hasher_requests_in_flight")[""] == 5)
    for worker in service.workers():
        os.kill(worker, signal.SIGKILL)
    until(lambda: len(service.workers()) == 2)
    until(service.is_answering)
    until(lambda: samples(service, "hasher_requests_in_flight")[""] == 1)
    for client in clients:
        client.close()


def test_a_reload_keeps_the_counts_and_the_number_of_files(service: Service) -> None:
    service.post("foo")
    folder = metric_folder(service)
    for _ in range(4):
        old = service.workers()
        service.signal(signal.SIGHUP)
        until(lambda old=old: not any(map(is_running, old)))  # type: ignore[misc]
        service.assert_well()
    until(lambda: samples(service, "hasher_messages_total")["new"] == 5)
    assert len(list(folder.iterdir())) <= 16  # of two workers, and the two that replace them


def test_a_stop_leaves_no_files(service: Service) -> None:
    folder = metric_folder(service)
    service.signal(signal.SIGTERM)
    assert service.process.wait(10) == 0
    assert not folder.exists()


def test_what_a_killed_service_leaves_the_next_one_removes(
    service: Service, tmp_path: Path
) -> None:
    folder = metric_folder(service)
    with Service(tmp_path / "second") as second:
        assert folder.exists()
        service.kill()
        with Service(tmp_path / "third"):
            assert not folder.exists()
            assert metric_folder(second).exists()
            assert samples(second, "hasher_requests_in_flight") == {"": 1}


def metric_folder(service: Service) -> Path:
    """The folder that holds the files of this service."""
    (folder,) = {file.parent for file in FILES.glob(f"hasher-metrics-*/*_{service.process.pid}-*")}
    return folder


def test_metrics_are_on_with_the_embedded_store_too(tmp_path: Path) -> None:
    with Service(tmp_path / "log") as service:
        service.post("foo")
        assert samples(service, "hasher_messages_total")["new"] == 1
        (worker,) = service.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: service.workers() and service.workers() != [worker])
        service.post("foo")
        assert samples(service, "hasher_messages_total")["new"] == 2


def test_without_metrics_nothing_is_written(tmp_path: Path) -> None:
    with Service(tmp_path / "log", HASHER_METRICS="off") as service:
        assert service.request("GET", "/metrics").status == 404
        assert not list(FILES.glob(f"hasher-metrics-*/*_{service.process.pid}-*"))
