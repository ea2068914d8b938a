"""Servers that are measured: started on a core, awaited, weighed, and stopped."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

from hasher_tune.processes import PATIENCE, NotInTimeError, Process, until

OURS = ("HASHER_", "GUNICORN_", "WEB_CONCURRENCY", "PORT", "PROMETHEUS_", "UVICORN_")
UNWELL = 3.0  # seconds that a store has to be reached
UNKNOWN = "/messages/" + "0" * 64


class Failed(Exception):
    """A server did not do what was asked of it, and so has no figure."""


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process, without a server's variables and with `changes`."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**plain, **changes}


class Server(Process):
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
        pinned = command if core is None else ["taskset", "-c", core, *command]
        super().__init__(pinned, log, cwd, environment(env))
        self.port, self.settings, self.seconds_to_start = port, env, 0.0
        self._unwell_since: float | None = None

    def __enter__(self) -> Self:
        begin = time.monotonic()
        self.start()
        try:
            until(self.answers)
        except NotInTimeError:
            self.kill()
            raise Failed(f"no answer of {self.command[0]} in {PATIENCE:.0f} s") from None
        except BaseException:
            self.kill()
            raise
        self.seconds_to_start = time.monotonic() - begin
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def answers(self) -> bool:
        """Return whether it answers. Failed with the end of its log if it has ended."""
        if not self.runs():
            raise Failed(f"it ended at start: {self.last_line()}")
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", UNKNOWN)
            return self.is_well(connection.getresponse().status)
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def is_well(self, status: int) -> bool:
        """Return whether it has answered well. Failed if it has not done so for UNWELL seconds."""
        if status < 500:
            return True
        self._unwell_since = self._unwell_since or time.monotonic()
        if time.monotonic() - self._unwell_since > UNWELL:
            raise Failed(f"it answers {status}: {self.last_line()}")
        return False

    def last_line(self) -> str:
        """Return the last line of its log, without a full stop."""
        lines = self.log_file.read_text(errors="replace").splitlines() or ["it said nothing"]
        return lines[-1].removesuffix(".")

    def memory(self) -> float:
        """Return the MB that its processes hold together: PSS, which counts shared pages once."""
        held = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids()]
        return sum(int(text.split("\nPss:")[1].split()[0]) for text in held) * 1024 / 1e6

    def cpu(self) -> int:
        """Return the nanoseconds of a core that its living threads have taken so far.

        The scheduler counts them itself (proc(5), schedstat), at every switch.
        """
        taken = 0
        for pid in self.pids():
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):  # a thread that has just ended
                    taken += int(file.read_text().split()[0])
        return taken

    def pids(self) -> list[int]:
        """Return the ids of the processes of its session."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                session = (folder / "stat").read_text().rpartition(")")[2].split()[3]
                found += [int(folder.name)] if int(session) == self.process.pid else []
        return found
