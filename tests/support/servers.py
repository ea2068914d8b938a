"""The servers that tests start on free ports, and stop again."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError

PATIENCE = 30.0  # seconds until something that should happen is taken not to


def until(condition: Callable[[], Any], within: float = PATIENCE) -> Any:
    """What `condition` returns, as soon as it is true; an error when it is not in time."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.01)
    return value


def program(name: str, package: str) -> str:
    """The path of a program; the test skips without it, unless FORBID_SKIPS is set, as in CI."""
    reason = f"{name} is not on the PATH: install Debian's package {package}, say."
    return shutil.which(name) or skip(reason)


def skip(reason: str) -> NoReturn:
    """End the test as skipped or, where FORBID_SKIPS is set, as failed."""
    if os.environ.get("FORBID_SKIPS"):
        pytest.fail(reason)
    pytest.skip(reason)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A new certificate of this machine for itself, and its key."""
    made, key = folder / "server.pem", folder / "server.key"
    openssl = program("openssl", "openssl")
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-out", str(made), "-keyout", str(key)]
    subprocess.run([*request, *names, *files], check=True, capture_output=True)
    return made, key


ROW = 5  # ports side by side, as many as `make fleet` takes


def rows() -> Iterator[int]:
    """The first ports of rows that no other process of this test run is given, each once.

    They lie below those that the system gives to clients, which may take one at any time.
    """
    part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    firsts = range(10_000 + part * 5000, 15_000 + part * 5000, ROW)
    while True:
        yield from random.SystemRandom().sample(firsts, len(firsts))


ROWS = rows()


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens, nor on the next four of each: given once, to be used later."""
    unused = (first for first in ROWS if not any(map(in_use, range(first, first + ROW))))
    return list(islice(unused, count))


def in_use(port: int) -> bool:
    """Whether the port cannot be listened on."""
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return True
    return False


class RedisServer:
    """One redis-server, that keeps its files in a folder of the test's."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.executable = program("redis-server", "redis-server")
        self.folder, self.options = folder, options
        self.port = port or free_ports(1)[0]
        self.nodes = [self]
        self.password: str | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process
        return self.process.pid

    def client(self) -> "Redis":
        """A client of its own for the test."""
        return Redis(port=self.port, password=self.password, socket_timeout=5, protocol=2)

    def empty(self) -> None:
        """Remove every key."""
        with closing(self.client()) as client, suppress(ReadOnlyError):  # a replica follows
            client.flushall()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [self.executable, "--port", str(self.port), "--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--bind", "127.0.0.1", "--save", "", *self.options], stdout=log
            )
        until(self.answers)

    def answers(self) -> bool:
        """Whether it takes commands."""
        assert self.process
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            with closing(self.client()) as client:
                return bool(client.ping())
        except AuthenticationError:
            return True
        except RedisError:
            return False

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


ONE_REPLICA = ["--cluster-replicas", "1", "--cluster-yes"]


class RedisCluster:
    """Three masters with a replica each."""

    def __init__(self, folder: Path) -> None:
        self.cli = program("redis-cli", "redis-tools")
        self.nodes = [self.node(folder / str(number)) for number in range(6)]

    def node(self, folder: Path) -> RedisServer:
        """One server of it; a failed master is replaced after half a second."""
        port, bus = free_ports(2)
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        return RedisServer(folder, *options, "--cluster-port", str(bus), port=port)

    @property
    def url(self) -> str:
        """The store's URL, with the first two as its entrance."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])
        return f"redis+cluster://{hosts}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self.join()
            self.stack = stack.pop_all()
        return self

    def join(self) -> None:
        """Make one cluster of the servers."""
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        subprocess.run(
            [self.cli, "--cluster", "create", *addresses, *ONE_REPLICA],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        until(lambda: all(self.is_whole(node) for node in self.nodes))

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def empty(self) -> None:
        """Remove every key."""
        for node in self.nodes:
            node.empty()

    def is_whole(self, node: RedisServer) -> bool:
        """Whether this server knows of no fault, and every replica follows its master."""
        with closing(node.client()) as client:
            state: Any = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
            role: Any = client.info("replication")
            follows = role["role"] == "master" or role["master_link_status"] == "up"
            peers = role["role"] == "slave" or role["connected_slaves"] >= 1
            return bool(state["cluster_state"] == "ok" and follows and peers)
