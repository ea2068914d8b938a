"""A service on a PostgreSQL server, and every way in which that fails."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import Load
from tests.support.outages import assert_recovers, assert_unavailable, status
from tests.support.postgresql import PostgreSQLServer, resize, small_disk
from tests.support.servers import until
from tests.support.service import BIN, ROOT, Service, plain_environ, refused_start

Record = Callable[[str, object], None]

TABLE = "hasher_messages"
MiB = 1024 * 1024


@pytest.fixture
def server() -> Iterator[PostgreSQLServer]:
    """A server of this test's own."""
    with PostgreSQLServer() as running:
        yield running


@pytest.fixture
def service(tmp_path: Path, server: PostgreSQLServer) -> Iterator[Service]:
    """Two workers on that server."""
    with Service(tmp_path / "log", HASHER_STORE=server.url, WEB_CONCURRENCY="2") as running:
        until(lambda: len(running.workers()) == 2)
        yield running


def name_of(text: str) -> str:
    """The digest of a message."""
    return sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("options", "threads"), [((), 2), (("--threads", "3"), 3)], ids=["one", "command line"]
)
def test_every_thread_that_runs_has_a_connection(
    tmp_path: Path, server: PostgreSQLServer, options: tuple[str, ...], threads: int
) -> None:
    """With HASHER_THREADS=1 two run; gunicorn's command line comes before the variable."""
    env = {"HASHER_STORE": server.url, "HASHER_THREADS": "1", "WEB_CONCURRENCY": "1"}
    with Service(tmp_path / "log", *options, **env) as service:  # type: ignore[arg-type] # all are settings
        until(lambda: wait_for_a_lock(service, server, threads))


