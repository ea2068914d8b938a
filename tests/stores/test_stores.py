"""The contract of drivers, held by every one of them."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hasher.stores import Driver, Outcome, Resources, StoreFull, TakenDown, Unusable, locate
from hasher.stores.contract import (
    CHECKS,
    Check,
    everything_that_is_stored_can_be_gone_through,
    fault_of,
)
from hasher.stores.memory import MemoryDriver
from hasher.stores.messages import digest_of as digest
from hasher.stores.postgresql.driver import PostgreSQLDriver
from hasher.stores.redis.cluster import ClusterDriver
from hasher.stores.redis.single import SingleDriver
from hasher.stores.sqlite import SQLiteDriver, SQLiteLocation
from hasher.stores.tombstone import MARK
from tests.support.servers import RedisCluster, RedisServer, free_ports

NEW, REPEATED = Outcome.NEW, Outcome.REPEATED
STORES = ["memory", "sqlite", "redis", "cluster", "postgresql"]


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each store's URL in turn, with nothing stored."""
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:///{tmp_path}/messages.db"
        case "postgresql":
            database = request.getfixturevalue("postgresql_server")
            database.execute("DROP TABLE IF EXISTS hasher_messages")
            return str(database.url)
        case "redis":
            server: RedisServer | RedisCluster = request.getfixturevalue("redis_server")
        case _:
            server = request.getfixturevalue("redis_cluster")
    server.empty()
    return server.url


@pytest.fixture
def store(url: str) -> Iterator[Driver]:
    """Each store in turn, empty."""
    with closing(locate(url).open(Resources(threads=16))) as opened:
        yield opened


@pytest.mark.usefixtures("impatient_threads")
@pytest.mark.parametrize("check", CHECKS)
def test_what_the_contract_says_holds(check: Check, store: Driver, url: str) -> None:
    check(store, locate(url))


def test_a_scratch_place_touches_nothing_beside_it(store: Driver, url: str) -> None:
    store.put(digest(b"kept"), b"kept")
    assert fault_of(everything_that_is_stored_can_be_gone_through, locate(url)) is None
    assert dict(store.items()) == {digest(b"kept"): b"kept"}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_forks_goes_on_with_connections_of_its_own(store: Driver) -> None:
    store.put(digest(b"parent"), b"parent")
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            assert store.get(digest(b"parent")) == b"parent"
            for number in range(200):
                store.put(digest(b"child %d" % number), b"child %d" % number)
            os._exit(0)
        os._exit(1)
    for number in range(200):
        assert store.put(digest(b"%d" % number), b"%d" % number) is NEW
        assert store.get(digest(b"parent")) == b"parent"
    assert os.waitpid(child, 0)[1] == 0
    assert store.count() == (401 if store.shared else 201)


def test_a_store_can_be_used_while_it_is_gone_through(store: Driver) -> None:
    pairs = [(digest(b"%d" % number), b"%d" % number) for number in range(2500)]
    store.put_many(pairs)
    found = set()
    for number, (name, message) in enumerate(store.items()):
        found.add((name, message))
        if number % 500 == 0:
            assert store.get(pairs[number][0]) == pairs[number][1]
            assert store.get(digest(b"missing")) is None
            assert store.put(*pairs[number]) is REPEATED
            store.check()
    assert found == set(pairs)


def test_a_store_that_works_passes_its_check(store: Driver) -> None:
    remark = store.check()
    assert remark is None or not remark.endswith(".")


@pytest.mark.parametrize(
    "kind", [MemoryDriver, SQLiteDriver, SingleDriver, ClusterDriver, PostgreSQLDriver]
)
def test_a_store_without_a_method_cannot_be_made(kind: type[Driver]) -> None:
    for method in Driver.__abstractmethods__:
        partial = type("Partial", (kind,), {method: getattr(Driver, method)})
        with pytest.raises(TypeError, match=method):
            partial("")


