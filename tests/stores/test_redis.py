"""What only the drivers of Redis promise: mending, redirections, connections, URLs."""

import os
import signal
import socket
import time
from binascii import crc_hqx
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import chain, repeat
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from redis import Redis

from hasher.stores import (
    DamagedMessage,
    Driver,
    Outcome,
    Stored,
    StoreFull,
    TakenDown,
    Unusable,
    locate,
)
from hasher.stores.messages import digest_of
from hasher.stores.redis import ClusterLocation, RedisLocation, connection
from hasher.stores.redis.driver import SMALL, RedisDriver
from hasher.stores.redis.server import Access, TooFewReplicas
from hasher.stores.redis.shared_call import LATE, SharedCall
from hasher.stores.tombstone import MARK
from tests.support.servers import RedisCluster, RedisServer, certificate, free_ports, until

NEW, REPEATED, MENDED = Outcome.NEW, Outcome.REPEATED, Outcome.MENDED
MESSAGES = [b"", b"foo", b"x" * SMALL, b"x" * (SMALL + 1), b"x" * 10**6]
PAIRS = [(digest_of(b"%d" % number), b"%d" % number) for number in range(2500)]

Servers = RedisServer | RedisCluster
Damage = Callable[[Redis, str], object]


@pytest.fixture(params=["redis_server", "redis_cluster"])
def servers(request: pytest.FixtureRequest) -> Servers:
    """One server, then a cluster, with nothing stored."""
    running: Servers = request.getfixturevalue(request.param)
    running.empty()
    return running


