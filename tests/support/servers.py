"""The servers that tests start on free ports, and stop again."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError

from hasher_tune.processes import PATIENCE, Process, free_ports, in_use, until

__all__ = ["PATIENCE", "free_ports", "in_use", "until"]  # which tests take from here


def program(name: str, package: str) -> str:
    """The path of a program; the test skips without it, unless FORBID_SKIPS is set, as in CI."""
    reason = f"{name} is not on the PATH: install Debian's package {package}, say."
    return shutil.which(name) or skip(reason)


def skip(reason: str) -> NoReturn:
    """End the test as skipped or, if FORBID_SKIPS is set, as failed."""
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


class RedisServer(Process):
    """One redis-server, that keeps its files in a folder of the test's."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder, self.port, self.options = folder, port or free_ports(1)[0], options
        super().__init__([program("redis-server", "redis-server")], folder / "log")
        self.nodes = [self]
        self.password: str | None = None

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
        return self.process.pid

    def client(self) -> "Redis":
        """A client of its own for the test."""
        return Redis(port=self.port, password=self.password, socket_timeout=5, protocol=2)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def alter(self, digest: str, text: str) -> None:
        """Store another text under a digest, behind hasher's back."""
        with closing(self.client()) as client:
            client.set(f"hasher:{digest}", text)

    @contextmanager
    def crowded(self) -> Iterator[None]:
        """Hold all its connections while the block lasts."""
        with ExitStack() as held:
            with suppress(RedisError):
                while True:
                    held.enter_context(closing(self.client())).ping()
            yield

    def require_password(self, password: str) -> None:
        """Let in who brings this password only."""
        with closing(self.client()) as client:
            client.config_set("requirepass", password)
        self.password = password

    def url_with(self, password: str) -> str:
        """The store's URL, with a password."""
        return self.url.replace("//", f"//:{password}@")

    def empty(self) -> None:
        """Remove every key."""
        with closing(self.client()) as client, suppress(ReadOnlyError):  # a replica follows
            client.flushall()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        usual = ["--port", str(self.port), "--dir", str(self.folder), "--bind", "127.0.0.1"]
        self.command = [self.command[0], *usual, "--save", "", *self.options]
        super().start()
        until(self.answers)

    def answers(self) -> bool:
        """Whether it takes commands."""
        assert self.runs(), self.log_file.read_text()
        try:
            with closing(self.client()) as client:
                return bool(client.ping())
        except AuthenticationError:
            return True
        except RedisError:
            return False


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
