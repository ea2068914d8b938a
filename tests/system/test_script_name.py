"""hasher under a path, by gunicorn's SCRIPT_NAME."""

from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.support.service import Answer, Service


class UnderPath(Service):
    """A service whose addresses all begin with /x."""

    def is_answering(self) -> bool:
        """Whether a worker answers."""
        try:
            return ask(self, "GET", "/x/healthz").status == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def under_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for this module's tests."""
    with UnderPath(tmp_path_factory.mktemp("service") / "log", SCRIPT_NAME="/x") as service:
        yield service


def ask(service: Service, method: str, path: str, body: bytes | None = None) -> Answer:
    """The answer to a request, whose address the description does not have."""
    connection = HTTPConnection("127.0.0.1", service.port, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": "text/plain"})
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def test_a_message_under_the_path_is_stored_and_read(under_path: Service) -> None:
    digest = ask(under_path, "POST", "/x/messages", b"foo").json["digest"]
    assert ask(under_path, "GET", f"/x/messages/{digest}").json == {"message": "foo"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/"),
        ("POST", "/messages"),
        ("GET", "/xhealthz"),
        ("GET", "/%78/healthz"),
        ("GET", "/X/healthz"),
    ],
)
def test_an_address_outside_of_the_path_is_404(under_path: Service, method: str, path: str) -> None:
    answer = ask(under_path, method, path, b"foo" if method == "POST" else None)
    assert (answer.status, list(answer.json)) == (404, ["error"])
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Traceback" not in under_path.log
