"""From SIGTERM on, readiness fails while everything else is served."""

import signal
import time
from pathlib import Path

from tests.support.load import Load
from tests.support.servers import until
from tests.support.service import Service


def test_readiness_fails_first_and_requests_are_served(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/messages.db"
    env = {"HASHER_STORE": url, "WEB_CONCURRENCY": "2", "HASHER_DRAIN_SECONDS": "3"}
    with Service(tmp_path / "log", **env) as service:  # type: ignore[arg-type]
        assert service.request("GET", "/readyz").status == 200
        service.signal(signal.SIGTERM)
        until(lambda: service.request("GET", "/readyz").status == 503)
        with Load(service, clients=2) as load:
            until(lambda: load.has_sent(50))
            assert {service.request("GET", "/readyz").status for _ in range(10)} == {503}
        assert load.failures == {}
        assert service.process.wait(15) == 0


def test_a_second_sigterm_stops_at_once(tmp_path: Path) -> None:
    with Service(tmp_path / "log", HASHER_DRAIN_SECONDS="600") as service:
        service.signal(signal.SIGTERM)
        until(lambda: service.request("GET", "/readyz").status == 503)
        service.signal(signal.SIGTERM)
        assert service.process.wait(10) == 0


def test_ctrl_c_does_not_drain(tmp_path: Path) -> None:
    with Service(tmp_path / "log", HASHER_DRAIN_SECONDS="600") as service:
        service.signal(signal.SIGINT)
        assert service.process.wait(10) == 0


def test_without_draining_the_stop_is_at_once(tmp_path: Path) -> None:
    with Service(tmp_path / "log", HASHER_DRAIN_SECONDS="0") as service:
        service.signal(signal.SIGTERM)
        assert service.process.wait(10) == 0


def test_a_reload_is_no_draining(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/messages.db"
    with Service(tmp_path / "log", HASHER_STORE=url, WEB_CONCURRENCY="1") as service:
        (old,) = service.workers()
        service.signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while old in service.workers():
            assert service.request("GET", "/readyz").status == 200
            assert time.monotonic() < deadline
        assert service.request("GET", "/readyz").status == 200
