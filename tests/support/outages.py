"""What every store that cannot be reached must come to."""

import time

from tests.support.servers import until
from tests.support.service import Service


def status(service: Service, path: str) -> int:
    """The status of a GET."""
    return service.request("GET", path).status


def assert_unavailable(service: Service, known: str) -> None:
    """Fail unless every request that needs the store is refused with 503 within 2 s."""
    for method, path, body in (
        ("POST", "/messages", b"new"),
        ("GET", f"/messages/{known}", None),
        ("GET", f"/messages/{known}.txt", None),
        ("GET", f"/messages/{'0' * 64}", None),
        ("GET", "/readyz", None),
    ):
        started = time.monotonic()
        answer = service.request(method, path, body, {"Content-Type": "text/plain"})
        assert time.monotonic() - started < 2
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json["error"].endswith(".")
    assert status(service, "/healthz") == 200


def assert_recovers(service: Service, known: str) -> None:
    """Fail unless the service is well 2 s after the store is back."""
    service.assert_recovers(within=2)
    until(lambda: status(service, "/readyz") == 200, within=2)
    assert service.get(known).status == 200
    assert "Traceback" not in service.log
