"""A running service for the tests that only send it requests."""

from collections.abc import Iterator

import pytest

from tests.support.service import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the default settings, shared by the tests of a module."""
    with Service(tmp_path_factory.mktemp("service") / "log") as running:
        yield running
