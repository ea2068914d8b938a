"""A server for the tests that only send it requests."""

from collections.abc import Iterator

import pytest

from tests.leader_worker.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with three threads, shared by the tests of a module."""
    with Server(tmp_path_factory.mktemp("server"), "--threads", "3") as running:
        yield running
