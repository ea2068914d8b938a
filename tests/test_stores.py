"""The contract in the docstring of Store, held by every store."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from hasher.digest import digest
from hasher.stores import Store, StoreFull, open_store, store_class
from hasher.stores.memory import MemoryStore

AMPLE = 2**30
OPENERS: dict[str, Callable[[], Store]] = {
    "memory": lambda: open_store("memory://", memory_limit=AMPLE),
}


@pytest.fixture(params=OPENERS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each store in turn, empty."""
    opened = OPENERS[request.param]()
    yield opened
    opened.close()


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Threads that are switched as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


MESSAGES = [b"", b"\0", b"a", "é😀\U0010ffff".encode(), b"\r\n " * 3, bytes(10**6)]


@pytest.mark.parametrize("message", MESSAGES)
def test_what_was_put_is_got_unchanged(store: Store, message: bytes) -> None:
    name = digest(message)
    assert store.get(name) is None
    assert store.put(name, message) is True
    assert store.get(name) == message


def test_a_repeated_put_says_so_and_changes_nothing(store: Store) -> None:
    name = digest(b"foo")
    assert [store.put(name, b"foo") for _ in range(3)] == [True, False, False]
    assert store.get(name) == b"foo"
    assert store.count() == 1


def test_messages_are_counted(store: Store) -> None:
    for message in MESSAGES:
        store.put(digest(message), message)
    assert store.count() == len(MESSAGES)


@pytest.mark.usefixtures("impatient_threads")
def test_one_put_of_many_at_once_is_the_new_one(store: Store) -> None:
    threads, rounds = 16, 100
    barrier = Barrier(threads)

    def race(_: int) -> list[bool]:
        news = []
        for number in range(rounds):
            message = b"%d" % number
            barrier.wait()
            news.append(store.put(digest(message), message))
        return news

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(race, range(threads)))
    assert [sum(news) for news in zip(*results, strict=True)] == [1] * rounds
    assert store.count() == rounds


@pytest.mark.usefixtures("impatient_threads")
def test_no_update_is_lost_among_overlapping_puts_and_gets(store: Store) -> None:
    threads, calls, distinct = 16, 10_000, 500
    barrier = Barrier(threads)

    def work(thread: int) -> int:
        barrier.wait()
        news = 0
        for call in range(calls // threads):
            message = b"%d" % ((call * 7 + thread * 3) % distinct)
            news += store.put(digest(message), message)
            assert store.get(digest(message)) == message
        return news

    with ThreadPoolExecutor(threads) as pool:
        news = sum(pool.map(work, range(threads)))
    assert news == store.count() == distinct


def test_a_store_without_a_method_cannot_be_made() -> None:
    class Partial(MemoryStore):
        get = Store.get

    with pytest.raises(TypeError, match="get"):
        Partial(AMPLE)


@pytest.mark.parametrize(
    "url", ["", "memory", "memory:", "memory:///x", "memory://?limit=1", "MEMORY://", "foo://x"]
)
def test_an_unknown_url_is_refused_with_what_is_known(url: str) -> None:
    for refuse in (store_class, lambda url: open_store(url, memory_limit=AMPLE)):
        with pytest.raises(ValueError, match=r"^must be memory://$"):
            refuse(url)


def test_memory_at_its_limit_refuses_new_messages_only() -> None:
    store = MemoryStore(limit=10_000)
    stored = [b"%d" % number for number in range(50)]
    for message in stored:
        store.put(digest(message), message)
    refused = b"x" * 1000
    with pytest.raises(StoreFull):
        store.put(digest(refused), refused)
    assert store.get(digest(refused)) is None
    for message in stored:
        assert store.put(digest(message), message) is False
        assert store.get(digest(message)) == message


def test_memory_counts_its_messages_where_another_process_can_see() -> None:
    store = MemoryStore(AMPLE)
    store.put(digest(b"a"), b"a")
    tally = [0]
    store.tally_in(tally)
    assert tally == [1]
    for message in (b"a", b"b", b"c"):
        store.put(digest(message), message)
    assert tally == [3] == [store.count()]
