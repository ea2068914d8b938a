"""PostgreSQL beyond the contract: what a statement costs, and what it survives."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from hasher.stores import (
    DamagedMessage,
    Driver,
    Outcome,
    Resources,
    Stored,
    TakenDown,
    Unusable,
    locate,
)
from hasher.stores.messages import digest_of as digest
from hasher.stores.postgresql import pool
from hasher.stores.postgresql.connection import Connection, Lost, Statement
from hasher.stores.postgresql.location import PostgreSQLLocation
from hasher.stores.postgresql.pool import Connections
from hasher.stores.tombstone import MARK
from tests.support.postgresql import UNPRIVILEGED, PgBouncer, PostgreSQLServer, relay
from tests.support.servers import certificate, until

NEW, REPEATED, MENDED = Outcome.NEW, Outcome.REPEATED, Outcome.MENDED
FOO = digest(b"foo")
PAIRS = [(digest(b"%d" % number), b"%d" % number) for number in range(3000)]
LARGE = b"x" * 100_000  # stored in pieces, apart from its row


@pytest.fixture
def server(postgresql_server: PostgreSQLServer) -> PostgreSQLServer:
    """A server without a table."""
    postgresql_server.execute("DROP TABLE IF EXISTS hasher_messages")
    return postgresql_server


@pytest.fixture
def store(server: PostgreSQLServer) -> Iterator[Driver]:
    """An empty store."""
    with closing(locate(server.url).open(Resources(threads=16))) as opened:
        yield opened


def number(server: PostgreSQLServer, statement: str) -> int:
    """The one number that a statement returns."""
    return int(server.execute(statement)[0][0])


def test_a_url_says_servers_role_and_table() -> None:
    url = "postgresql://me:p%40ss@a:1,b/d?sslmode=require&table=app.texts&options=-c%20jit=off"
    location = locate(url)
    assert isinstance(location, PostgreSQLLocation)
    said = psycopg.conninfo.conninfo_to_dict(location.conninfo)
    assert (said["host"], said["port"], said["dbname"]) == ("a,b", "1,5432", "d")
    assert (said["user"], said["password"], said["sslmode"]) == ("me", "p@ss", "require")
    assert said["target_session_attrs"] == "read-write"
    assert "-c synchronous_commit=on" in str(said["options"])
    assert str(said["options"]).endswith("-c jit=off -c client_min_messages=warning")
    assert location.table == "app.texts"
    assert "p@ss" not in repr(location)
    assert "p%40ss" not in repr(location) + str(location)


def test_one_server_may_be_any_and_pgbouncer_is_asked_for_no_options() -> None:
    location = locate("postgresql://h/d?prepare=off")
    assert isinstance(location, PostgreSQLLocation)
    assert not location.prepare
    said = psycopg.conninfo.conninfo_to_dict(location.conninfo)
    assert said["target_session_attrs"] == "any"
    assert "options" not in said


def test_thirty_that_start_at_once_make_one_table(server: PostgreSQLServer) -> None:
    barrier = threading.Barrier(30)

    def start(thread: int) -> Outcome:
        barrier.wait()
        with closing(locate(server.url).open(Resources(threads=1))) as store:
            until(lambda: store.check() is None)
            return store.put(digest(b"%d" % thread), b"%d" % thread)

    with ThreadPoolExecutor(30) as executor:
        assert list(executor.map(start, range(30))) == [NEW] * 30
    assert number(server, "SELECT count(*) FROM hasher_messages") == 30


def test_a_table_is_not_made_unless_it_may(server: PostgreSQLServer) -> None:
    with pytest.raises(Unusable, match="flask store schema"):
        locate(server.url).open(create=False)
    assert server.execute("SELECT to_regclass('hasher_messages')") == [(None,)]


def test_what_differs_is_mended_in_the_same_statement(
    store: Driver, server: PostgreSQLServer
) -> None:
    store.put(FOO, b"foo")
    server.execute("UPDATE hasher_messages SET message = 'bar'")
    assert [store.put(FOO, b"foo") for _ in range(2)] == [MENDED, REPEATED]
    server.execute("UPDATE hasher_messages SET message = ''")
    assert store.put_many([(FOO, b"foo"), PAIRS[0]]) == Stored(new=1, mended=1)
    assert store.get(FOO) == b"foo"


def test_one_of_many_that_mend_at_once_does(store: Driver, server: PostgreSQLServer) -> None:
    for _ in range(20):
        store.put(FOO, b"foo")
        server.execute("UPDATE hasher_messages SET message = 'bar'")
        barrier = threading.Barrier(8)

        def mend(_: int, barrier: threading.Barrier = barrier) -> Outcome:
            barrier.wait()
            return store.put(FOO, b"foo")

        with ThreadPoolExecutor(8) as executor:
            assert sorted(outcome.value for outcome in executor.map(mend, range(8))) == [
                "mended",
                *["repeated"] * 7,
            ]


def test_what_is_removed_while_a_put_waits_is_not_stored(
    store: Driver, server: PostgreSQLServer
) -> None:
    remove = (
        "INSERT INTO hasher_messages VALUES (%s, %s)"
        " ON CONFLICT (digest) DO UPDATE SET message = excluded.message"
    )
    puts: list[Callable[[], object]] = [
        lambda: store.put(FOO, b"foo"),
        lambda: store.put_many([(FOO, b"foo"), PAIRS[0]]),
    ]
    for put in puts:
        for before in (None, b"bar"):
            server.execute("TRUNCATE hasher_messages")
            if before:
                store.put(FOO, before)
            with closing(server.client()) as client, client.transaction():
                client.execute(remove, [bytes.fromhex(FOO), MARK])
                waiting = Waiting(server, put)  # it began before the tombstone was committed
            waiting.join()
            assert isinstance(waiting.outcome, TakenDown)
            assert store.get(FOO) == MARK


def test_threads_that_share_a_statement_are_each_told_of_a_removal(
    store: Driver, server: PostgreSQLServer
) -> None:
    store.remove(FOO, MARK)
    lock = "LOCK TABLE hasher_messages IN EXCLUSIVE MODE"
    barrier = threading.Barrier(8)

    def put(thread: int) -> Outcome | str:
        barrier.wait()
        pair = (FOO, b"foo") if thread % 2 else PAIRS[0]
        try:
            return store.put(*pair)
        except TakenDown as error:
            return error.digest

    with closing(server.client()) as client, ThreadPoolExecutor(8) as executor:
        with client.transaction():
            client.execute(lock)
            outcomes = executor.map(put, range(8))
            until(lambda: number(server, WAITING) == 1)
        found = list(outcomes)
    assert found[1::2] == [FOO] * 4
    assert sorted(found[::2], key=str) == [NEW, *[REPEATED] * 3]


def test_a_role_that_may_not_restore_is_told_so(store: Driver, server: PostgreSQLServer) -> None:
    server.execute("DROP ROLE IF EXISTS keeper")
    server.execute("CREATE ROLE keeper LOGIN")
    server.execute("GRANT SELECT, INSERT, UPDATE ON hasher_messages TO keeper")
    with closing(locate(server.url.replace("hasher@", "keeper@")).open()) as keeper:
        assert keeper.remove(FOO, MARK) is NEW
        with pytest.raises(Unusable, match="GRANT DELETE ON hasher_messages"):
            keeper.restore(FOO)
    assert store.restore(FOO)
    server.execute("DROP OWNED BY keeper; DROP ROLE keeper")


@pytest.fixture
def torn(store: Driver, server: PostgreSQLServer) -> Driver:
    """A store with messages of which one has lost its pieces, as on a failing disk."""
    store.put_many([*PAIRS[:150], (digest(LARGE), LARGE)])
    server.execute("CREATE EXTENSION IF NOT EXISTS pg_surgery")
    pieces = "SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'hasher_messages'"
    ((table,),) = server.execute(pieces)
    kill = "SELECT heap_force_kill('{}'::regclass, (SELECT array_agg(ctid) FROM {}))"
    server.execute(kill.replace("{}", table))
    return store


def test_what_cannot_be_read_is_damaged_and_left_out(torn: Driver) -> None:
    with pytest.raises(DamagedMessage):
        torn.get(digest(LARGE))
    assert dict(torn.items()) == {**dict(PAIRS[:150]), digest(LARGE): None}


def test_what_cannot_be_read_is_mended(torn: Driver) -> None:
    assert torn.put(digest(LARGE), LARGE) is MENDED
    assert torn.get(digest(LARGE)) == LARGE


def test_what_cannot_be_read_is_mended_among_many(torn: Driver) -> None:
    assert torn.put_many([*PAIRS[:151], (digest(LARGE), LARGE)]) == Stored(1, 150, 1)
    assert torn.get(digest(LARGE)) == LARGE


def test_what_cannot_be_read_can_be_removed(torn: Driver) -> None:
    assert list(torn.removed()) == []
    assert torn.removed_of([digest(LARGE)]) == []
    assert torn.remove(digest(LARGE), MARK) is MENDED
    for put in (torn.put, lambda *pair: torn.put_many([pair])):
        with pytest.raises(TakenDown):
            put(digest(LARGE), LARGE)


def test_a_repeat_writes_nothing(store: Driver, server: PostgreSQLServer) -> None:
    store.put_many(PAIRS)
    with closing(server.client()) as client:
        client.execute("SET synchronous_commit = off")
        before = client.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        rows = client.execute("SELECT n_tup_upd FROM pg_stat_user_tables").fetchone()
        for pair in PAIRS[:100]:
            assert store.put(*pair) is REPEATED
        assert store.put_many(PAIRS) == Stored(repeated=len(PAIRS))
        assert client.execute("SELECT n_tup_upd FROM pg_stat_user_tables").fetchone() == rows
        after = client.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    assert before
    assert after
    grown = number(server, f"SELECT '{after[0]}'::pg_lsn - '{before[0]}'::pg_lsn")
    assert grown < 100 * len(PAIRS)  # what a lock on each row would take; vacuum may write some


def test_no_statement_reads_the_whole_table(store: Driver, server: PostgreSQLServer) -> None:
    for start in range(0, 3000, 300):  # a plan that is kept is chosen while the table is small
        store.put_many(PAIRS[start : start + 300])
        for name, message in PAIRS[start : start + 20]:
            assert store.put(name, message) is REPEATED
            assert store.get(name) == message
    assert len(list(store.items())) == store.count() == 3000
    store.close()  # which has the server count what its session did
    scans = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'hasher_messages'"
    reads = "SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'hasher_messages'"
    until(lambda: number(server, reads) > 3000)
    assert number(server, scans) == 0


def test_no_more_connections_than_threads(server: PostgreSQLServer) -> None:
    with closing(locate(server.url).open(Resources(threads=3))) as store:
        with ThreadPoolExecutor(12) as executor:
            assert list(executor.map(lambda pair: store.put(*pair), PAIRS[:300])) == [NEW] * 300
            assert all(executor.map(lambda pair: store.get(pair[0]), PAIRS[:300]))
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hasher'"
        assert 0 < number(server, sessions) <= 3


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


class Waiting(threading.Thread):
    """A call that waits for a lock: one of `count` that do when this is made."""

    def __init__(
        self, server: PostgreSQLServer, call: Callable[[], object], count: int = 1
    ) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.outcome: object = None
        self.start()
        until(lambda: number(server, WAITING) == count)

    def run(self) -> None:
        """Keep what the call returns, or raises."""
        try:
            self.outcome = self.call()
        except Exception as error:  # noqa: BLE001 - it is what came
            self.outcome = error


def test_a_serialization_failure_is_tried_again(server: PostgreSQLServer) -> None:
    url = f"{server.url}?options=-c%20default_transaction_isolation=serializable"
    with closing(locate(url).open()) as store, closing(server.client()) as client:
        assert store.check() is None
        with client.transaction():
            client.execute("INSERT INTO hasher_messages VALUES (%s, 'bar')", [bytes.fromhex(FOO)])
            put = Waiting(server, lambda: store.put(FOO, b"foo"))
        put.join()
        assert put.outcome is MENDED


def test_a_deadlock_is_tried_again(
    server: PostgreSQLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "NAP", 0.4)  # for the other to wake up, on a busy machine too
    url = f"{server.url}?options=-c%20deadlock_timeout=10ms"
    pairs = sorted(PAIRS[:3])
    touch = "UPDATE hasher_messages SET message = '!' WHERE digest = %s"
    keys = [bytes.fromhex(name) for name, _ in pairs]
    with (
        closing(locate(url).open()) as store,
        closing(server.client()) as client,
        closing(server.client()) as other,
    ):
        store.put_many([(name, b"?") for name, _ in pairs])
        client.execute("SET deadlock_timeout = '1h'")
        with client.transaction():
            client.execute(touch, [keys[2]])
            with other.transaction():
                other.execute(touch, [keys[1]])
                # It has locked the first, and waits for the second, of the other.
                put = Waiting(server, lambda: store.put_many(pairs))
                # The client waits for the first; the store will wait for the third, of the client.
                first = Waiting(server, lambda: client.execute(touch, [keys[0]]), 2)
            first.join()
        put.join()
        assert put.outcome == Stored(mended=3)
        assert dict(store.items()) == dict(pairs)


@pytest.fixture
def connections(server: PostgreSQLServer) -> Iterator[Connections]:
    """One connection at most."""
    made = Connections(server.url, size=1, prepare=True, setup=lambda _: None)
    with closing(made):
        yield made


def session(connections: Connections) -> int:
    """The process of the server that answers."""
    return connections.use(lambda connection: connection.info.backend_pid)


def test_a_connection_is_used_again(connections: Connections) -> None:
    assert len({session(connections) for _ in range(10)}) == 1


def test_a_thread_that_waits_gets_the_connection_that_another_gives_back(
    connections: Connections,
) -> None:
    """Had the other kept it for the next request, this one would have waited in vain."""
    taken, release = threading.Event(), threading.Event()

    def hold(_: Connection) -> bool:
        taken.set()
        return release.wait(10)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(connections.use, hold)
        assert taken.wait(10)
        second = threads.submit(session, connections)
        until(lambda: connections.waiting)
        release.set()
        assert second.result()
        assert first.result()


def test_the_pool_gets_idle_connections_back_and_may_close_them(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = session(connections)
    monkeypatch.setattr(connections, "_return_at", 0.0)
    connections.use(lambda connection: setattr(connection, "_expire_at", 0.0))
    assert session(connections) != before


SLEEP = Statement(b"sleep", b"SELECT pg_sleep(5)", ())
ONE = Statement(b"one", b"SELECT 1", ())


def test_a_statement_for_which_no_time_is_left_is_given_up(connections: Connections) -> None:
    with pytest.raises(TimeoutError):
        connections.use(lambda connection: connection.ask(SLEEP, [], -0.1))
    assert connections.ask(ONE).ntuples == 1


def test_all_that_is_done_over_a_connection_ends_in_time(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement of psycopg's own, as when the table is made, has no other limit than this."""
    monkeypatch.setattr(pool, "LIMIT", 0.2)
    with pytest.raises(TimeoutError):
        connections.use(lambda connection: connection.execute("SELECT pg_sleep(0.6)"))


