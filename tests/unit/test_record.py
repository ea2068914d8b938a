"""The record of a request, and what observers are told of it."""

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from hasher import create_app
from hasher.settings import Settings
from hasher.stores.memory import MemoryDriver
from hasher.telemetry.record import Observer, RequestRecord, current, request_id

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


class Notes(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.began_count = 0
        self.records: list[RequestRecord] = []

    def began(self) -> None:
        self.began_count += 1

    def ended(self, record: RequestRecord) -> None:
        self.records.append(record)


@pytest.fixture
def notes() -> Notes:
    """An observer."""
    return Notes()


@pytest.fixture
def app(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The application with that one observer."""
    monkeypatch.setattr("hasher.telemetry.observers", lambda *_: [notes])
    return create_app(Settings(), store=MemoryDriver(limit=10_000))


def test_a_record_says_what_a_request_came_to(app: Flask, notes: Notes) -> None:
    client = app.test_client()
    client.post("/messages", json={"message": "foo"}, headers={"X-Request-ID": "mine"})
    client.get(f"/messages/{FOO}?x=1")
    client.get("/nowhere")
    assert notes.began_count == 3
    stored, read, lost = notes.records
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
    assert [record.sent for record in notes.records[1:]] == [0, 0, 0]


def test_every_answer_has_the_requests_id(app: Flask, notes: Notes) -> None:
    for method, path in (("GET", "/healthz"), ("GET", "/nowhere"), ("PUT", "/messages")):
        answer = app.test_client().open(path, method=method)
        assert answer.headers["X-Request-ID"] == notes.records[-1].id


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


def test_no_record_outlives_its_request(app: Flask, notes: Notes) -> None:
    app.test_client().get("/healthz")
    assert current() is not notes.records[0]
    assert current().id == ""


def test_the_store_is_asked_after_others_were_let_go_on(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    environ = {"leader_worker.before_wait": lambda: said.append("go on")}
    client = app.test_client()
    client.post("/messages", json={"message": "foo"}, environ_overrides=environ)
    assert said == []
    monkeypatch.setattr(MemoryDriver, "blocking", frozenset({"get"}))
    client.post("/messages", json={"message": "foo"}, environ_overrides=environ)
    client.get(f"/messages/{FOO}", environ_overrides=environ)
    assert said == ["go on"]
