"""Metrics over workers: checked against what the clients themselves have counted."""

import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.load import Load
from tests.support.servers import program, skip, until
from tests.support.service import BIN, PROCFILE, Service, is_running

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


def test_no_metric_is_missing_with_preload(tmp_path: Path) -> None:
    with Service(tmp_path / "log", "--preload", HASHER_ACCESS_LOG="json") as service:
        service.post("foo")
        with service.connect() as client:
            client.send(b"POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n")
            client.send(b"Transfer-Encoding: chunked\r\n\r\n9\r\n")
            until(lambda: samples(service, "hasher_requests_in_flight") == {"": 2})
        assert list(samples(service, "hasher_build_info").values()) == [1]
        assert samples(service, "hasher_messages_total")["new"] == 1
        assert samples(service, "hasher_received_bytes_total")[""] == len('{"message": "foo"}')
        assert samples(service, "hasher_sent_bytes_total")[""] > 64
        assert samples(service, "hasher_damaged_messages_total") == {"": 0}


# A memory file system of this size for the metrics of a service, and its other files elsewhere.
FULL = 'mount -t tmpfs -o size="$1" none /dev/shm && shift && exec "$@"'


def replace_by_a_file(folder: Path) -> None:
    """Put a file where the folder was."""
    shutil.rmtree(folder)
    folder.write_text("")


def remake(folder: Path) -> None:
    """Put an empty folder with other rights where the folder was."""
    shutil.rmtree(folder)
    folder.mkdir(mode=0o555)


def remove_counters(folder: Path) -> None:
    """Remove a single file of each worker."""
    for file in folder.glob("counter_*"):
        file.unlink()


def spoil_a_file(folder: Path) -> None:
    """Put bytes that are no values where those of a worker were."""
    file = next(folder.glob("counter_*"))
    file.unlink()
    file.write_bytes(b"no")


LOSS = "The files of metrics in "


@pytest.mark.parametrize(
    "harm", [shutil.rmtree, replace_by_a_file, remake, remove_counters, spoil_a_file]
)
def test_if_the_files_are_lost_each_worker_answers_its_own_counts_until_a_reload(
    service: Service, harm: Callable[[Path], None]
) -> None:
    with Load(service) as load:
        until(lambda: load.has_sent(100))
    folder, old = metric_folder(service), service.workers()
    harm(folder)
    for number in range(10):
        service.post(f"message {number}")
        found = samples(service, "hasher_requests_total")
        assert found["POST /messages 201"] > 0
    until(lambda: LOSS in service.log)
    service.assert_well()
    assert set(said_once_each(service)) <= set(old)
    for _ in range(2):
        before = service.workers()
        service.signal(signal.SIGHUP)
        until(lambda before=before: not any(map(is_running, before)))  # type: ignore[misc]
    said = len(said_once_each(service))
    grown = counted(service)[201]
    for number in range(10):
        service.post(f"after {number}")
    until(lambda: counted(service)[201] == grown + 10)
    for _ in range(10):
        assert counted(service)[201] == grown + 10
    assert len(said_once_each(service)) == said
    service.signal(signal.SIGTERM)
    assert service.process.wait(10) == 0
    assert "Traceback" not in service.log


def said_once_each(service: Service) -> list[int]:
    """The workers that have logged the loss of their files; each has logged it once."""
    lines = [line for line in service.log.splitlines() if LOSS in line]
    workers = [int(re.findall(r"\[(\d+)\]", line)[0]) for line in lines]
    assert len(set(workers)) == len(workers)
    return workers


def test_workers_come_and_go_while_the_folder_is_missing(service: Service) -> None:
    shutil.rmtree(metric_folder(service))
    for lost in service.workers():
        os.kill(lost, signal.SIGKILL)
        until(lambda lost=lost: not is_running(lost))  # type: ignore[misc]
        until(lambda: len(service.workers()) == 2)
    for number in range(10):
        service.post(f"message {number}")
        assert service.request("GET", "/metrics").status == 200
    said_once_each(service)
    service.signal(signal.SIGUSR2)
    until(lambda: "Master.2" in service.log or service.log.count("Starting gunicorn") == 2)
    service.assert_well()
    assert "Traceback" not in service.log


def with_room(size: str) -> list[str]:
    """Return the start of a command that has so much room for metrics."""
    if os.geteuid():
        skip("Only root may mount a file system of its own.")
    return [program("unshare", "util-linux"), "--mount", "sh", "-c", FULL, "sh", size]


@pytest.mark.parametrize("size", ["4k", "32k", "96k"])
def test_without_room_for_metrics_serving_goes_on(tmp_path: Path, size: str) -> None:
    """Neither their first page finds room, nor the first values, nor any more.

    `/metrics` has what the worker itself counts.
    """
    command = [*with_room(size), str(BIN / PROCFILE[0]), *PROCFILE[1:]]
    with Service(tmp_path / "log", command=command) as service:
        (worker,) = service.workers()
        for number in range(20):
            for path in ("", "messages", "docs", "healthz", "readyz", "nowhere", "page/page.css"):
                service.request(("GET", "PUT", "HEAD", "OPTIONS", "DELETE")[number % 5], f"/{path}")
            service.post(f"message {number}")
            assert service.request("GET", "/metrics").status == 200
        assert samples(service, "hasher_messages_total")["new"] == 20
        service.assert_well()
        assert service.workers() == [worker]
        assert service.log.count("cannot be used (No space left on device)") == 1


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