@pytest.fixture
def driver(servers: Servers) -> Iterator[Driver]:
    """The driver of either."""
    with opened(servers.url) as driver:
        yield driver


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own."""
    with RedisServer(tmp_path / "redis") as running:
        yield running


@contextmanager
def opened(url: str) -> Iterator[Driver]:
    """The driver at `url`."""
    with closing(locate(url).open()) as driver:
        yield driver


def key_of(digest: str) -> str:
    """The key of a message."""
    return f"hasher:{digest}"


@contextmanager
def holder_of(servers: Servers, digest: str) -> Iterator[Redis]:
    """A client of the server that holds the message."""
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(node.client())) for node in servers.nodes]
        yield clients[0] if len(clients) == 1 else next(c for c in clients if holds(c, digest))


def holds(client: Redis, digest: str) -> bool:
    """Whether `client` speaks to the master that holds the message."""
    nodes: Any = client.execute_command("CLUSTER NODES")  # type: ignore[no-untyped-call]
    myself = next(node for node in nodes.values() if "myself" in node["flags"])
    return any(int(part[0]) <= slot_of(digest) <= int(part[-1]) for part in myself["slots"])


def slot_of(digest: str) -> int:
    """The slot of the message in a cluster."""
    return crc_hqx(key_of(digest).encode(), 0) % 16384


def store_a_string(client: Redis, key: str) -> None:
    client.set(key, "something else")


def store_a_list(client: Redis, key: str) -> None:
    client.delete(key)
    client.rpush(key, "something", "else")


@pytest.mark.parametrize("message", MESSAGES, ids=len)
@pytest.mark.parametrize("damage", [store_a_string, store_a_list])
def test_who_stores_a_damaged_message_again_mends_it(
    servers: Servers, driver: Driver, message: bytes, damage: Damage
) -> None:
    digest = digest_of(message)
    with holder_of(servers, digest) as client:
        damage(client, key_of(digest))
    assert [driver.put(digest, message) for _ in range(2)] == [MENDED, REPEATED]
    assert driver.get(digest) == message


@pytest.mark.parametrize("damage", [store_a_string, store_a_list])
def test_many_mend_what_is_damaged(servers: Servers, driver: Driver, damage: Damage) -> None:
    driver.put_many(PAIRS[:2000])
    for digest, _ in PAIRS[:20]:
        with holder_of(servers, digest) as client:
            damage(client, key_of(digest))
    assert driver.put_many(PAIRS) == Stored(new=500, repeated=1980, mended=20)
    assert dict(driver.items()) == dict(PAIRS)


def test_what_no_message_can_be_is_damaged(servers: Servers, driver: Driver) -> None:
    (damaged, _), (well, message) = PAIRS[:2]
    driver.put(well, message)
    with holder_of(servers, damaged) as client:
        store_a_list(client, key_of(damaged))
    with pytest.raises(DamagedMessage):
        driver.get(damaged)
    assert dict(driver.items()) == {damaged: None, well: message}
    assert driver.count() == 2


def test_of_many_who_mend_at_once_none_is_told_that_it_is_new(
    servers: Servers, driver: Driver
) -> None:
    barrier = Barrier(8)

    def mend(pair: tuple[str, bytes]) -> Outcome:
        barrier.wait()
        return driver.put(*pair)

    with ThreadPoolExecutor(8) as pool:
        for pair in PAIRS[:50]:
            with holder_of(servers, pair[0]) as client:
                store_a_list(client, key_of(pair[0]))
            outcomes = set(pool.map(mend, [pair] * 8))
            assert MENDED in outcomes
            assert outcomes <= {MENDED, REPEATED}
            assert driver.get(pair[0]) == pair[1]


def test_who_mends_replaces_no_tombstone_that_came_meanwhile(
    servers: Servers, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, message = PAIRS[0]
    with holder_of(servers, digest) as client:
        store_a_string(client, key_of(digest))
    compare = vars(RedisDriver)["_compare"]

    def remove_after(driver: Driver, *arguments: Any) -> Any:
        compared = compare(driver, *arguments)
        driver.remove(digest, MARK)
        return compared

    with monkeypatch.context() as slow:
        slow.setattr(RedisDriver, "_compare", remove_after)
        with pytest.raises(TakenDown, match=digest):
            driver.put(digest, message)
    assert driver.get(digest) == MARK


def test_a_value_of_another_type_can_be_removed(servers: Servers, driver: Driver) -> None:
    digest, message = PAIRS[0]
    with holder_of(servers, digest) as client:
        store_a_list(client, key_of(digest))
    assert list(driver.removed()) == []
    assert driver.removed_of([digest]) == []
    assert not driver.restore(digest)
    assert driver.remove(digest, MARK) is MENDED
    with pytest.raises(TakenDown):
        driver.put(digest, message)


def test_a_full_server_is_removed_from(server: RedisServer) -> None:
    with opened(server.url) as driver, closing(server.client()) as client:
        driver.put_many(PAIRS[:2])
        client.config_set("maxmemory", "1")
        assert driver.remove(PAIRS[0][0], MARK) is MENDED
        assert driver.get(PAIRS[0][0]) == MARK
        with pytest.raises(TakenDown):
            driver.put(*PAIRS[0])
        assert driver.put(*PAIRS[1]) is REPEATED
        assert driver.restore(PAIRS[0][0])


def test_a_full_server_still_tells_repeats_from_new_messages(server: RedisServer) -> None:
    large = b"x" * (SMALL + 1)
    with opened(server.url) as driver, closing(server.client()) as client:
        driver.put(digest_of(large), large)
        driver.put_many(PAIRS[:10])
        store_a_list(client, key_of(PAIRS[9][0]))
        client.config_set("maxmemory", "1")
        assert driver.put(digest_of(large), large) is REPEATED
        assert driver.put(*PAIRS[0]) is REPEATED
        assert driver.put_many(PAIRS[:9]) == Stored(repeated=9)
        for refused in (PAIRS[:9] + PAIRS[20:21], PAIRS[9:10]):  # a new one, and a damaged one
            with pytest.raises(StoreFull):
                driver.put_many(refused)
            with pytest.raises(StoreFull):
                driver.put(*refused[-1])
        assert driver.get(PAIRS[0][0]) == PAIRS[0][1]
        client.config_set("maxmemory", "0")
        assert driver.put(*PAIRS[9]) is MENDED
        assert driver.put(*PAIRS[20]) is NEW


def test_a_full_server_acknowledges_repeats_that_its_replicas_have(
    tmp_path: Path, server: RedisServer
) -> None:
    follow = ("--replicaof", "127.0.0.1", str(server.port))
    with (
        RedisServer(tmp_path / "replica", *follow) as replica,
        opened(f"{server.url}?replicas=1") as driver,
        closing(server.client()) as client,
    ):
        until(lambda: follows(replica))
        assert driver.put(*PAIRS[0]) is NEW
        client.config_set("maxmemory", "1")
        assert driver.put(*PAIRS[0]) is REPEATED
        assert driver.put_many(PAIRS[:1]) == Stored(repeated=1)
        os.kill(replica.pid, signal.SIGSTOP)
        client.config_set("maxmemory", "0")
        store_a_string(client, key_of(PAIRS[0][0]))
        with pytest.raises(TooFewReplicas):
            driver.put(*PAIRS[0])  # mended, and the replica does not know
        client.config_set("maxmemory", "1")
        with pytest.raises(TooFewReplicas):
            driver.put(*PAIRS[0])


def follows(replica: RedisServer) -> bool:
    """Whether the replica has all that its master has."""
    with closing(replica.client()) as client:
        replication: Any = client.info("replication")
        return bool(replication["master_link_status"] == "up")


def test_a_server_that_was_started_again_is_found_by_the_next_call(server: RedisServer) -> None:
    with opened(server.url) as driver, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: driver.put(*pair), PAIRS[:100]))
        server.kill()
        with pytest.raises(OSError, match=r"."):
            driver.get(PAIRS[0][0])
        server.start()
        assert set(pool.map(lambda pair: driver.put(*pair), PAIRS[:100])) == {NEW}


def test_a_connection_on_which_an_answer_is_late_is_not_used_again(server: RedisServer) -> None:
    with opened(server.url) as driver:
        driver.put_many(PAIRS[:100])
        os.kill(server.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            driver.get(PAIRS[0][0])
        assert time.monotonic() - started < 1.5
        os.kill(server.pid, signal.SIGCONT)
        until(lambda: succeeds(lambda: driver.get(PAIRS[1][0])))
        for digest, message in PAIRS[:100]:
            assert driver.get(digest) == message


def succeeds(call: Callable[[], object]) -> bool:
    """Whether `call` raises no TimeoutError."""
    try:
        call()
    except TimeoutError:
        return False
    return True


def test_connections_that_the_server_has_closed_are_replaced(server: RedisServer) -> None:
    with opened(server.url) as driver, closing(server.client()) as client:
        for pair in PAIRS[:20]:
            assert driver.put(*pair) is NEW
            client.client_kill_filter(_type="normal", skipme=True)
            assert driver.get(pair[0]) == pair[1]


@pytest.mark.usefixtures("impatient_threads")
def test_threads_that_all_lose_their_connections_go_on(server: RedisServer) -> None:
    stopped = Event()
    with opened(server.url) as driver, closing(server.client()) as client:

        def work(pair: tuple[str, bytes]) -> None:
            while not stopped.is_set():
                with suppress(*driver.errors):  # if the new connection is lost at once, too
                    driver.put(*pair)
            assert driver.get(pair[0]) == pair[1]

        with ThreadPoolExecutor(16) as pool:
            working = [pool.submit(work, pair) for pair in PAIRS[:16]]
            for _ in range(300):
                client.client_kill_filter(_type="normal", skipme=True)
            stopped.set()
            for future in working:
                future.result()


def test_tls_connections_are_bounded_and_replaced_too(tmp_path: Path) -> None:
    authority, key = certificate(tmp_path)
    (port,) = free_ports(1)
    tls = ("--tls-port", str(port), "--tls-auth-clients", "no")
    pair = ("--tls-cert-file", str(authority), "--tls-key-file", str(key))
    with (
        RedisServer(tmp_path / "redis", *tls, *pair) as server,
        opened(f"rediss://127.0.0.1:{port}?ca={authority}") as driver,
    ):
        assert driver.put(*PAIRS[0]) is NEW
        server.kill()
        server.start()
        assert driver.put(*PAIRS[0]) is NEW
        os.kill(server.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            driver.get(PAIRS[0][0])
        assert time.monotonic() - started < 2


def test_there_are_no_more_connections_than_threads(server: RedisServer) -> None:
    with (
        opened(server.url) as driver,
        ThreadPoolExecutor(4) as pool,
        closing(server.client()) as client,
    ):
        list(pool.map(lambda pair: driver.put(*pair), PAIRS))
        assert len(client.client_list()) <= 5


@pytest.mark.parametrize("replicas", [0, 1])
def test_a_slot_that_moves_is_followed(redis_cluster: RedisCluster, replicas: int) -> None:
    redis_cluster.empty()
    kept, added, later = pairs_of_one_slot()
    with (
        opened(f"{redis_cluster.url}?replicas={replicas}") as driver,
        holder_of(redis_cluster, kept[0]) as source,
    ):
        assert driver.put(*kept) is NEW
        with another_master(redis_cluster, kept[0]) as target:
            begin_to_move(slot_of(kept[0]), source, target)
            assert driver.put(*added) is NEW
            assert driver.put(*added) is REPEATED
            assert driver.put_many([kept, added]) == Stored(repeated=2)
            assert [driver.get(digest) for digest, _ in (kept, added)] == [kept[1], added[1]]
            finish_move(slot_of(kept[0]), kept[0], source, target)
        assert driver.put_many([kept, added, later]) == Stored(new=1, repeated=2)
        assert dict(driver.items()) == dict([kept, added, later])


def pairs_of_one_slot() -> list[tuple[str, bytes]]:
    """Three messages that a cluster keeps in one slot."""
    slots = Counter(slot_of(digest) for digest, _ in MANY)
    slot, _ = slots.most_common(1)[0]
    return [pair for pair in MANY if slot_of(pair[0]) == slot][:3]


MANY = [(digest_of(b"%d" % number), b"%d" % number) for number in range(20_000)]


@contextmanager
def another_master(cluster: RedisCluster, digest: str) -> Iterator[Redis]:
    """A client of a master that does not hold the message."""
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(node.client())) for node in cluster.nodes]
        masters = [client for client in clients if client.info("replication")["role"] == "master"]
        yield next(client for client in masters if not holds(client, digest))


def identity(client: Redis) -> str:
    """The name of a server in its cluster."""
    return str(client.execute_command("CLUSTER MYID").decode())  # type: ignore[no-untyped-call]


def assign(client: Redis, slot: int, state: str, other: Redis) -> None:
    """Tell a server what becomes of a slot."""
    client.execute_command(  # type: ignore[no-untyped-call]
        f"CLUSTER SETSLOT {slot} {state} {identity(other)}"
    )


def begin_to_move(slot: int, source: Redis, target: Redis) -> None:
    """Let `source` send those who look for new keys of the slot to `target`."""
    assign(target, slot, "IMPORTING", source)
    assign(source, slot, "MIGRATING", target)


def finish_move(slot: int, digest: str, source: Redis, target: Redis) -> None:
    """Move the key that `source` still has, and then the slot."""
    port = target.connection_pool.connection_kwargs["port"]
    source.migrate("127.0.0.1", port, key_of(digest), 0, 5000)
    assign(target, slot, "NODE", target)
    assign(source, slot, "NODE", target)


def test_an_operator_is_told_what_the_server_lets_nobody_see(server: RedisServer) -> None:
    with closing(server.client()) as client:
        client.acl_setuser(
            "hasher", enabled=True, passwords=["+right"], keys=["hasher:*"],
            commands=["+get", "+set", "+ping", "+scan"],
        )  # fmt: skip
    url = server.url.replace("//", "//hasher:right@")
    with opened(url) as driver:
        assert driver.check() is not None
        assert [driver.put(*PAIRS[0]) for _ in range(2)] == [NEW, REPEATED]
        assert dict(driver.items()) == dict(PAIRS[:1])


def test_a_server_on_which_nothing_can_be_kept_is_unusable(
    tmp_path: Path, server: RedisServer
) -> None:
    follow = ("--replicaof", "127.0.0.1", str(server.port))
    with RedisServer(tmp_path / "replica", *follow) as replica:
        with opened(replica.url) as driver, pytest.raises(Unusable, match="is a replica"):
            driver.check()
        with opened(f"{server.url}?replicas=2") as driver, pytest.raises(TooFewReplicas):
            driver.check()
    with opened(server.url) as driver, closing(server.client()) as client:
        assert driver.check() == "the Redis server keeps nothing on disk: messages end with it"
        client.config_set("save", "3600 1")
        assert driver.check() is None
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(Unusable, match="noeviction"):
            driver.check()


def test_a_shared_call_is_made_once_for_all_who_wait() -> None:
    calls, go_on = [], Event()

    def call() -> int:
        calls.append(1)
        go_on.wait()
        return 42

    shared = SharedCall(call, "late")
    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda _: shared.begin(), range(8)))
        assert len(set(begun)) == 1
        go_on.set()
        assert begun[0][0].result(5) == 42
    assert len(calls) == 1
    assert shared.result(5) == 42  # which asks anew
    assert len(calls) == 2


def test_who_comes_later_to_a_shared_call_does_not_wait_as_long_again() -> None:
    go_on = Event()
    shared = SharedCall(go_on.wait, "It is late.")
    with pytest.raises(TimeoutError, match="It is late"):
        shared.result(LATE / 2)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="It is late"):
        shared.result(LATE / 2)
    assert time.monotonic() - started < LATE / 2
    go_on.set()


def test_a_shared_call_that_hangs_is_made_once_more_after_a_while() -> None:
    hang = Event()
    calls = chain([hang.wait], repeat(lambda: True))

    def call() -> bool:
        return next(calls)()

    shared = SharedCall(call, "late")
    shared.begin()
    until(lambda: succeeds(lambda: shared.result(LATE / 2)))
    hang.set()


def test_a_shared_call_raises_what_the_call_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        SharedCall(lambda: 1 // 0, "late").result(5)


@pytest.mark.parametrize("piece", [b"$100\r\n", b"+OK\r\n"], ids=["one reply", "each reply"])
def test_a_server_that_drips_is_given_up_in_time(piece: bytes) -> None:
    """It would be done after ten seconds: with one reply, or with a hundred."""
    pairs = [(digest_of(b"%d" % number), b"%d" % number) for number in range(100)]
    with dripping(piece) as url, opened(url) as driver:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="did not answer in time"):
            driver.put_many(pairs)
        assert time.monotonic() - started < 2


def test_a_large_reply_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands at 0, and then at 0.8 s, when 64 KiB have come."""
    monkeypatch.setattr(connection, "monotonic", iter([0, 0.8]).__next__)
    monkeypatch.setattr(connection, "SPEED", 100_000)
    ours, server = socket.socketpair()
    with closing(ours), closing(server):
        large = b"x" * 100_000
        server.sendall(b"$%d\r\n%s\r\n" % (len(large), large))
        assert connection.Connection(ours, 0.7).call([(b"GET", b"large")]) == [large]


