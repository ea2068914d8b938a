"""What observers are told of requests and of the store."""

from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from hasher import create_app
from hasher.digest import digest
from hasher.observe import LARGE, Exchange, Observer, observed_store, request_id
from hasher.settings import Settings
from hasher.stores.memory import MemoryStore

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


class Notes(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.began_count = 0
        self.exchanges: list[Exchange] = []
        self.operations: list[tuple[str, str | None]] = []
        self.new = self.repeated = 0

    def began(self) -> None:
        self.began_count += 1

    def ended(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def operated(self, operation: str, duration: float, error: Exception | None) -> None:
        assert duration >= 0
        self.operations.append((operation, type(error).__name__ if error else None))

    def stored(self, new: int, repeated: int) -> None:
        self.new += new
        self.repeated += repeated


@pytest.fixture
def notes() -> Notes:
    """An observer."""
    return Notes()


@pytest.fixture
def app(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The application with that one observer."""
    monkeypatch.setattr("hasher.observers_of", lambda *_: [notes])
    return create_app(Settings(), store=MemoryStore(limit=10_000))


def test_an_exchange_says_what_a_request_came_to(app: Flask, notes: Notes) -> None:
    client = app.test_client()
    client.post("/messages", json={"message": "foo"}, headers={"X-Request-ID": "mine"})
    client.get(f"/messages/{FOO}?x=1")
    client.get("/nowhere")
    assert notes.began_count == 3
    stored, read, lost = notes.exchanges
    assert (stored.id, stored.method, stored.path) == ("mine", "POST", "/messages")
    assert (stored.route, stored.status, stored.received) == ("/messages", 201, 18)
    assert stored.sent == 78
    assert 0 < stored.store_time < stored.duration
    assert (read.path, read.route) == (f"/messages/{FOO}", "/messages/<digest>")
    assert (lost.route, lost.status, lost.store_time, lost.fault) == (None, 404, 0, None)


def test_what_has_no_body_has_sent_none(app: Flask, notes: Notes) -> None:
    client = app.test_client()
    client.post("/messages", json={"message": "foo"})
    client.head(f"/messages/{FOO}")
    client.get(f"/messages/{FOO}", headers={"If-None-Match": f'"{FOO}"'})
    client.options("/messages")
    assert [exchange.sent for exchange in notes.exchanges[1:]] == [0, 0, 0]


def test_every_answer_has_the_requests_id(app: Flask, notes: Notes) -> None:
    for method, path in (("GET", "/healthz"), ("GET", "/nowhere"), ("PUT", "/messages")):
        answer = app.test_client().open(path, method=method)
        assert answer.headers["X-Request-ID"] == notes.exchanges[-1].id


@pytest.mark.parametrize("given", ["a", "A-1_b:c.d", "x" * 64])
def test_a_harmless_id_is_kept(given: str) -> None:
    assert request_id(given) == given


@given(st.text())
def test_no_other_id_gets_into_a_log(text: str) -> None:
    name = request_id(text)
    assert name.isascii()
    assert name.isprintable()
    assert 0 < len(name) <= 64


def test_ids_differ() -> None:
    assert len({request_id() for _ in range(100)}) == 100


def test_each_operation_of_the_store_is_told_once(notes: Notes) -> None:
    store = observed_store(MemoryStore(limit=10_000), [notes])
    assert store.put(FOO, b"foo")
    assert not store.put(FOO, b"foo")
    assert store.put_many([(FOO, b"foo"), ("0" * 64, b"")]) == 1
    assert store.get(FOO) == b"foo"
    store.check()
    assert [name for name, _ in notes.operations] == ["put", "put", "put_many", "get", "check"]
    assert (notes.new, notes.repeated) == (2, 2)


def test_a_failed_operation_is_told_and_raised(notes: Notes) -> None:
    client = create_app(
        Settings(), store=observed_store(MemoryStore(limit=0), [notes])
    ).test_client()
    assert client.post("/messages", json={"message": "foo"}).status_code == 507
    assert notes.operations == [("put", "StoreFull")]
    assert (notes.new, notes.repeated) == (0, 0)


class Waiting(MemoryStore):
    """A store that waits for a disk when it writes."""

    waits = frozenset({"put"})


def test_others_are_let_go_on_before_what_takes_long() -> None:
    store: Any = observed_store(Waiting(limit=1_000_000), [])
    said: list[str] = []
    store.call_before_delays(lambda: said.append("go on"))
    store.check()
    store.get(FOO)
    assert said == []
    store.put(FOO, b"foo")
    assert len(said) == 1
    assert store.get(FOO) == b"foo"
    assert len(said) == 1
    large = bytes(LARGE + 1)
    store.put(digest(large), large)
    assert store.get(digest(large)) == large
    assert len(said) == 3


def test_what_a_store_has_beyond_the_contract_is_still_there() -> None:
    tally = [0]
    store = observed_store(MemoryStore(limit=10_000), [])
    store.tally_in(tally)  # type: ignore[attr-defined]
    store.put(FOO, b"foo")
    assert tally == [1]
