"""What every test of the application in this process starts from."""

import signal

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hasher import create_app
from hasher.settings import Settings
from hasher.stores import Driver
from hasher.stores.memory import MemoryDriver

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
