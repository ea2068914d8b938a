"""The stores that hasher is measured on: each a block with the URL of an empty one.

Redis runs with the load, not on the server's core: in use it is another machine.
"""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from hasher_tune.servers import Failed, free_ports, until

MASTERS = 3  # the fewest that redis-cli makes a cluster of


@contextmanager
def memory(_folder: Path) -> Iterator[str]:
    """A dict in the worker."""
    yield "memory://"


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    """A file, synced before every acknowledgement."""
    yield f"sqlite:///{folder}/messages.db"


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """One server that keeps nothing on the disk."""
    (port,) = free_ports(1)
    with redis_server(folder, port):
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Three masters that keep nothing on the disk, without replicas."""
    ports = free_ports(2 * MASTERS)
    addresses = [f"127.0.0.1:{port}" for port in ports[:MASTERS]]
    with ExitStack() as stack:
        for port, bus in zip(ports[:MASTERS], ports[MASTERS:], strict=True):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
            stack.enter_context(redis_server(folder / str(port), port, *options))
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
        for port in ports[:MASTERS]:
            until(partial(is_whole, port), "no cluster")
        yield f"redis+cluster://{','.join(addresses)}"


STORES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": redis,
    "cluster": cluster,
}


def opened(store: str, folder: Path) -> AbstractContextManager[str]:
    """A block with the URL of a store: an empty one of STORES, or one that is there, by its URL."""
    return nullcontext(store) if "://" in store else STORES[store](folder)


@contextmanager
def redis_server(folder: Path, port: int, *options: str) -> Iterator[None]:
    """A redis-server with its files in `folder`."""
    if not shutil.which("redis-server"):
        raise Failed("redis-server is not on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["redis-server", "--port", str(port), "--dir", str(folder), "--bind", "127.0.0.1"]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([*command, "--save", "", *options], stdout=log)
    try:
        until(lambda: ask(port, b"PING").startswith(b"+PONG"), "no answer of redis-server")
        yield
    finally:
        process.kill()
        process.wait()


def is_whole(port: int) -> bool:
    """Whether this server knows who has every slot of its cluster."""
    return b"cluster_state:ok" in ask(port, b"CLUSTER INFO")


def ask(port: int, command: bytes, host: str = "127.0.0.1") -> bytes:
    """What a Redis server answers to a command, its first packet; nothing if it is not there."""
    with suppress(OSError), socket.create_connection((host, port), 1) as connection:
        connection.sendall(command + b"\r\n")
        return connection.recv(65536)
    return b""
