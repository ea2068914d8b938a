"""Who is compared, and how each is started."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench.load import BULK, GET, POST, Failed, Load
from bench.servers import Server, free_ports
from bench.stores import STORES
from deploy.fleet import configured

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
BIN = Path(sys.executable).parent
THREADS = "8"
PROCESSES = "worker_processes 1;"  # on the one core that it has
ROOM = str(4 * 2**30)  # for HASHER_MEMORY_LIMIT: a million messages do not fit the default

Started = AbstractContextManager[Server]


@contextmanager
def hasher(folder: Path, core: int | None, store: str = "memory", **env: str) -> Iterator[Server]:
    """One worker of hasher on a store of STORES, started as the Procfile does."""
    with STORES[store](folder) as url, instance(folder, core, url, **env) as server:
        yield server


def instance(folder: Path, core: int | None, url: str, **env: str) -> Server:
    """One gunicorn with hasher on the store that `url` names."""
    (port,) = free_ports(1)
    settings = {
        "HASHER_STORE": url,
        "HASHER_THREADS": THREADS,
        "HASHER_MEMORY_LIMIT": ROOM,
        "HASHER_METRICS": "on",
        "HASHER_HOST": "127.0.0.1",
        "WEB_CONCURRENCY": "1",
        "PORT": str(port),
        **env,
    }
    command = [f"{BIN}/gunicorn", "wsgi:app"]
    return Server(command, port, folder / f"{port}.log", core, ROOT, **settings)


@contextmanager
def front(folder: Path, core: int | None) -> Iterator[Server]:
    """deploy/nginx.conf before three instances of hasher that share a store, all on one core."""
    with ExitStack() as stack:
        url = stack.enter_context(STORES["sqlite"](folder))
        backs = [stack.enter_context(instance(folder, core, url)).port for _ in range(3)]
        yield stack.enter_context(proxy(folder, core, backs))


def proxy(folder: Path, core: int | None, instances: list[int]) -> Server:
    """The front: deploy/nginx.conf before three instances, which must run already."""
    (port,) = free_ports(1)
    conf = configured(folder, port, instances)
    (folder / "nginx.conf").write_text(re.sub("worker_processes .*;", PROCESSES, conf))
    command = ["nginx", "-c", f"{folder}/nginx.conf", "-e", "stderr", "-g", "daemon off;"]
    return Server(command, port, folder / "nginx.log", core)


def on_gunicorn(folder: Path, core: int | None, module: str) -> Server:
    """A peer on gunicorn, with the worker class, threads and keep-alive that hasher has."""
    (port,) = free_ports(1)
    options = ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", THREADS]
    options += ["--worker-class", "gthread", "--keep-alive", "75", "--no-control-socket"]
    command = [f"{BIN}/gunicorn", *options, f"{module}:app"]
    return Server(command, port, folder / "log", core, PEERS)


def on_uvicorn(folder: Path, core: int | None, module: str) -> Server:
    """A peer on uvicorn, with its fast parser and event loop."""
    (port,) = free_ports(1)
    options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    command = [f"{BIN}/uvicorn", *options, f"{module}:app"]
    return Server(command, port, folder / "log", core, PEERS)


def by_itself(folder: Path, core: int | None, file: str) -> Server:
    """A peer that is a program with its own server."""
    (port,) = free_ports(1)
    command = [sys.executable, file, str(port)]
    return Server(command, port, folder / "log", core, PEERS)


def with_go(folder: Path, core: int | None) -> Server:
    """The peer in Go, built first."""
    (port,) = free_ports(1)
    program = str(folder / "messages")
    build = ["go", "build", "-buildvcs=false", "-o", program, "."]
    ended = subprocess.run(build, cwd=PEERS / "go", capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Failed(f"go build: {ended.stderr.strip()}")
    return Server([program, str(port)], port, folder / "log", core)


@dataclass(frozen=True)
class Contender:
    """One who takes part."""

    name: str
    """As the tables call it."""
    start: Callable[[Path, int | None], Started]
    """A block with the running server, given an empty folder for its files and its core."""
    loads: tuple[Load, ...] = (GET, POST)
    programs: tuple[str, ...] = ()
    """What it needs on the PATH."""
    packages: tuple[str, ...] = ()
    """What it needs installed beside hasher's own requirements."""
    stores: bool = True
    """Whether it gives back what was posted; the constant does not."""

    def missing(self) -> list[str]:
        """What is needed and not there."""
        programs = [name for name in self.programs if not shutil.which(name)]
        return programs + [name for name in self.packages if not find_spec(name)]


HASHER = {store: f"hasher, {store}" for store in STORES}
TEXTBOOK, LIMIT, FRONT, GO = "textbook Flask", "a constant, WSGI", "hasher behind nginx", "Go"


def hasher_on(store: str, *programs: str) -> Contender:
    """One worker of hasher on that store, with its metrics on."""
    return Contender(HASHER[store], partial(hasher, store=store), (GET, POST, BULK), programs)


# Those whose ratio matters most are neighbours: they meet the same minute of the machine.
CONTENDERS = [
    Contender("hasher, memory, metrics off", partial(hasher, HASHER_METRICS="off")),
    hasher_on("memory"),
    Contender(TEXTBOOK, partial(on_gunicorn, module="flask_textbook")),
    hasher_on("sqlite"),
    hasher_on("redis", "redis-server"),
    hasher_on("cluster", "redis-server", "redis-cli"),
    Contender(LIMIT, partial(on_gunicorn, module="constant"), stores=False),
    Contender("Falcon", partial(on_gunicorn, module="falcon_app"), packages=("falcon",)),
    Contender(
        "FastAPI, uvicorn",
        partial(on_uvicorn, module="fastapi_app"),
        packages=("fastapi", "uvicorn", "uvloop", "httptools"),
    ),
    Contender("aiohttp", partial(by_itself, file="aiohttp_app.py"), packages=("aiohttp", "uvloop")),
    Contender(FRONT, front, loads=(GET,), programs=("nginx",)),
    Contender(GO, with_go, programs=("go",)),
]
