"""Whatever is raised leaves as one JSON shape."""

from typing import ClassVar

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Driver, Outcome
from hasher.stores.memory import MemoryDriver

NAME = "0" * 64


class Broken(MemoryDriver):
    """A store that fails at every call, as it was told to."""

    errors: ClassVar[tuple[type[Exception], ...]] = (ConnectionError,)

    def __init__(self, failure: Exception) -> None:
        super().__init__(limit=0)
        self.failure = failure

    def get(self, digest: str) -> bytes | None:
        raise self.failure

    def put(self, digest: str, message: bytes) -> Outcome:
        raise self.failure


def client_of(store: MemoryDriver) -> FlaskClient:
    return create_app(Settings(), store=store).test_client()


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/index.html", 404, None),
        ("GET", "/page/", 404, None),
        ("GET", "/page/templates/index.html", 404, None),
        ("GET", "/docs/", 404, None),
        ("POST", "/", 405, "GET, HEAD, OPTIONS"),
        ("GET", "/messages/", 404, None),
        ("GET", "/static/x", 404, None),
        ("GET", "/messages", 405, "OPTIONS, POST"),
        ("PUT", "/messages", 405, "OPTIONS, POST"),
        ("TRACE", "/messages", 405, "OPTIONS, POST"),
        ("BREW", "/messages", 405, "OPTIONS, POST"),
        ("POST", f"/messages/{NAME}", 405, "GET, HEAD, OPTIONS"),
        ("DELETE", f"/messages/{NAME}.txt", 405, "GET, HEAD, OPTIONS"),
    ],
)
def test_every_error_is_json_and_not_for_caches(
    client: FlaskClient, method: str, path: str, status: int, allowed: str | None
) -> None:
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.headers.get("Allow")) == (status, allowed)
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.json is not None
    assert list(answer.json) == ["error"]
    assert answer.json["error"].endswith(".")
    assert answer.data.endswith(b"}\n")


def test_options_says_what_is_allowed(client: FlaskClient) -> None:
    answer = client.options("/messages")
    assert (answer.status_code, answer.data) == (204, b"")
    assert set(answer.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"]))
def test_no_path_is_a_server_error(client: FlaskClient, path: str, method: str) -> None:
    for prefix in ("/", "/messages/", ""):
        raw = {"PATH_INFO": (prefix + path).encode().decode("latin-1")}
        assert client.open(method=method, environ_overrides=raw).status_code < 500


HEADERS = [
    "ACCEPT",
    "AUTHORIZATION",
    "CONTENT_ENCODING",
    "COOKIE",
    "HOST",
    "IF_NONE_MATCH",
    "ORIGIN",
    "SEC_FETCH_SITE",
    "TRANSFER_ENCODING",
    "X_REQUEST_ID",
]


@pytest.mark.parametrize("tokens", ["", "token"])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([*HEADERS, "CONTENT_TYPE"]),
    st.sampled_from(["", "Basic ", "Bearer ", "text/plain; charset=", 'a/b; x*="', "W/", '"']),
    st.text(st.characters(min_codepoint=128, max_codepoint=255), min_size=1),
)
def test_no_bytes_of_a_header_are_a_server_error(
    store: Driver, tokens: str, name: str, before: str, value: str
) -> None:
    client = create_app(Settings(write_tokens=tokens), store=store).test_client()
    header = name if name == "CONTENT_TYPE" else f"HTTP_{name}"
    environ = {header: before + value}
    posted = client.post("/messages", json={"message": "foo"}, environ_overrides=environ)
    assert posted.status_code < 500 or (name, posted.status_code) == ("TRANSFER_ENCODING", 501)
    for path in (f"/messages/{NAME}", "/", "/readyz"):
        assert client.get(path, environ_overrides=environ).status_code < 500


def test_a_full_store_refuses_new_messages_and_keeps_the_old() -> None:
    client = client_of(MemoryDriver(limit=1000))
    small = client.post("/messages", json={"message": "a"})
    full = client.post("/messages", json={"message": "b" * 1000})
    assert (small.status_code, full.status_code) == (201, 507)
    assert full.json == {"error": "The store is full: messages stored already can still be read."}
    assert client.post("/messages", json={"message": "a"}).status_code == 200
    assert client.get(small.headers["Location"]).json == {"message": "a"}


def test_a_store_that_cannot_be_reached_is_503_and_never_404() -> None:
    client = client_of(Broken(ConnectionRefusedError("refused")))
    for answer in (
        client.get(f"/messages/{NAME}"),
        client.get(f"/messages/{NAME}.txt"),
        client.post("/messages", json={"message": "foo"}),
    ):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.json == {"error": "The store cannot be reached; try again in a moment."}


def test_a_crash_is_a_sentence_for_the_client_and_a_traceback_for_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = client_of(Broken(ZeroDivisionError("secret"))).get(f"/messages/{NAME}")
    assert answer.status_code == 500
    assert answer.json == {"error": "The service failed to answer; its log says why."}
    assert "ZeroDivisionError: secret" in caplog.text


def test_a_host_that_is_no_host_is_an_input_error(app: Flask) -> None:
    for host in ("a b", "[", "\x80", "a" * 300, ""):
        assert app.test_client().get("/messages/x", headers={"Host": host}).status_code < 500
