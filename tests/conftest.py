"""What every test of the application in this process starts from."""

import signal
from collections.abc import Iterable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Driver
from hasher.stores.memory import MemoryDriver
from hasher.telemetry.record import Environ
from hasher.web.middleware import CLOSE

# A shell makes what it starts in the background ignore Ctrl-C, and so what that starts in turn.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def store() -> Driver:
    """An empty store with room for every test."""
    return MemoryDriver(limit=2**24)


@pytest.fixture
def app(store: Driver) -> Flask:
    """The application on that store, with a small limit on bodies."""
    return create_app(Settings(max_message_bytes=1000), store=store)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client that speaks WSGI to it."""
    return app.test_client()


@pytest.fixture
def closes(app: Flask, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each answer asked the worker, before it started, to close the connection."""
    asked: list[bool] = []
    answer = app.wsgi_app

    def watched(environ: Environ, start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            assert "Connection" not in dict(headers)  # PEP 3333 forbids it
            asked.append(environ.get(CLOSE, False))
            return start_response(status, headers, exc_info)

        return answer(environ, start)

    monkeypatch.setattr(app, "wsgi_app", watched)
    return asked


@pytest.fixture
def roomy(store: Driver) -> FlaskClient:
    """A client with the default limit, which JSON's escapes carry no short text over."""
    return create_app(Settings(), store=store).test_client()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    for report in reports:
        if getattr(report, "when", None) == "call":
            for name, value in report.user_properties:
                terminalreporter.write_line(f"{name}: {value}")