def test_every_method_of_an_unreachable_store_fails_with_its_errors() -> None:
    (port,) = free_ports(1)
    for url in (
        f"redis://127.0.0.1:{port}",
        f"redis+cluster://127.0.0.1:{port},127.0.0.1:{port}",
        f"postgresql://127.0.0.1:{port}/x",
    ):
        with closing(locate(url).open()) as store:
            for call in calls(store):
                started = time.monotonic()
                with pytest.raises(store.errors):
                    call()
                assert time.monotonic() - started < 2


def test_every_method_of_a_damaged_file_fails_with_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "messages.db"
    with closing(locate(f"sqlite:///{path}").open()) as store:
        store.put(digest(b"foo"), b"foo")
    path.write_bytes(path.read_bytes()[:4096] + b"damaged " * 2048)
    with closing(SQLiteDriver(str(path))) as store:
        for call in calls(store):
            with pytest.raises((*store.errors, Unusable)):
                call()


def calls(store: Driver) -> list[Callable[[], object]]:
    """One call of each method that asks the store."""
    return [
        lambda: store.put(digest(b"foo"), b"foo"),
        lambda: store.put_many([(digest(b"foo"), b"foo")]),
        lambda: store.get(digest(b"foo")),
        lambda: store.remove(digest(b"foo"), MARK),
        lambda: store.restore(digest(b"foo")),
        lambda: store.removed_of([digest(b"foo")]),
        lambda: list(store.removed()),
        lambda: list(store.items()),
        store.count,
        store.check,
    ]


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "must start with one of memory://, sqlite://, redis://"),
        ("memory", "must start with one of memory://"),
        ("foo://x", "must start with one of memory://"),
        ("MEMORY://", "must start with one of memory://"),
        ("memory:///x", "must be memory:// with nothing after it"),
        ("memory://?limit=1", "must be memory:// with nothing after it"),
        ("sqlite://", "must be sqlite:///file"),
        ("sqlite:///", "must be sqlite:///file"),
        ("sqlite://host/file", "must be sqlite:///file"),
        ("sqlite:///f?sync=1", "takes no parameters but synchronous"),
        ("sqlite:///f?synchronous=off", "must have synchronous one of full, normal"),
        ("sqlite:///f?synchronous=full&synchronous=full", "must have each parameter once"),
        ("sqlite:///a#b", "must have # written as %23"),
        ("sqlite:///:memory:", "must be sqlite:///file"),
        ("sqlite:///a%00b", "must be sqlite:///file"),
        ("redis://user:12?secret@host", "takes no parameters but replicas"),
        ("redis://user:12#secret@host", "must have # written as %23"),
        ("redis://user:[secret]@h", "must have a host that is a name or an IP address"),
        ("redis://user:secret\u2100@h", "must have a host that is a name or an IP address"),
        ("redis+cluster://user:[secret]@h", "must have a host that is a name or an IP address"),
        ("postgresql://u:p@secret/w@h/d", "must have / and @ in a password percent-encoded"),
        ("redis://:secret/w@h:6379", "must have / and @ in a password percent-encoded"),
        ("postgresql://u:[secret]@h/d", "must have a host that is a name or an IP address"),
        ("rediss://h?ca=/missing", "must name a file with ca"),
        ("redis://", "must be redis://[user:password@]host[:port][/database]"),
        ("redis://:secret@h/x", "must be redis://[user:password@]host[:port][/database]"),
        ("redis://:secret@h:99999", "must have a port from 1 to 65535"),
        ("redis://a..b", "must have a host that is a name or an IP address"),
        ("redis://a%00b", "must have a host that is a name or an IP address"),
        (f"redis+cluster://a,{'b' * 64}", "must have a host that is a name or an IP address"),
        ("redis://h?db=1", "takes no parameters but replicas"),
        ("redis://h?replicas=many", "must have replicas one of 0, 1, 2"),
        ("rediss://h?cert=x", "takes no parameters but replicas, ca"),
        ("redis+cluster://", "must be redis+cluster://[user:password@]host"),
        ("redis+cluster://a,,b", "must be redis+cluster://[user:password@]host"),
        ("postgresql://", "must be postgresql://[user[:password]@]host"),
        ("postgresql://u:secret@h", "must be postgresql://[user[:password]@]host"),
        ("postgresql://u:secret@/d", "must be postgresql://[user[:password]@]host"),
        ("postgresql://u:secret@a,,b/d", "must be postgresql://[user[:password]@]host"),
        ("postgresql://u:secret@h:99999/d", "must have a port from 1 to 65535"),
        ("postgresql://u:secret@h:x/d", "must have a port from 1 to 65535"),
        ("postgresql://u:12?secret@h/d", "takes no parameters but table, synchronous, prepare"),
        ("postgresql://u:12#secret@h/d", "must have # written as %23"),
        ("postgresql://u:secret@h/d?password=x", "takes no parameters but table"),
        ("postgresql://u:secret@h/d?table=a%22b", "must have table as [schema.]name"),
        ("postgresql://u:secret@h/d?table=", "must have table as [schema.]name"),
        ("postgresql://u:secret@h/d?synchronous=no", "must have synchronous one of remote_apply"),
        ("postgresql://u:secret@h/d?prepare=no", "must have prepare one of on, off"),
        ("postgresql://u:secret@h/d?prepare=off&synchronous=on", "must leave synchronous out"),
        ("postgresql://u:secret@h/d?sslmode=on", "must have sslmode one of disable"),
        ("postgresql://u:secret@h/d?sslrootcert=/missing", "must name a file with sslrootcert"),
        (
            "postgresql://u:secret@h/d?target_session_attrs=standby",
            "must have target_session_attrs",
        ),
        ("redis+cluster://a/1", "must be redis+cluster://[user:password@]host"),
    ],
)
def test_a_bad_url_is_refused_with_what_is_allowed(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(fault)}") as refused:
        locate(url)
    assert "secret" not in str(refused.value)


