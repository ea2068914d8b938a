"""The stores that hasher is measured on: each a block with the URL of an empty one.

Redis runs with the load, not on the server's core: in use it is another machine.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hasher_tune.processes import NotInTimeError, Process, free_ports, listens, until
from hasher_tune.servers import Failed

MASTERS = 3  # the fewest that redis-cli makes a cluster of


@contextmanager
def memory(_folder: Path) -> Iterator[str]:
    """Yield the URL of a dict in the worker."""
    yield "memory://"


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    """Yield the URL of a file that is synced before every acknowledgement."""
    yield f"sqlite:///{folder}/messages.db"


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run one server that keeps nothing on the disk, and yield its URL."""
    (port,) = free_ports(1)
    with redis_server(folder, port):
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Run three masters without replicas that keep nothing on the disk, and yield their URL."""
    ports = free_ports(2 * MASTERS)
    addresses = [f"127.0.0.1:{port}" for port in ports[:MASTERS]]
    with ExitStack() as stack:
        for port, bus in zip(ports[:MASTERS], ports[MASTERS:], strict=True):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
            stack.enter_context(redis_server(folder / str(port), port, *options))
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
        for port in ports[:MASTERS]:
            until(partial(is_whole, port))
        yield f"redis+cluster://{','.join(addresses)}"


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Run one durable server with default settings, not as root, and yield its URL."""
    user: dict[str, Any] = {} if os.geteuid() else {"user": "nobody", "group": "nogroup"}
    (port,) = free_ports(1)
    with TemporaryDirectory(prefix="hasher-postgresql-", dir="/var/tmp") as home:
        if user:
            shutil.chown(home, **user)
        data, make = f"{home}/data", installed("initdb")
        options = ["-D", data, "-U", "hasher", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run([make, *options], check=True, stdout=subprocess.DEVNULL, cwd="/", **user)
        command = [installed("postgres"), "-D", data, "-p", str(port), "-k", home]
        server = Process(command, folder / "postgresql.log", Path("/"), **user)
        with running(server, port):
            yield f"postgresql://hasher@127.0.0.1:{port}/postgres"


STORES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": redis,
    "cluster": cluster,
    "postgresql": postgresql,
}


def opened(store: str, folder: Path) -> AbstractContextManager[str]:
    """Return a block with the URL of an empty store of STORES, or with the given URL."""
    return nullcontext(store) if "://" in store else STORES[store](folder)


@contextmanager
def redis_server(folder: Path, port: int, *options: str) -> Iterator[None]:
    """Run a redis-server with its files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [installed("redis-server"), "--port", str(port), "--dir", str(folder)]
    command += ["--bind", "127.0.0.1", "--save", "", *options]
    with running(Process(command, folder / "redis.log"), port):
        yield


@contextmanager
def running(server: Process, port: int) -> Iterator[None]:
    """Run a server: it listens when the block begins, and is killed at its end."""
    server.start()
    try:
        until(lambda: listens(port), fault=f"no answer of {server.command[0]}")
        yield
    except NotInTimeError as error:
        raise Failed(str(error)) from None
    finally:
        server.kill()


def executable(name: str) -> str | None:
    """Return the path of a program, or None. Debian does not put PostgreSQL's on the PATH."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))[-1:]
    return shutil.which(name) or next(map(str, newest), None)


def installed(name: str) -> str:
    """Return the path of a program. Failed if it is not installed."""
    if path := executable(name):
        return path
    raise Failed(f"{name} is not installed")


def is_whole(port: int) -> bool:
    """Return whether this server knows the holder of every slot of its cluster."""
    return b"cluster_state:ok" in ask(port, b"CLUSTER INFO")


def ask(port: int, command: bytes, host: str = "127.0.0.1") -> bytes:
    """Return the first packet of a Redis server's reply, or b"" if the server is not there."""
    with suppress(OSError), socket.create_connection((host, port), 1) as connection:
        connection.sendall(command + b"\r\n")
        return connection.recv(65536)
    return b""
