"""A service whose store has a name, and a name server that does not answer."""

import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests.support.load import Load
from tests.support.postgresql import PostgreSQLServer
from tests.support.servers import RedisCluster, RedisServer, program, skip, until
from tests.support.service import BIN, PROCFILE, Service

NAME = "store.example"
NUMBERS = random.SystemRandom()
ADDRESS, TYPE_A = b"\x7f\0\0\1", b"\0\1"
# Gives the program that follows a resolv.conf of its own.
WITH_RESOLV_CONF = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


class NameServer:
    """A name server, silent at first, that knows every name as 127.0.0.1 (RFC 1035)."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        host = f"127.{NUMBERS.randint(1, 254)}.{NUMBERS.randint(1, 254)}.1"  # that nobody has
        try:
            self.socket.bind((host, 53))
        except OSError as error:
            skip(f"A name server takes root, and port 53 for itself: {error.strerror}.")
        self.host = host
        self.asked = 0
        self.answers = False
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self.thread.join()
        self.socket.close()

    def serve(self) -> None:
        """Take every question, and answer if it is to."""
        while True:
            question, client = self.socket.recvfrom(512)
            if not question:
                return
            self.asked += 1
            if self.answers:
                self.socket.sendto(answer_to(question), client)


def answer_to(question: bytes) -> bytes:
    """The address for a question about A, and none for any other."""
    end = question.index(b"\0", 12) + 5
    known = question[end - 4 : end - 2] == TYPE_A
    counts = b"\0\1" + (b"\0\1" if known else b"\0\0") + bytes(4)
    record = b"\xc0\x0c" + TYPE_A + b"\0\1" + bytes(4) + b"\0\4" + ADDRESS
    return question[:2] + b"\x81\x80" + counts + question[12:end] + (record if known else b"")


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    """A name server of this test's own."""
    with NameServer() as running:
        yield running


@pytest.fixture(params=["redis", "redis+cluster", "postgresql"])
def service(
    request: pytest.FixtureRequest, tmp_path: Path, name_server: NameServer
) -> Iterator[Service]:
    """A service on a store that is found by its name alone."""
    unshare = program("unshare", "util-linux")
    if subprocess.run([unshare, "--mount", "true"], check=False).returncode:
        skip("The service needs a resolv.conf of its own, which takes root (CAP_SYS_ADMIN).")
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver {name_server.host}\n")
    shell = [unshare, "--mount", "sh", "-c", WITH_RESOLV_CONF, str(resolv_conf)]
    command = [*shell, str(BIN / PROCFILE[0]), *PROCFILE[1:]]
    with store(request.param, tmp_path) as running:
        url = running.url.replace("127.0.0.1", NAME)
        with Service(tmp_path / "log", command=command, HASHER_STORE=url) as started:
            yield started


def store(scheme: str, folder: Path) -> RedisServer | RedisCluster | PostgreSQLServer:
    """A server, or a cluster."""
    if scheme == "postgresql":
        return PostgreSQLServer()
    return RedisServer(folder / "store") if scheme == "redis" else RedisCluster(folder / "store")


def test_a_silent_name_server_holds_up_nobody(
    service: Service, name_server: NameServer, record_property: Callable[[str, object], None]
) -> None:
    assert "it cannot be reached yet" in service.log
    with Load(service, clients=32) as load:
        waits = [seconds_to_healthz(service) for _ in range(20)]
        until(lambda: load.outcomes[503] >= 500)
    record_property("a silent name server", f"{load.said()}, /healthz {max(waits):.2f} s")
    assert name_server.asked
    assert set(load.outcomes) == {503}
    assert max(load.slowest, *waits) < 2
    assert service.request("GET", "/readyz").status == 503
    name_server.answers = True
    # libpq asks the system's resolver, which asks again after 5 s.
    within = 12 if "postgresql" in service.log else 3
    until(lambda: service.request("GET", "/readyz").status == 200, within=within)
    service.assert_recovers()
    assert "Traceback" not in service.log


def seconds_to_healthz(service: Service) -> float:
    """How long `/healthz` takes to say that the service lives."""
    started = time.monotonic()
    assert service.request("GET", "/healthz").status == 200
    return time.monotonic() - started