def test_urls_are_understood() -> None:
    url = "sqlite:///a%20b.db"
    assert locate(url) == SQLiteLocation(url, "a b.db")
    url = "sqlite:////a/b?synchronous=normal"
    assert locate(url) == SQLiteLocation(url, "/a/b", "normal")


def test_no_location_shows_its_password() -> None:
    location = locate("redis://me:secret@h")
    assert str(location) == "redis://***@h"


def test_memory_at_its_limit_refuses_new_messages_only() -> None:
    store = MemoryDriver(limit=11_000)
    stored = [b"%d" % number for number in range(50)]
    for message in stored:
        store.put(digest(message), message)
    refused = b"x" * 1000
    with pytest.raises(StoreFull):
        store.put(digest(refused), refused)
    assert store.get(digest(refused)) is None
    for message in stored:
        assert store.put(digest(message), message) is REPEATED
        assert store.get(digest(message)) == message


def test_memory_that_has_no_room_for_all_takes_none() -> None:
    store = MemoryDriver(limit=11_000)
    pairs = [(digest(b"%d" % number), b"%d" % number) for number in range(100)]
    with pytest.raises(StoreFull):
        store.put_many(pairs)
    assert store.count() == 0
    assert store.put_many(pairs[:50]).new == 50
    assert store.put_many(pairs[:50]).new == 0


def test_memory_at_its_limit_is_taken_down_from_and_accounts_for_it() -> None:
    store = MemoryDriver(limit=11_000)
    store.put(digest(bytes(10_000)), bytes(10_000))
    for message in (bytes(10_000), b"never stored"):
        store.remove(digest(message), MARK)
        with pytest.raises(TakenDown):
            store.put(digest(message), message)
        assert store.restore(digest(message))
    assert vars(store)["_used"] == 0


def test_memory_accounts_for_many_as_for_each() -> None:
    pairs = [(digest(bytes(number)), bytes(number)) for number in range(100)]
    one, all_at_once = MemoryDriver(limit=1_000_000), MemoryDriver(limit=1_000_000)
    for pair in pairs:
        one.put(*pair)
    all_at_once.put_many(pairs)
    assert vars(one)["_used"] == vars(all_at_once)["_used"]
