"""Health never lies, and costs the store next to nothing."""

import threading

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Unusable
from hasher.stores.memory import MemoryDriver
from hasher.web.health import Readiness
from hasher.web.middleware import BEFORE_WAIT


class Store(MemoryDriver):
    """A store that fails its check as it is told to, and counts the checks."""

    errors = (ConnectionError,)

    def __init__(self) -> None:
        super().__init__(limit=10_000)
        self.checks = 0
        self.failure: Exception | None = None

    def check(self) -> str | None:
        self.checks += 1
        if self.failure:
            raise self.failure
        return None


@pytest.fixture
def store() -> Store:
    """The store that is asked."""
    return Store()


@pytest.fixture
def app(store: Store) -> Flask:
    """The application on that store."""
    return create_app(Settings(), store=store)


def test_alive_without_asking_the_store(client: FlaskClient, store: Store) -> None:
    store.failure = ConnectionError("gone")
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "alive"})
    assert answer.headers["Cache-Control"] == "no-store"
    assert store.checks == 0


def test_ready_while_the_store_is(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json) == (200, {"status": "ready"})
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ConnectionError("gone"), "The store cannot be reached; try again in a moment."),
        (Unusable("it evicts"), "The store must not be used: it evicts."),
    ],
)
def test_not_ready_while_the_store_fails(
    client: FlaskClient, store: Store, failure: Exception, reason: str
) -> None:
    store.failure = failure
    for _ in range(3):
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json) == (503, {"error": reason})
        assert answer.headers["Cache-Control"] == "no-store"


def test_not_ready_before_the_stop(app: Flask, client: FlaskClient, store: Store) -> None:
    app.extensions["readiness"].draining = lambda: True
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "about to stop" in answer.get_json()["error"]
    assert client.get("/healthz").status_code == 200
    assert store.checks == 0


def test_the_store_is_asked_once_a_second_however_many_ask(
    client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("hasher.web.health.monotonic", lambda: now)
    for _ in range(100):
        client.get("/readyz")
    assert store.checks == 1
    now = 1000.99
    store.failure = ConnectionError("gone")
    assert client.get("/readyz").status_code == 200
    now = 1001.0
    assert [client.get("/readyz").status_code for _ in range(10)] == [503] * 10
    assert store.checks == 2
    now, store.failure = 1002.0, None
    assert client.get("/readyz").status_code == 200


def test_threads_that_ask_at_once_ask_once() -> None:
    asked = []
    barrier = threading.Barrier(16)
    readiness = Readiness(lambda: asked.append(1))

    def ask() -> None:
        barrier.wait()
        readiness.require()

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [1]


def test_a_probe_that_waits_for_another_lets_other_requests_go_on(
    app: Flask, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, going_on = threading.Event(), threading.Event()

    def check() -> None:
        asking.set()
        if not going_on.wait(5):
            raise ConnectionError("nobody went on")

    monkeypatch.setattr(store, "check", check)
    first = threading.Thread(target=lambda: app.test_client().get("/readyz"))
    first.start()
    assert asking.wait(5)
    second = app.test_client().get("/readyz", environ_overrides={BEFORE_WAIT: going_on.set})
    first.join()
    assert second.status_code == 200
