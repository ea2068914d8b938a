"""Any page may read a message; nothing else is for pages of other origins."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Driver
from hasher.stores.tombstone import MARK
from tests.unit.test_errors import Broken

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
ANY_ORIGIN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "ETag, Repr-Digest, X-Request-ID",
}


def shared(headers: dict[str, str]) -> dict[str, str]:
    """Those of the headers that a browser asks whether a page may read an answer."""
    return {name: value for name, value in headers.items() if name.startswith("Access-Control-")}


@pytest.fixture
def stored(client: FlaskClient) -> FlaskClient:
    """A client of a service that has foo."""
    client.post("/messages", json={"message": "foo"})
    return client


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", ["", ".txt"])
def test_any_page_may_read_a_message(stored: FlaskClient, method: str, form: str) -> None:
    path = f"/messages/{FOO}{form}"
    for condition, status in (("", 200), (f'"{FOO}{form}"', 304)):
        answer = stored.open(path, method=method, headers={"If-None-Match": condition})
        assert answer.status_code == status
        assert shared(dict(answer.headers)) == ANY_ORIGIN


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", [FOO, f"{FOO}.txt", "malformed", ""])
def test_any_page_may_know_that_there_is_no_message(
    client: FlaskClient, method: str, name: str
) -> None:
    answer = client.open(f"/messages/{name}", method=method)
    assert answer.status_code == 404
    assert shared(dict(answer.headers)) == ANY_ORIGIN


def test_any_page_may_know_that_a_message_was_taken_down(
    client: FlaskClient, store: Driver
) -> None:
    store.remove(FOO, MARK)
    for method, form in (("GET", ""), ("HEAD", ".txt")):
        answer = client.open(f"/messages/{FOO}{form}", method=method)
        assert answer.status_code == 410
        assert shared(dict(answer.headers)) == ANY_ORIGIN
    answer = client.post("/messages", json={"message": "foo"})
    assert (answer.status_code, shared(dict(answer.headers))) == (410, {})


def test_any_page_may_know_why_a_read_fails(app: Flask, store: Driver) -> None:
    store.put(FOO, b"not foo")
    unreachable = create_app(Settings(), store=Broken(ConnectionError()))
    for service, status in ((app, 500), (unreachable, 503)):
        answer = service.test_client().get(f"/messages/{FOO}")
        assert answer.status_code == status
        assert shared(dict(answer.headers)) == ANY_ORIGIN


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/messages", f"/messages/{FOO}", "/messages/malformed"])
def test_no_page_may_read_what_else_is_answered(
    stored: FlaskClient, method: str, path: str
) -> None:
    for origin in ("http://other.example", "null"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = stored.open(path, method=method, headers=asked)
        assert shared(dict(answer.headers)) == {}


def test_no_page_may_read_what_a_post_is_answered(client: FlaskClient) -> None:
    for message, status in (("foo", 201), ("foo", 200), (1, 400)):
        answer = client.post("/messages", json={"message": message})
        assert answer.status_code == status
        assert shared(dict(answer.headers)) == {}


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/nowhere"]
)
def test_no_page_may_read_what_is_not_a_message(client: FlaskClient, path: str) -> None:
    assert shared(dict(client.get(path).headers)) == {}
