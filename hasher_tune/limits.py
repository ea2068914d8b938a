"""Limits that a setting may exceed: open files, and the connections that a store takes."""

import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hasher_tune.servers import Server
from hasher_tune.stores import ask

FILES_A_THREAD = 4  # that a worker of hasher keeps for each thread's use of the store
OTHER_FILES = 64  # of a worker
SPARE = 50  # connections to a store, for replicas, monitoring and operators


@dataclass(frozen=True)
class Limits:
    """The limits that could be read."""

    files: int
    """Open files of a process: the hard limit, up to which hasher raises its own (ulimit -n)."""
    store: int | None
    """Connections to the store, or None if no limit could be read."""
    clients: int
    """The connections of the clients."""

    def forbid(self, workers: int, threads: int) -> str:
        """Return why a setting cannot run, or an empty text if it can."""
        files, wanted = OTHER_FILES + threads * FILES_A_THREAD + self.clients, workers * threads
        if files > self.files:
            return f"a worker may need {files:,} files, and ulimit -n allows {self.files:,}"
        if self.store and wanted + SPARE > self.store:
            return f"it may need {wanted:,} connections, and the store takes {self.store:,}"
        return ""

    def taken(self, server: Server, workers: int, threads: int) -> str:
        """Return in words what a running service takes of them."""
        files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in server.pids())
        allowed = f" (it takes {self.store:,})" if self.store else ""
        return (
            f"{workers * threads} connections to the store at most{allowed}, {files} files in all "
            f"processes (each may have {self.files:,}), and {self.clients} connections of clients"
        )


def of(url: str, clients: int) -> Limits:
    """Return the limits of this machine and of the store at `url`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Limits(2**20 if hard == resource.RLIM_INFINITY else hard, store_limit(url), clients)


def store_limit(url: str) -> int | None:
    """Return the connections that Redis (maxclients) or PostgreSQL (max_connections) takes."""
    parts, said = urlsplit(url), ""
    if parts.scheme == "redis":
        answer = ask(parts.port or 6379, b"CONFIG GET maxclients", parts.hostname or "127.0.0.1")
        said = answer.decode().split()[-1] if answer else ""
    if parts.scheme == "postgresql" and shutil.which("psql"):
        command = ["psql", url, "-Atc", "show max_connections"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return int(said) if said.isdigit() else None
