"""hasher under a server that does what PEP 3333 requires, and no more: wsgiref."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hasher.stores import Driver
from hasher.stores.messages import digest_of

CHUNKED = b"3\r\nfoo\r\n0\r\n\r\n"
NO_LENGTH = {"error": "Send the body with a Content-Length: this server does not decode chunks."}
KINDS = ["text/plain", "application/json", "application/x-ndjson"]
Answer = tuple[int, dict[str, str], Any]


class Silent(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - wsgiref's name
        """Be silent."""


@pytest.fixture
def port(app: Flask) -> Iterator[int]:
    """The port of a wsgiref server, which raises whatever breaks PEP 3333."""
    with make_server("127.0.0.1", 0, validator(app), handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def exchange(port: int, method: str, path: str, *fields: str, body: bytes = b"") -> Answer:
    """The status, the header fields and the JSON of the answer to a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: hasher", *fields, "", ""]
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall("\r\n".join(lines).encode() + body)
        with closing(client.makefile("rb")) as stream:
            head, _, content = stream.read().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), json.loads(content)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
def test_chunks_that_are_not_decoded_are_411(
    port: int, store: Driver, kind: str, coding: str
) -> None:
    fields = f"Content-Type: {kind}", f"Transfer-Encoding: {coding}"
    status, _, content = exchange(port, "POST", "/messages", *fields, body=CHUNKED)
    assert (status, content) == (411, NO_LENGTH)
    assert list(store.items()) == []


def test_chunks_with_a_length_are_411_too(port: int, store: Driver) -> None:
    fields = "Content-Type: text/plain", "Transfer-Encoding: chunked", "Content-Length: 13"
    status, _, content = exchange(port, "POST", "/messages", *fields, body=CHUNKED)
    assert (status, content) == (411, NO_LENGTH)
    assert list(store.items()) == []


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity", ""])
def test_another_coding_is_not_taken_for_an_empty_body(
    port: int, store: Driver, coding: str
) -> None:
    fields = "Content-Type: text/plain", f"Transfer-Encoding: {coding}"
    assert exchange(port, "POST", "/messages", *fields, body=CHUNKED)[0] == 501
    assert list(store.items()) == []


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("DELETE", "/messages", ["Content-Length: 3"], 405),
        ("POST", "/healthz", ["Content-Length: 3"], 405),
        ("POST", "/messages", ["Content-Type: text/plain", "Content-Length: 1001"], 413),
        ("POST", "/messages", ["Content-Type: x/y", "Content-Length: 3"], 415),
        ("POST", "/nowhere", ["Content-Length: 3"], 404),
    ],
)
def test_an_answer_before_the_body_was_read_has_its_own_status(
    port: int, method: str, path: str, fields: list[str], status: int
) -> None:
    answered, headers, content = exchange(port, method, path, *fields, body=b"foo")
    assert (answered, list(content)) == (status, ["error"])
    assert ("Allow" in headers) == (status == 405)
    assert "Connection" not in headers


def test_a_body_with_a_length_is_stored(port: int, store: Driver) -> None:
    fields = "Content-Type: text/plain", "Content-Length: 3"
    status, _, content = exchange(port, "POST", "/messages", *fields, body=b"foo")
    assert (status, content) == (201, {"digest": digest_of(b"foo")})
    assert list(store.items()) == [(digest_of(b"foo"), b"foo")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_short_way_and_flask_s_refuse_chunks_alike(client: FlaskClient, kind: str) -> None:
    for path in ("/messages", "/messages?"):
        answer = client.post(
            path,
            input_stream=BytesIO(CHUNKED),
            content_type=kind,
            headers={"Transfer-Encoding": "chunked"},
        )
        assert (answer.status_code, answer.json) == (411, NO_LENGTH)
        assert answer.headers["Cache-Control"] == "no-store"
