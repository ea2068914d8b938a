"""`make fleet`: one command starts everything, what dies is started again, Ctrl-C stops it all."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.front import THROUGH_NGINX
from tests.support.servers import free_ports, in_use, program, until
from tests.support.service import ROOT, Service, is_running, plain_environ

FOO = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


class MadeFleet(Service):
    """deploy/fleet.py as make starts it, with ports and a folder of its own."""

    answers = THROUGH_NGINX

    def __init__(self, folder: Path) -> None:
        self.port, self.log_file = free_ports(1)[0], folder / "log"
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.fleet", folder / "files"],
                cwd=ROOT,
                env={**plain_environ(), "PORT": str(self.port)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def is_listening(self) -> bool:
        """Whether it says that it is ready."""
        assert self.process.poll() is None, self.log
        return "Ctrl-C stops everything" in self.log

    def programs(self) -> dict[str, int]:
        """The process ids of what it started first, by name."""
        rows = re.findall(r"^(\S+) +127\.0\.0\.1:\d+ +(\d+)$", self.log, re.MULTILINE)
        return {name: int(pid) for name, pid in rows}

    def kill(self) -> None:
        """Stop it as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[MadeFleet]:
    """A fleet that runs."""
    program("redis-server", "redis-server")
    program("nginx", "nginx")
    with MadeFleet(tmp_path) as running:
        yield running


def test_one_command_serves_the_transcript_through_the_front(fleet: MadeFleet) -> None:
    assert fleet.get(FOO).body == b'{"error":"Message not found."}\n'
    assert fleet.post("foo").json == {"digest": FOO}
    assert [fleet.get(FOO).json for _ in range(4)] == [{"message": "foo"}] * 4
    assert fleet.get(FOO).headers["X-Cache"] == "HIT"
    assert len(fleet.programs()) == 5
    until(lambda: f"http://127.0.0.1:{fleet.port}" in fleet.log)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_program_stops_however_impatient_one_is(fleet: MadeFleet, number: int) -> None:
    """On Ctrl-C, a kill, and the end of the terminal; once more on the way does no harm."""
    started = fleet.programs().values()
    fleet.process.send_signal(number)
    until(lambda: "Stopping." in fleet.log)
    fleet.process.send_signal(number)
    assert fleet.process.wait(60) == 0
    assert not any(is_running(pid) for pid in started)
    assert not any(in_use(port) for port in range(fleet.port, fleet.port + 5))
    assert "Traceback" not in fleet.log


def test_what_dies_is_started_again_and_nothing_is_lost(fleet: MadeFleet) -> None:
    fleet.post("foo")
    for name, pid in fleet.programs().items():
        os.kill(pid, signal.SIGKILL)
        until(lambda name=name: f"{name} has ended: it is started again." in fleet.log)  # type: ignore[misc]
        until(fleet.is_answering)
        fleet.assert_recovers(within=20)
    assert fleet.get(FOO).json == {"message": "foo"}
    fleet.kill()
    assert not any(in_use(port) for port in range(fleet.port, fleet.port + 5))


def test_a_port_in_use_is_told_in_one_line(fleet: MadeFleet) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "deploy.fleet", fleet.log_file.parent / "second"],
        cwd=ROOT,
        env={**plain_environ(), "PORT": str(fleet.port)},
        capture_output=True,
        text=True,
        check=False,
    )
    line = f"Port {fleet.port} is in use: stop what listens there, or set PORT.\n"
    assert (second.returncode, second.stderr) == (1, line)