def test_what_is_not_committed_for_certain_is_lost(server: PostgreSQLServer) -> None:
    """The server sends a result before it commits, and that it is ready afterwards."""
    cuts = threading.Event()

    def change(packet: bytes) -> bytes:
        return packet.removesuffix(b"Z\0\0\0\5I") if cuts.is_set() else packet

    with relay(server.port, change) as port:
        url = server.url.replace(f":{server.port}", f":{port}")
        with closing(Connections(url, size=1, prepare=True, setup=lambda _: None)) as connections:
            assert connections.ask(ONE).ntuples == 1
            cuts.set()
            with pytest.raises(Lost):
                connections.use(lambda connection: connection.ask(ONE, [], 1))


def test_the_servers_warnings_cannot_be_turned_off(server: PostgreSQLServer) -> None:
    """They are all that tells of a commit that a standby lacks."""
    options = "?options=-c%20client_min_messages=error"
    with closing(locate(f"{server.url}{options}").open()) as store:
        assert store.check() is None
    with pytest.raises(Unusable, match="set it to warning"):
        locate(f"{server.url}{options}&prepare=off").open()


def test_a_warning_belongs_to_the_statement_that_it_came_with(connections: Connections) -> None:
    warns = Statement(b"", b"DO $$BEGIN RAISE WARNING 'a'; RAISE WARNING 'b'; END$$", ())
    with pytest.raises(psycopg.OperationalError, match="the server warns: a, b"):
        connections.ask(warns)
    connections.use(lambda connection: connection.execute(warns.text))
    assert connections.ask(ONE).ntuples == 1


