"""Servers as processes: started on a core, waited for, weighed, and stopped."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

PATIENCE = 30.0  # seconds until a server that does not answer, or does not end, is given up
OURS = ("HASHER_", "GUNICORN_", "WEB_CONCURRENCY", "PORT", "PROMETHEUS_", "UVICORN_")
UNKNOWN = "/messages/" + "0" * 64


class Failed(Exception):
    """A server did not do what was asked of it, and so has no figure."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as `condition` holds; Failed where it does not in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what} in {PATIENCE:.0f} s")
        time.sleep(0.005)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process without what would set up a server, and with `changes`."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**plain, **changes}


class Server:
    """A process, and all that it starts; it ends with the `with` block.

    `core` is a list of the cores that it may use, for taskset, or None for those of this process.
    `port` is where it answers HTTP; the block begins when it has answered a request for a message,
    with whatever status.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        core: str | None = None,
        cwd: Path | None = None,
        **env: str,
    ) -> None:
        self.command = command if core is None else ["taskset", "-c", core, *command]
        self.port, self.log, self.cwd, self.env = port, log, cwd, environment(env)
        self.seconds_to_start = 0.0

    def __enter__(self) -> Self:
        started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            until(self.answers, f"no answer of {self.command[0]}")
        except BaseException:
            self.kill()
            raise
        self.seconds_to_start = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it in its own way, or by force if that takes too long."""
        self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        self.kill()

    def kill(self) -> None:
        """End what is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def answers(self) -> bool:
        """Whether it answers; Failed with the end of its log where it has ended."""
        if self.process.poll() is not None:
            lines = self.log.read_text(errors="replace").splitlines() or ["it said nothing"]
            raise Failed(f"it ended at start: {lines[-1]}")
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", UNKNOWN)
            return connection.getresponse().status < 500
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def memory(self) -> tuple[float, float]:
        """MB that its processes hold together: PSS, which counts shared pages once, and RSS."""
        pss = rss = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                pss += int(rest.split()[0]) if name == "Pss" else 0
                rss += int(rest.split()[0]) if name == "Rss" else 0
        return pss * 1024 / 1e6, rss * 1024 / 1e6

    def cpu(self) -> int:
        """The nanoseconds of a core that its threads have taken so far, of those that live.

        The scheduler counts them itself (proc(5), schedstat), at every switch.
        """
        taken = 0
        for pid in self.pids():
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):  # a thread that has just ended
                    taken += int(file.read_text().split()[0])
        return taken

    def pids(self) -> list[int]:
        """The processes of its session."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                session = (folder / "stat").read_text().rpartition(")")[2].split()[3]
                found += [int(folder.name)] if int(session) == self.process.pid else []
        return found
