"""Programs as processes: started, awaited, and ended with their own child processes."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

PATIENCE = 30.0  # seconds after which a condition counts as not met
MOMENT = 0.01  # seconds between two checks of a condition
ROW = 5  # ports side by side, as many as `make fleet` takes


class NotInTimeError(Exception):
    """What was waited for did not happen."""


def until(
    condition: Callable[[], Any],
    within: float = PATIENCE,
    fault: str = "It did not happen.",
) -> Any:
    """Return what `condition` returns, as soon as it is true; NotInTimeError if it is late."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise NotInTimeError(fault)
        time.sleep(MOMENT)
    return value


def rows() -> Iterator[int]:
    """Yield the first ports of rows that no other process of a test run gets, each once.

    They are below the ports that the system gives to clients.
    """
    part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    firsts = range(10_000 + part * 5000, 15_000 + part * 5000, ROW)
    while True:
        yield from random.SystemRandom().sample(firsts, len(firsts))


ROWS = rows()


def free_ports(count: int) -> list[int]:
    """Return ports, each once, on which no program listens, nor on the next four of each."""
    unused = (first for first in ROWS if not any(map(in_use, range(first, first + ROW))))
    return list(islice(unused, count))


def in_use(port: int) -> bool:
    """Return whether the port cannot be listened on."""
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return True
    return False


def listens(port: int) -> bool:
    """Return whether a program takes connections on this port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A program in a session of its own, which Ctrl-C does not reach, and whose output is in `log`.

    `options` are further options of subprocess.Popen.
    """

    stop_signal = signal.SIGTERM
    process: subprocess.Popen[bytes]

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.command, self.log_file, self.cwd, self.env = command, log, cwd, env
        self._options = options

    def start(self) -> None:
        """Start it, and append its output to the log."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._options,
            )

    def runs(self) -> bool:
        """Return whether its first process lives."""
        return self.process.poll() is None

    def terminate(self, grace: float = PATIENCE) -> None:
        """End it in its own way, or by force if that takes longer than `grace` seconds."""
        if self.runs():
            self.process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        self.kill()

    def kill(self) -> None:
        """Kill all its processes: workers of a killed nginx master live on, and keep the port."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