def test_the_reason_for_which_the_server_ends_a_connection_is_told(
    server: PostgreSQLServer, connections: Connections
) -> None:
    victim = session(connections)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(connections.use, lambda it: it.ask(SLEEP, [], 5))
        until(
            lambda: number(
                server, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            )
        )
        server.execute(f"SELECT pg_terminate_backend({victim})")
        with pytest.raises(psycopg.OperationalError, match="administrator command"):
            asked.result()


def test_pgbouncer_in_transaction_mode_is_spoken_to_without_preparing(
    server: PostgreSQLServer,
) -> None:
    with (
        PgBouncer(server) as url,
        closing(locate(f"{url}?prepare=off").open(Resources(threads=8))) as store,
    ):
        with ThreadPoolExecutor(8) as executor:
            assert list(executor.map(lambda pair: store.put(*pair), PAIRS[:500])) == [NEW] * 500
            assert list(executor.map(lambda pair: store.get(pair[0]), PAIRS[:500])) == [
                message for _, message in PAIRS[:500]
            ]
        assert store.put_many(PAIRS) == Stored(new=2500, repeated=500)
        assert dict(store.items()) == dict(PAIRS)


def test_a_server_that_forgets_prepared_statements_says_what_to_do(
    store: Driver, server: PostgreSQLServer
) -> None:
    with closing(locate(server.url).open(Resources(threads=1))) as single:
        single.put(FOO, b"foo")
        single.get(FOO)
        vars(single)["_connections"].use(lambda connection: connection.execute("DEALLOCATE ALL"))
        with pytest.raises(Unusable, match="prepare=off"):
            single.get(FOO)


