"""One line a request, with nothing in it that is not to be told."""

import json
import os
import sys
from contextlib import suppress

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from hasher import create_app
from hasher.settings import Settings
from hasher.stores.memory import MemoryDriver
from hasher.telemetry.access_log import harmless

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


def client(form: str) -> FlaskClient:
    """A client of a service with a write token that logs so."""
    settings = Settings(access_log=form, write_tokens="secret-token")  # type: ignore[arg-type]
    return create_app(settings, store=MemoryDriver(limit=1000)).test_client()


def store_foo(client: FlaskClient) -> None:
    headers = {"Authorization": "Bearer secret-token", "X-Request-ID": "mine"}
    client.post("/messages?secret=query", json={"message": "secret text"}, headers=headers)


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    store_foo(client("json"))
    line = json.loads(capsys.readouterr().out)
    assert line.pop("time").endswith("+00:00")
    assert 0 < line.pop("store_time") < line.pop("duration") < 1
    assert line == {
        "id": "mine",
        "method": "POST",
        "path": "/messages",
        "client": "127.0.0.1",
        "route": "/messages",
        "status": 201,
        "received": 26,
        "sent": 78,
        "fault": None,
    }


def test_text_says_the_same_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    store_foo(client("text"))
    line = capsys.readouterr().out
    assert " 127.0.0.1 POST /messages 201, 26 B in, 78 B out, " in line
    assert line.endswith(" ms), request mine\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_line_tells_a_secret(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    store_foo(client(form))
    assert "secret" not in capsys.readouterr().out


def test_a_fault_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = client("text")
    headers = {"Authorization": "Bearer secret-token"}
    text.post("/messages", data="x" * 1000, content_type="text/plain", headers=headers)
    assert capsys.readouterr().out.endswith(", full\n")


def test_off_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    store_foo(client("off"))
    assert capsys.readouterr().out == ""


@given(st.binary().map(lambda path: path.decode("latin-1")))
def test_no_path_ends_a_line_or_is_long(path: str) -> None:
    told = harmless(path)
    assert told.isascii()
    assert told.isprintable()
    assert " " not in told
    assert len(told) <= 600


def test_a_messages_path_is_told_as_it_is() -> None:
    assert harmless(f"/messages/{FOO}.txt") == f"/messages/{FOO}.txt"


def test_a_log_whose_reader_has_gone_says_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        settings = Settings(access_log="json")
        client = create_app(settings, store=MemoryDriver(limit=1000)).test_client()
        assert client.get("/healthz").status_code == 200
        with suppress(BrokenPipeError):
            gone.close()
    assert capsys.readouterr().err == ""