@contextmanager
def dripping(piece: bytes) -> Iterator[str]:
    """A server that sends each connection the same piece, again and again, as its URL."""
    ended = Event()
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        server = pool.submit(drip, listener, piece, ended)
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        server.result()


def drip(listener: socket.socket, piece: bytes, ended: Event) -> None:
    """Send one client the piece, a tenth of a second after the last, until it leaves."""
    with listener.accept()[0] as client, suppress(ConnectionError):
        while not ended.wait(0.1):
            client.sendall(piece)


def test_urls_are_understood(tmp_path: Path) -> None:
    url = "redis://me:p%40ss@h:1/2?replicas=1"
    assert locate(url) == RedisLocation(url, "h", 1, Access("me", "p@ss", 2), 1)
    url = "redis+cluster://:pass@a:1,b"
    assert locate(url) == ClusterLocation(url, (("a", 1), ("b", 6379)), Access(None, "pass"), 0)
    url = "redis+cluster://me:pa,ss@a,b"
    assert locate(url) == ClusterLocation(url, (("a", 6379), ("b", 6379)), Access("me", "pa,ss"), 0)
    ca = tmp_path / "ca.pem"
    ca.touch()
    url = f"rediss://[::1]?ca={ca}"
    assert locate(url) == RedisLocation(url, "::1", 6379, Access(tls=True, ca=str(ca)), 0)


@pytest.mark.parametrize("url", ["redis://me:secret@h", "redis+cluster://me:secret@h,i"])
def test_no_location_shows_its_password(url: str) -> None:
    assert "secret" not in repr(locate(url))
    assert "secret" not in str(locate(url))