def test_tls_is_spoken_and_the_authority_checked(tmp_path: Path) -> None:
    authority, key = certificate(tmp_path)
    with PostgreSQLServer() as server:
        for file in (authority, key):
            copy = Path(shutil.copy(file, server.folder))
            if UNPRIVILEGED:
                shutil.chown(copy, UNPRIVILEGED["user"], UNPRIVILEGED["group"])
            copy.chmod(0o600)
        server.stop()
        files = (
            f"ssl_cert_file={server.folder}/server.pem",
            f"ssl_key_file={server.folder}/server.key",
        )
        server.settings = ("ssl=on", *files)
        server.start()
        with closing(
            locate(f"{server.url}?sslmode=verify-full&sslrootcert={authority}").open()
        ) as store:
            assert store.put(FOO, b"foo") is NEW
        assert number(server, "SELECT count(*) FROM hasher_messages") == 1
        with (
            closing(locate(f"{server.url}?sslmode=verify-full&sslrootcert=system").open()) as store,
            pytest.raises(store.errors, match="certificate verify failed"),
        ):
            store.put(FOO, b"foo")


def test_a_scratch_place_is_removed(store: Driver, server: PostgreSQLServer) -> None:
    location = locate(server.url)
    with location.scratch() as place, closing(place.open()) as scratch:
        assert scratch.put(FOO, b"foo") is NEW
        assert store.count() == 0
    tables = "SELECT relname FROM pg_class WHERE relname LIKE 'hasher_%' AND relkind = 'r'"
    assert server.execute(tables) == [("hasher_messages",)]
