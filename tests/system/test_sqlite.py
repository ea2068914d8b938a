"""A service on SQLite, with several workers, under load and faults."""

import fcntl
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path

import apsw
import pytest

from tests.support.load import Load
from tests.support.servers import until
from tests.support.service import BIN, ROOT, Service, is_running, refused_start

Record = Callable[[str, object], None]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A file of this test's own."""
    return f"sqlite:///{tmp_path}/messages.db"


@pytest.fixture
def service(tmp_path: Path, url: str) -> Iterator[Service]:
    """Two workers on that file."""
    with Service(tmp_path / "log", HASHER_STORE=url, WEB_CONCURRENCY="2") as running:
        until(lambda: len(running.workers()) == 2)
        yield running


def verified(url: str) -> str:
    """What `flask store verify` says."""
    ended = subprocess.run(
        [BIN / "flask", "store", "verify"],
        cwd=ROOT,
        env={**os.environ, "HASHER_STORE": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stderr


def test_every_acknowledged_message_survives_kill_9(
    tmp_path: Path, url: str, record_property: Record
) -> None:
    acknowledged: list[str] = []
    for round_ in range(20):
        log = tmp_path / f"log{round_}"
        acknowledged += killed_under_load(log, url)
    record_property("SQLite, messages acknowledged before 20 kill -9", len(acknowledged))
    with Service(tmp_path / "log", HASHER_STORE=url) as service:
        for text in acknowledged:
            assert service.get(sha256(text.encode()).hexdigest()).json == {"message": text}
    assert "verified" in verified(url)


def killed_under_load(log: Path, url: str) -> list[str]:
    """What a service acknowledged until all of its processes were killed in mid-write."""
    with (
        Service(log, HASHER_STORE=url, WEB_CONCURRENCY="2") as service,
        Load(service, clients=4) as load,
    ):
        until(lambda: len(load.acknowledged) > 30)
        service.kill()
    return load.acknowledged


def test_a_reload_under_load_fails_and_loses_nothing(
    service: Service, record_property: Record
) -> None:
    with Load(service) as load:
        for _ in range(3):
            old = service.workers()
            service.signal(signal.SIGHUP)
            until(partial(all_ended, old))
            until(partial(load.has_sent, load.sent + 100))
    record_property("SQLite, SIGHUP x 3", load.said())
    assert set(load.outcomes) <= {200, 201}
    assert load.lost() == []


def all_ended(pids: list[int]) -> bool:
    """Whether none of these processes is running."""
    return not any(map(is_running, pids))


def test_a_killed_worker_fails_no_more_requests_than_it_has_threads(
    service: Service, record_property: Record
) -> None:
    with Load(service) as load:
        until(lambda: load.sent > 100)
        os.kill(service.workers()[0], signal.SIGKILL)
        until(lambda: len(service.workers()) == 2)
        until(partial(load.has_sent, load.sent + 100))
    record_property("SQLite, a worker killed", load.said())
    assert set(load.outcomes) <= {200, 201, "failed"}
    assert load.outcomes["failed"] <= 8
    assert load.lost() == []


def test_a_stop_under_load_ends_in_time_and_loses_nothing(
    service: Service, tmp_path: Path, url: str, record_property: Record
) -> None:
    with Load(service) as load:
        until(lambda: load.sent > 100)
        service.signal(signal.SIGTERM)
        assert service.process.wait(10) == 0
    with Service(tmp_path / "again", HASHER_STORE=url) as again:
        load.service = again
        assert load.lost() == []
    record_property("SQLite, SIGTERM under load", f"status 0; {load.said()}, 0 lost")


def test_a_full_disk_is_507_and_passes_without_a_restart(service: Service) -> None:
    stored = service.post("small").json["digest"]
    limit_files(service, 2**20)
    text = "x" * 200_000
    statuses = [service.post(f"{text}{number}").status for number in range(20)]
    assert set(statuses) == {201, 507}
    for _ in range(10):
        assert service.post(f"{text}new").status == 507
        assert service.post("small").status == 200
        assert service.get(stored).json == {"message": "small"}
    limit_files(service, resource.RLIM_INFINITY)
    assert service.post(f"{text}new").status == 201
    for number, status in enumerate(statuses):
        name = sha256(f"{text}{number}".encode()).hexdigest()
        assert service.get(name).status == (200 if status == 201 else 404)
    service.assert_well()


def limit_files(service: Service, size: int) -> None:
    """Let the workers make no file larger than `size`, as a full disk would."""
    for worker in service.workers():
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_the_version_of_sqlite_is_told(service: Service) -> None:
    engine = f"SQLite {apsw.sqlite_lib_version()}"
    assert f"messages.db by {engine};" in service.log
    metrics = service.request("GET", "/metrics").body.decode()
    (build,) = re.findall("^hasher_build_info{.*", metrics, re.MULTILINE)
    assert f'engine="{engine}"' in build


def replaced(path: Path) -> None:
    """Put a copy in the place of a file."""
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.replace(path)


LOSSES: dict[str, Callable[[Path], object]] = {
    "database removed": Path.unlink,
    "database replaced": replaced,
    "database emptied": lambda path: os.truncate(path, 0),
    "log removed": lambda path: path.with_name("messages.db-wal").unlink(),
    "log emptied": lambda path: os.truncate(path.with_name("messages.db-wal"), 0),
    "folder moved": lambda path: path.parent.rename(path.parent.with_name("moved")),
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database in a folder of its own."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "messages.db"


@pytest.fixture
def on_database(tmp_path: Path, database: Path) -> Iterator[Service]:
    """Two workers on it."""
    url = f"sqlite:///{database}"
    with Service(tmp_path / "log", HASHER_STORE=url, WEB_CONCURRENCY="2") as running:
        until(lambda: len(running.workers()) == 2)
        yield running


def statuses(service: Service) -> set[int]:
    """How many new messages, more than there are threads, are answered."""
    return {service.post(f"{number} {time.time_ns()}").status for number in range(40)}


def reload(service: Service) -> None:
    """Reload, and wait until the old workers have ended and two others run."""
    old = service.workers()
    service.signal(signal.SIGHUP)
    until(lambda: all_ended(old) and len(service.workers()) == 2)


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_nothing_is_acknowledged_that_nobody_can_open(
    on_database: Service, database: Path, lose: Callable[[Path], object]
) -> None:
    assert statuses(on_database) == {201}
    lose(database)
    assert statuses(on_database) == {503}
    until(lambda: on_database.request("GET", "/readyz").status == 503)
    readiness = on_database.request("GET", "/readyz")
    assert re.search(r"messages\.db(-wal)? was \w+", readiness.json["error"])
    assert on_database.request("GET", "/healthz").status == 200


def test_a_database_that_is_put_back_is_used_again(on_database: Service, database: Path) -> None:
    stored = on_database.post("stored").json["digest"]
    moved = database.parent.rename(database.parent.with_name("moved"))
    reload(on_database)
    assert statuses(on_database) == {503}
    assert on_database.get(stored).status == 503
    moved.rename(database.parent)
    on_database.assert_recovers()
    assert on_database.get(stored).json == {"message": "stored"}


def test_a_reload_brings_back_what_a_removed_log_had(on_database: Service, database: Path) -> None:
    stored = [on_database.post(f"stored {number}").json["digest"] for number in range(40)]
    database.with_name("messages.db-wal").unlink()
    assert statuses(on_database) == {503}
    reload(on_database)
    on_database.assert_recovers()
    assert {on_database.get(digest).status for digest in stored} == {200}


def test_a_writer_that_does_not_come_to_an_end_is_503_in_time(
    service: Service, tmp_path: Path
) -> None:
    stored = service.post("stored").json["digest"]
    with closing(sqlite3.connect(tmp_path / "messages.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Load(service, clients=64) as load:
            until(lambda: load.outcomes[503] >= 256)
            started = time.monotonic()
            assert service.get(stored).json == {"message": "stored"}
            assert time.monotonic() - started < 2
            started = time.monotonic()
            assert service.post("stored").status == 200
            assert time.monotonic() - started < 2
        assert set(load.outcomes) == {503}
        assert load.slowest < 2
    service.assert_recovers()
    assert "Traceback" not in service.log


def test_a_process_that_hangs_with_its_turn_delays_no_reader(
    service: Service, tmp_path: Path
) -> None:
    stored = service.post("stored").json["digest"]
    with (tmp_path / "messages.db-turn").open() as turn, Load(service, clients=8) as load:
        fcntl.flock(turn, fcntl.LOCK_EX)
        until(lambda: load.outcomes[503] >= 12)
        for _ in range(10):
            started = time.monotonic()
            assert service.get(stored).json == {"message": "stored"}
            assert time.monotonic() - started < 2
        fcntl.flock(turn, fcntl.LOCK_UN)
    assert set(load.outcomes) <= {200, 201, 503}
    service.assert_recovers()


def test_a_damaged_file_is_never_a_404(tmp_path: Path, url: str) -> None:
    with Service(tmp_path / "log", HASHER_STORE=url) as service:
        names = [service.post(f"message {number}").json["digest"] for number in range(500)]
        service.signal(signal.SIGTERM)
        service.process.wait()
    path = tmp_path / "messages.db"
    pages = path.read_bytes()
    path.write_bytes(pages[:4096] + bytes(len(pages) - 4096))
    with Service(tmp_path / "again", HASHER_STORE=url, limits=None) as service:
        for name in names[:50]:
            assert service.get(name).status in {500, 503}
    assert "Traceback" not in (tmp_path / "again").read_text()


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("{folder}/missing/messages.db", "there is no directory"),
        ("/proc/messages.db", "cannot be used"),
        ("{folder}", "cannot be used"),
        ("{folder}/text", "file is not a database"),
        ("{folder}/other.db", "is a database of another program"),
        ("{folder}/newer.db", "has schema 2, and this hasher knows 1"),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_start_with_one_line(
    tmp_path: Path, path: str, fault: str
) -> None:
    (tmp_path / "text").write_text("This is not a database. " * 100)
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as newer:
        newer.executescript(
            "CREATE TABLE t (x); PRAGMA application_id = 0x68617368; PRAGMA user_version = 2"
        )
    status, said = refused_start(
        "make", "run", HASHER_STORE=f"sqlite:///{path}".format(folder=tmp_path)
    )
    assert status != 0
    assert len(said) == 1
    assert said[0].startswith("HASHER_STORE cannot be used: ")
    assert fault in said[0]
