"""Limits that a setting may exceed: open files, and the connections that a store takes."""

import resource
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hasher_tune.servers import Server
from hasher_tune.stores import ask

FILES_A_THREAD = 4  # that a worker of hasher keeps for each thread's use of the store
OTHER_FILES = 64  # of a worker
SPARE = 50  # connections to a store, for replicas, monitoring and operators


@dataclass(frozen=True)
class Needs:
    """What a setting takes, and what there is."""

    store_connections: int
    """At most: one for each thread."""
    store_limit: int | None
    files: int
    """That its processes have open together, after the load."""
    files_limit: int
    """Of each process."""
    client_connections: int

    def __str__(self) -> str:
        store = f"{self.store_connections} connections to the store at most"
        if self.store_limit:
            store += f" (it takes {self.store_limit:,})"
        return (
            f"{store}, {self.files} files in all its processes (each may have "
            f"{self.files_limit:,}), and {self.client_connections} connections of the clients"
        )


@dataclass(frozen=True)
class Limits:
    """What could be read of them."""

    files: int
    """Of each process (ulimit -n; the hard limit, up to which hasher raises its own)."""
    store: int | None
    """Connections; None: no limit, or none that could be read."""
    client_connections: int

    def forbid(self, workers: int, threads: int) -> str:
        """Why a setting cannot run; an empty text if it can."""
        files = OTHER_FILES + threads * FILES_A_THREAD + self.client_connections
        if files > self.files:
            return f"a worker may need {files:,} files, and ulimit -n allows {self.files:,}"
        wanted = workers * threads + SPARE
        if self.store and wanted > self.store:
            return f"it may need {wanted:,} connections, and the store takes {self.store:,}"
        return ""

    def needs(self, server: Server, workers: int, threads: int) -> Needs:
        """What a running service takes."""
        files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in server.pids())
        connections = workers * threads
        return Needs(connections, self.store, files, self.files, self.client_connections)


def of(url: str, client_connections: int) -> Limits:
    """The limits of this machine and of the store at `url`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 2**20 if hard == resource.RLIM_INFINITY else hard
    return Limits(files, store_limit(url), client_connections)


def store_limit(url: str) -> int | None:
    """The connections that a store takes: Redis's maxclients, PostgreSQL's max_connections."""
    parts = urlsplit(url)
    if parts.scheme == "redis" and parts.hostname:
        said = ask(parts.port or 6379, b"CONFIG GET maxclients", parts.hostname).split()
        return int(said[-1]) if said and said[-1].isdigit() else None
    if parts.scheme == "postgresql" and shutil.which("psql"):
        command = ["psql", url, "-Atc", "show max_connections"]
        said_text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        with suppress(ValueError):
            return int(said_text)
    return None
