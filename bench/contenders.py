"""Who is compared, and how each is started."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench import load
from bench.load import BULK, GET, POST, Load
from deploy.fleet import configured
from hasher_tune.processes import free_ports
from hasher_tune.servers import Failed, Server
from hasher_tune.stores import STORES, executable

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
BIN = Path(sys.executable).parent
THREADS = "8"
PROCESSES = "worker_processes 1;"  # on the one core that it has
ROOM = str(8 * 2**30)  # for HASHER_MEMORY_LIMIT: a million messages do not fit the default

NOTHING: Mapping[str, str] = {}

Started = AbstractContextManager[Server]


@contextmanager
def hasher(
    folder: Path, core: str | None, store: str = "memory", root: Path = ROOT, **env: str
) -> Iterator[Server]:
    """One worker of the hasher in `root`, started as the Procfile does, on a store of STORES."""
    with STORES[store](folder) as url, instance(folder, core, url, root, env) as server:
        yield server


def instance(
    folder: Path, core: str | None, url: str, root: Path = ROOT, env: Mapping[str, str] = NOTHING
) -> Server:
    """One gunicorn with hasher on the store that `url` names."""
    (port,) = free_ports(1)
    settings = {
        "HASHER_STORE": url,
        "HASHER_THREADS": THREADS,
        "HASHER_MEMORY_LIMIT": ROOM,
        "HASHER_HOST": "127.0.0.1",
        "WEB_CONCURRENCY": "1",
        "PORT": str(port),
        **env,
    }
    command = [f"{BIN}/gunicorn", "wsgi:app"]
    return Server(command, port, folder / f"{port}.log", core, root, **settings)


@contextmanager
def at_commit(
    folder: Path, core: str | None, commit: str, store: str, **env: str
) -> Iterator[Server]:
    """The hasher of a commit of this repository, with the packages that are installed now."""
    root = folder / "checkout"
    root.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise Failed(f"git archive: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(root)], input=archive.stdout, check=True)
    with hasher(folder, core, store, root, **env) as server:
        yield server


@contextmanager
def on_all_cores(folder: Path, _core: str | None, workers: str) -> Iterator[Server]:
    """So many workers on SQLite, which may use every core of the machine."""
    everywhere = ",".join(map(str, range(os.cpu_count() or 1)))
    with hasher(folder, everywhere, "sqlite", WEB_CONCURRENCY=workers) as server:
        yield server


@contextmanager
def front(folder: Path, core: str | None, *, caches: bool = True) -> Iterator[Server]:
    """deploy/nginx.conf before three instances of hasher that share a store, all on one core."""
    (port,) = free_ports(1)
    with ExitStack() as stack:
        url = stack.enter_context(STORES["sqlite"](folder))
        backs = [stack.enter_context(instance(folder, core, url)).port for _ in range(3)]
        conf = re.sub("worker_processes .*;", PROCESSES, configured(folder, port, backs))
        conf = conf if caches else conf.replace("proxy_cache messages;", "proxy_cache off;")
        (folder / "nginx.conf").write_text(conf)
        command = ["nginx", "-c", f"{folder}/nginx.conf", "-e", "stderr", "-g", "daemon off;"]
        yield stack.enter_context(Server(command, port, folder / "nginx.log", core))


def on_gunicorn(folder: Path, core: str | None, module: str, worker: str = "gthread") -> Server:
    """A peer on gunicorn, with the threads and the keep-alive that hasher has."""
    (port,) = free_ports(1)
    options = ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", THREADS]
    options += ["--worker-class", worker, "--keep-alive", "75", "--no-control-socket"]
    command = [f"{BIN}/gunicorn", *options, "--pythonpath", str(ROOT), f"{module}:app"]
    return Server(command, port, folder / "log", core, PEERS)


def on_uvicorn(folder: Path, core: str | None, module: str) -> Server:
    """A peer on uvicorn, with its fast parser and event loop."""
    (port,) = free_ports(1)
    options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    command = [f"{BIN}/uvicorn", *options, f"{module}:app"]
    return Server(command, port, folder / "log", core, PEERS)


def standalone(folder: Path, core: str | None, file: str) -> Server:
    """A peer that is a program with its own server."""
    (port,) = free_ports(1)
    command = [sys.executable, file, str(port)]
    return Server(command, port, folder / "log", core, PEERS)


def with_go(folder: Path, core: str | None) -> Server:
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
    start: Callable[[Path, str | None], Started]
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
        programs = [name for name in self.programs if not executable(name)]
        return programs + [name for name in self.packages if not find_spec(name)]


HASHER = {store: f"hasher, {store}" for store in STORES}
TEXTBOOK, GO = "textbook Flask", "Go"
FRONT, COLD_FRONT = "hasher behind nginx", "hasher behind nginx, not cached"
AIOHTTP, FASTAPI, TWO_WORKERS = "aiohttp", "FastAPI, uvicorn", "hasher, sqlite, two workers"
GTHREAD, LEADER = "a constant, gthread", "a constant, leader_worker"
NEEDS: dict[str, tuple[str, ...]] = dict.fromkeys(STORES, ())
NEEDS |= {"redis": ("redis-server",), "cluster": ("redis-server", "redis-cli")}
NEEDS |= {"postgresql": ("initdb", "postgres", "psql")}
EVERY = (GET, POST, load.BROWSER_GET, load.BROWSER_POST, load.LARGE_GET, load.LARGE_POST)


def hasher_on(store: str, *loads: Load) -> Contender:
    """One worker of hasher on that store."""
    start = partial(hasher, store=store)
    return Contender(HASHER[store], start, loads or (GET, POST, BULK), NEEDS[store])


CONTENDERS = [
    hasher_on("memory", *EVERY, load.CROWD, BULK),
    Contender(
        AIOHTTP, partial(standalone, file="aiohttp_app.py"), EVERY, packages=("aiohttp", "uvloop")
    ),
    Contender(
        FASTAPI,
        partial(on_uvicorn, module="fastapi_app"),
        packages=("fastapi", "uvicorn", "uvloop", "httptools"),
    ),
    Contender(TEXTBOOK, partial(on_gunicorn, module="flask_textbook")),
    *(hasher_on(store) for store in STORES if store != "memory"),
    Contender("Falcon", partial(on_gunicorn, module="falcon_app"), packages=("falcon",)),
    Contender(TWO_WORKERS, partial(on_all_cores, workers="2"), (GET,)),
    Contender(FRONT, front, (GET,), programs=("nginx",)),
    Contender(COLD_FRONT, partial(front, caches=False), (GET,), programs=("nginx",)),
    Contender(GO, with_go, programs=("go",)),
    Contender(GTHREAD, partial(on_gunicorn, module="constant"), (GET,), stores=False),
    Contender(
        LEADER,
        partial(on_gunicorn, module="constant", worker="leader_worker.Worker"),
        (GET,),
        packages=("leader_worker",),
        stores=False,
    ),
]
BEFORE = {store: f"hasher before, {store}" for store in ("memory", "sqlite", "redis")}


def before(commit: str) -> list[Contender]:
    """The hasher of a commit, to measure a change in the same run."""
    return [
        Contender(name, partial(at_commit, commit=commit, store=store), (GET, POST), NEEDS[store])
        for store, name in BEFORE.items()
    ]