def wait_for_a_lock(service: Service, server: PostgreSQLServer, count: int) -> bool:
    """Whether so many requests wait in the server at once."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with ThreadPoolExecutor() as pool, closing(server.client()) as client, client.transaction():
        client.execute(f"LOCK TABLE {TABLE}")
        reads = [pool.submit(service.get, "0" * 64) for _ in range(count)]
        until(lambda: len(server.execute(waiting)) == count or all(read.done() for read in reads))
        return len(server.execute(waiting)) == count


def test_a_database_that_is_missing_is_503_until_it_is_made(
    tmp_path: Path, server: PostgreSQLServer
) -> None:
    url = server.url.removesuffix("postgres") + "other"
    with Service(tmp_path / "log", HASHER_STORE=url) as service:
        assert_unavailable(service, "0" * 64)
        assert 'database "other" does not exist' in service.log
        server.execute("CREATE DATABASE other")
        until(lambda: status(service, "/readyz") == 200, within=2)
        service.assert_well()


def test_a_table_that_is_dropped_is_503_with_the_reason(
    tmp_path: Path, server: PostgreSQLServer
) -> None:
    """A worker that has yet to use the store does not make it again, nor does a new one."""
    with Service(tmp_path / "log", HASHER_STORE=server.url, WEB_CONCURRENCY="2") as service:
        until(lambda: len(service.workers()) == 2)
        known = service.post("known").json["digest"]
        server.execute(f"DROP TABLE {TABLE}")
        os.kill(service.workers()[0], signal.SIGKILL)
        until(lambda: len(service.workers()) == 2)
        until(lambda: {status(service, "/readyz") for _ in range(20)} == {503})
        for _ in range(5):
            assert_unavailable(service, known)
        assert f"there is no table {TABLE}" in service.request("GET", "/readyz").json["error"]
        assert server.execute(f"SELECT to_regclass('{TABLE}')") == [(None,)]
        made: list[str | Path] = [BIN / "flask", "store", "schema"]
        environ = {**plain_environ(), "HASHER_STORE": server.url}
        subprocess.run(made, cwd=ROOT, env=environ, check=True, capture_output=True)
        service.assert_recovers()


@pytest.mark.parametrize(
    "change",
    [
        "DROP COLUMN message",
        "DROP COLUMN digest",
        "DROP CONSTRAINT hasher_messages_pkey",
        "ALTER COLUMN message TYPE text USING encode(message, 'hex')",
    ],
)
def test_a_table_that_is_altered_is_503_with_the_reason(
    service: Service, server: PostgreSQLServer, change: str
) -> None:
    service.post("known")
    server.execute(f"ALTER TABLE {TABLE} {change}")
    until(lambda: {status(service, "/readyz") for _ in range(20)} == {503})
    assert "has lost what hasher made" in service.request("GET", "/readyz").json["error"]
    assert service.post("new").status == 503


def test_a_role_that_may_not_create_is_told_who_may(
    tmp_path: Path, server: PostgreSQLServer
) -> None:
    server.execute("CREATE ROLE app LOGIN")
    url = server.url.replace("hasher@", "app@")
    code, lines = refused_start("make", "run", HASHER_STORE=url)
    assert code != 0
    assert len(lines) == 1
    assert "flask store schema" in lines[0]
    with Service(tmp_path / "administrator", HASHER_STORE=server.url):
        code, lines = refused_start("make", "run", HASHER_STORE=url)
    assert f"GRANT SELECT, INSERT, UPDATE ON {TABLE}" in lines[0]
    server.execute(f"GRANT SELECT, INSERT, UPDATE ON {TABLE} TO app")
    with Service(tmp_path / "log", HASHER_STORE=url) as service:
        service.assert_well()


def test_a_server_that_only_reads_takes_no_messages(
    service: Service, server: PostgreSQLServer
) -> None:
    known = service.post("known").json["digest"]
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    server.execute("SELECT pg_reload_conf()")
    until(lambda: {status(service, "/readyz") for _ in range(20)} == {503})
    assert "name its primary" in service.request("GET", "/readyz").json["error"]
    assert service.post("new").status == 503
    assert service.get(known).status == 200
    with closing(server.client()) as client:
        client.execute("SET default_transaction_read_only = off")
        client.execute("ALTER SYSTEM RESET default_transaction_read_only")
        client.execute("SELECT pg_reload_conf()")
    assert_recovers(service, known)


def test_a_standby_ends_the_start_with_one_line(server: PostgreSQLServer, tmp_path: Path) -> None:
    with Service(tmp_path / "log", HASHER_STORE=server.url) as service:
        service.assert_well()
    with PostgreSQLServer(follow=server) as standby:
        code, lines = refused_start("make", "run", HASHER_STORE=standby.url)
    assert code != 0
    assert len(lines) == 1
    assert "name its primary" in lines[0]


Full = Iterator[tuple[PostgreSQLServer, Callable[[], None]]]


@contextmanager
def limited_files() -> Full:
    """A server whose files may not grow, and a function that lets them."""
    # Half a page more than a whole number of them, which is how a disk is met that is full.
    with PostgreSQLServer(largest=20 * MiB + 4096) as server:

        def make_room() -> None:
            server.stop()
            server.largest = -1
            server.start()

        yield server, make_room


@contextmanager
def small_tablespace() -> Full:
    """A server with its tables on a small disk, and a function that makes the disk larger."""
    with PostgreSQLServer() as server, small_disk(server.folder / "small", 20 * MiB) as disk:
        server.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        server.execute("ALTER DATABASE postgres SET default_tablespace = small")
        yield server, lambda: resize(disk, 200 * MiB)


@pytest.mark.parametrize("full", [limited_files, small_tablespace])
def test_a_full_disk_is_507_for_new_messages_only(
    tmp_path: Path, full: Callable[[], AbstractContextManager[Any]]
) -> None:
    with full() as (server, make_room):
        env = {"HASHER_STORE": server.url, "HASHER_MAX_MESSAGE_BYTES": str(4 * MiB)}
        with Service(tmp_path / "log", **env) as service:
            known = service.post("known").json["digest"]
            statuses = [service.post("x" * 3 * MiB + str(number)).status for number in range(10)]
            assert set(statuses) == {201, 507}
            assert service.post("x" * 3 * MiB + "new").status == 507
            assert service.post("x" * 3 * MiB + "0").status == 200
            assert service.post("known").status == 200
            assert service.get(known).json == {"message": "known"}
            bulk = b'{"message":"known"}\n{"message":"%s"}\n' % (b"y" * 3 * MiB)
            kind = {"Content-Type": "application/x-ndjson"}
            assert service.request("POST", "/messages", bulk, kind).status == 507
            make_room()
            assert_recovers(service, known)
            assert service.post("x" * 3 * MiB + "new").status == 201


@pytest.mark.parametrize(
    ("setting", "said"),
    [("fsync=off", "set fsync=on"), ("default_transaction_read_only=on", "primary")],
)
def test_a_server_that_must_not_be_used_ends_the_start_with_one_line(
    setting: str, said: str
) -> None:
    with PostgreSQLServer() as server:
        server.stop()
        server.settings = (setting,)
        server.start()
        code, lines = refused_start("make", "run", HASHER_STORE=server.url)
    assert code != 0
    assert len(lines) == 1
    assert said in lines[0]


def test_a_commit_that_is_not_synced_is_warned_of(tmp_path: Path, server: PostgreSQLServer) -> None:
    with Service(tmp_path / "log", HASHER_STORE=f"{server.url}?synchronous=off") as service:
        assert "a power cut can lose the last messages" in service.log
    with Service(tmp_path / "log2", HASHER_STORE=server.url) as service:
        assert "power cut" not in service.log


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE TABLE {} (digest bytea PRIMARY KEY, message bytea)", "another program"),
        ("CREATE TABLE {} (id int); COMMENT ON TABLE {} IS 'hasher schema 9'", "has schema 9"),
        ("CREATE UNLOGGED TABLE {} (id int); COMMENT ON TABLE {} IS 'hasher schema 1'", "crash"),
    ],
)
def test_a_table_that_is_not_as_it_must_be_ends_the_start_with_one_line(
    tmp_path: Path, server: PostgreSQLServer, made: str, said: str
) -> None:
    server.execute(made.replace("{}", TABLE))
    code, lines = refused_start("make", "run", HASHER_STORE=server.url)
    assert code != 0
    assert len(lines) == 1
    assert said in lines[0]
    with Service(tmp_path / "log", HASHER_STORE=f"{server.url}?table=public.mine") as service:
        service.assert_well()


def test_connections_that_an_administrator_ends_fail_nothing(
    service: Service, server: PostgreSQLServer
) -> None:
    with Load(service) as load:
        for _ in range(20):
            until(lambda sent=load.sent: load.has_sent(sent + 50))  # type: ignore[misc]
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'hasher'"
            )
    assert set(load.outcomes) == {200, 201}
    assert load.lost() == []


def test_a_statement_that_an_administrator_cancels_is_503(
    service: Service, server: PostgreSQLServer
) -> None:
    text = "waited for"
    statuses: list[int] = []
    with closing(server.client()) as client, client.transaction(force_rollback=True):
        client.execute(
            "INSERT INTO hasher_messages VALUES (%s, %s)",
            (bytes.fromhex(name_of(text)), text.encode()),
        )
        request = threading.Thread(target=lambda: statuses.append(service.post(text).status))
        request.start()
        waiting = (
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'hasher' AND wait_event_type = 'Lock'"
        )
        until(lambda: server.execute(waiting))
        request.join()
    assert statuses == [503]
    assert service.post(text).status == 201
    assert "canceling statement due to user request" in service.log


def test_a_statement_that_waits_for_a_lock_is_given_up_in_the_server_too(
    service: Service, server: PostgreSQLServer
) -> None:
    known = service.post("known").json["digest"]
    with closing(server.client()) as client, client.transaction():
        client.execute(f"LOCK TABLE {TABLE}")
        assert_unavailable(service, known)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until(lambda: not server.execute(waiting), within=2)
    assert_recovers(service, known)


def test_a_failover_loses_nothing(tmp_path: Path, record_property: Record) -> None:
    with (
        PostgreSQLServer("synchronous_standby_names=standby") as primary,
        PostgreSQLServer(follow=primary) as standby,
    ):
        synchronous = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        until(lambda: primary.execute(synchronous))
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        env = {"HASHER_STORE": f"postgresql://hasher@{hosts}/postgres", "WEB_CONCURRENCY": "2"}
        with Service(tmp_path / "log", **env) as service:  # type: ignore[arg-type] # all are settings
            with Load(service) as load:
                until(lambda: load.has_sent(500))
                primary.kill()
                until(lambda: load.outcomes[503])
                standby.promote()
                promoted = time.monotonic()
                stored = load.outcomes[201]
                until(lambda: load.outcomes[201] > stored + 100)
                well = time.monotonic() - promoted
            record_property("failover", f"{load.said()}, well {well:.2f} s after the promotion")
            assert set(load.outcomes) <= {200, 201, 503}
            assert well < 5
            assert load.lost() == []


def test_what_no_standby_has_is_not_acknowledged(tmp_path: Path) -> None:
    with (
        PostgreSQLServer("synchronous_standby_names=standby") as primary,
        PostgreSQLServer(follow=primary) as standby,
        Service(tmp_path / "log", HASHER_STORE=primary.url, WEB_CONCURRENCY="1") as service,
    ):
        until(lambda: service.post("first").status in {200, 201})
        standby.signal(signal.SIGSTOP)
        for _ in range(3):  # it is stored here from the first time on, and nowhere else
            started = time.monotonic()
            assert service.post("second").status == 503
            assert time.monotonic() - started < 2
        bulk = {"Content-Type": "application/x-ndjson"}
        many = b'{"message":"second"}\n{"message":"third"}\n'
        assert service.request("POST", "/messages", many, bulk).status == 503
        assert service.get(name_of("first")).status == 200
        standby.signal(signal.SIGCONT)
        until(lambda: service.post("second").status == 200, within=5)


def test_a_commit_whose_wait_for_the_standby_is_cancelled_is_not_acknowledged(
    tmp_path: Path,
) -> None:
    with (
        PostgreSQLServer("synchronous_standby_names=standby") as primary,
        PostgreSQLServer(follow=primary) as standby,
        Service(tmp_path / "log", HASHER_STORE=primary.url, WEB_CONCURRENCY="1") as service,
    ):
        until(lambda: service.post("first").status in {200, 201})
        standby.signal(signal.SIGSTOP)
        statuses: list[int] = []
        request = threading.Thread(target=lambda: statuses.append(service.post("x").status))
        request.start()
        waiting = (
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'hasher' AND wait_event = 'SyncRep'"
        )
        until(lambda: primary.execute(waiting))
        request.join()
        standby.signal(signal.SIGCONT)
        assert statuses == [503]
        assert "synchronous replication" in service.log
