"""The short way through Flask: the same answers, and nothing left out in silence."""

import io
from collections.abc import Callable
from typing import Any

import flask
import pytest
from flask import Flask, after_this_request, g, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Driver
from hasher.stores.memory import MemoryDriver
from hasher.web.application import Application
from hasher.web.responses import json_response
from hasher.web.short_way import LazyRequest, PlainRules

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
Answer = tuple[str, list[tuple[str, str]], bytes]


def answer_of(app: Flask, environ: dict[str, Any]) -> Answer:
    """What `app` answers to a copy of `environ`."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    body = io.BytesIO(environ["wsgi.input"].getvalue())
    copy = {**environ, "wsgi.input": body, "HTTP_X_REQUEST_ID": "same"}

    def start_response(status: str, fields: list[tuple[str, str]], _: object = None) -> Any:
        started.append((status, fields))

    parts = app.wsgi_app(copy, start_response)
    content = b"".join(parts)
    ((status, fields),) = started
    return status, sorted(fields), content


class LongWay(Application):
    """The application without its short way."""

    def complete(self) -> None:
        """Leave the short way closed."""


@pytest.fixture(scope="module")
def both() -> tuple[Flask, Flask]:
    """Two applications with the same messages, of which the second has no short way."""
    short = create_app(Settings(max_message_bytes=1000), store=MemoryDriver(limit=2**24))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hasher.Application", LongWay)
        long = create_app(Settings(max_message_bytes=1000), store=MemoryDriver(limit=2**24))
    for app in (short, long):
        app.test_client().post("/messages", data="foo", content_type="text/plain")
    return short, long


METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "BREW"]
PATHS = [
    "/",
    "",
    "/messages",
    "//messages",
    "/messages/",
    f"/messages/{FOO}",
    f"/messages/{FOO}.txt",
    f"/messages/{FOO}\n",
    f"/messages/{FOO}.txt/",
    f"/messages/{'0' * 64}",
    f"/messages/{FOO[:-1]}",
    f"/messages/{FOO.upper()}",
    "/healthz",
    "/docs",
    "/docs/",
    "/openapi.json",
    "/page/page.css",
    "/page/none",
    "/nowhere",
]
FIELDS = [
    {},
    {"HTTP_IF_NONE_MATCH": f'"{FOO}"'},
    {"HTTP_IF_NONE_MATCH": "*"},
    {"HTTP_SEC_FETCH_SITE": "cross-site"},
    {"CONTENT_TYPE": "application/json"},
    {"CONTENT_TYPE": "text/plain"},
    {"CONTENT_TYPE": "application/x-ndjson"},
    {"CONTENT_TYPE": "text/html"},
    {"HTTP_CONTENT_ENCODING": "gzip", "CONTENT_TYPE": "text/plain"},
]
BODIES = [b"", b"foo", b'{"message":"foo"}', b'{"message":"foo"}\n', b"{", b"\xff", b"x" * 1001]


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from(METHODS),
    path=st.one_of(
        st.sampled_from(PATHS),
        # Metrics count the answers, so no two are alike. Hypothesis takes the word from the code.
        st.text(max_size=20).map(lambda text: "/" + text).filter(lambda path: path != "/metrics"),
    ),
    fields=st.sampled_from(FIELDS),
    body=st.sampled_from(BODIES),
)
def test_both_ways_give_the_same_answers(
    both: tuple[Flask, Flask], method: str, path: str, fields: dict[str, str], body: bytes
) -> None:
    environ = EnvironBuilder(method=method, data=body).get_environ()
    environ |= {"PATH_INFO": path.encode().decode("latin-1"), **fields}
    environ["wsgi.input"] = io.BytesIO(body)
    short, long = both
    assert answer_of(short, environ) == answer_of(long, environ)


def test_messages_and_health_take_the_short_way(app: Flask) -> None:
    rules = PlainRules(app)
    for method, path, route in (
        ("POST", "/messages", "/messages"),
        ("GET", f"/messages/{FOO}", "/messages/<digest>"),
        ("GET", f"/messages/{FOO}.txt", "/messages/<digest>.txt"),
        ("GET", "/healthz", "/healthz"),
    ):
        found = rules.match(method, path)
        assert found
        assert found[0].route == route
    for method, path in (("HEAD", f"/messages/{FOO}"), ("GET", "/page/page.css"), ("GET", "/x")):
        assert rules.match(method, path) is None


def make(view: Callable[[], Any]) -> Flask:
    """An application with one view, at `/`, that takes the short way."""
    app = Application("one_view")
    app.add_url_rule("/", view_func=view)
    app.complete()
    assert app.plain_rules
    assert app.plain_rules.match("GET", "/")
    return app


def test_a_view_has_flask_s_contexts() -> None:
    def view() -> Any:
        g.seen = request.args["x"]
        return json_response([g.seen, request.method, request.blueprint, flask.current_app.name])

    client = make(view).test_client()
    assert client.get("/?x=1").get_json() == ["1", "GET", None, "one_view"]


def test_no_context_outlives_its_request() -> None:
    def view() -> Any:
        assert not hasattr(g, "seen")
        g.seen = True
        return json_response({})

    app = make(view)
    environ = EnvironBuilder().get_environ()
    for _ in range(2):
        assert answer_of(app, environ)[0] == "200 OK"
    assert not flask.has_request_context()
    assert not flask.has_app_context()


def test_a_test_client_s_block_keeps_the_context() -> None:
    with make(lambda: json_response({})).test_client() as client:
        client.get("/?x=1")
        assert request.args["x"] == "1"
    assert not flask.has_request_context()


def test_what_is_no_response_is_made_one() -> None:
    answer = make(lambda: ("made", 202, {"X-A": "b"})).test_client().get("/")
    assert (answer.status_code, answer.text, answer.headers["X-A"]) == (202, "made", "b")


def test_a_response_can_be_changed_after_the_view() -> None:
    def view() -> Any:
        after_this_request(lambda response: response.headers.add("X-A", "b") or response)
        return json_response({})

    assert make(view).test_client().get("/").headers["X-A"] == "b"


def test_an_exception_without_a_handler_is_flask_s_500(caplog: pytest.LogCaptureFixture) -> None:
    answer = make(lambda: 1 / 0).test_client().get("/")
    assert answer.status_code == 500
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "hook",
    ["before_request", "after_request", "teardown_request", "teardown_appcontext"],
)
def test_a_hook_that_would_not_be_called_is_refused(hook: str) -> None:
    app = Application("hooked")
    getattr(app, hook)(lambda *_: None)
    with pytest.raises(RuntimeError, match=hook):
        app.complete()


def test_a_signal_that_would_not_be_sent_is_refused() -> None:
    app = Application("signalled")

    def receiver(*_: object) -> None:
        """Hear of it."""

    connected = flask.signals.request_started.connected_to(receiver)
    with connected, pytest.raises(RuntimeError, match="request_started"):
        app.complete()
    app.complete()


def test_a_hook_is_refused_once_the_application_is_complete(app: Flask) -> None:
    with pytest.raises(AssertionError, match="before_request"):
        app.before_request(lambda: None)


def test_a_request_is_made_when_it_is_asked_for() -> None:
    lazy = LazyRequest(EnvironBuilder(path="/a", query_string="b=c").get_environ())
    assert set(vars(lazy)) == {"environ"}
    assert (lazy.path, lazy.args["b"], lazy.method) == ("/a", "c", "GET")
    with pytest.raises(AttributeError, match="nothing"):
        _ = lazy.nothing


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (flask.globals, "_cv_app"),
        (flask.globals, "_cv_request"),
        (Flask("plain"), "_got_first_request"),
        (Flask("plain").test_request_context(), "_after_request_functions"),
        (Flask("plain").test_request_context(), "_cv_tokens"),
        (Flask("plain").test_request_context(), "_session"),
    ],
)
def test_flask_still_has_the_private_names_that_the_short_way_needs(
    owner: object, name: str
) -> None:
    """If it has not, short_way.py is what has to change."""
    assert hasattr(owner, name)


def test_a_store_s_error_is_answered_the_short_way_too(store: Driver) -> None:
    app = create_app(Settings(), store=store)
    environ = EnvironBuilder(path=f"/messages/{'0' * 64}").get_environ()
    assert answer_of(app, environ)[2] == b'{"error":"Message not found."}\n'
