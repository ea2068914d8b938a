"""PostgreSQL servers of the tests' own, on free ports and in temporary folders."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.support.servers import free_ports, in_use, program, skip, until
from tests.support.service import is_running


def executable(name: str) -> str:
    """The path of one of the server's programs, of the newest version that is installed."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4])
    )
    reason = f"{name} is not installed: install Debian's package postgresql, say."
    return shutil.which(name) or str(installed[-1] if installed else skip(reason))


# The server refuses to run as root.
UNPRIVILEGED: dict[str, Any] = (
    {} if os.geteuid() else {"user": "nobody", "group": "nogroup", "extra_groups": []}
)


def run(name: str, *arguments: str) -> None:
    """Run one of the server's programs to its end."""
    command = [executable(name), *arguments]
    subprocess.run(command, check=True, capture_output=True, cwd="/", **UNPRIVILEGED)


def own(folder: Path) -> None:
    """Give a folder to the server."""
    if UNPRIVILEGED:
        shutil.chown(folder, UNPRIVILEGED["user"], UNPRIVILEGED["group"])


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes, in memory, for the server's files."""
    folder.mkdir()
    mount, umount = program("mount", "mount"), program("umount", "mount")
    made = [mount, "-o", f"size={size}", "-t", "tmpfs", "small", str(folder)]
    if subprocess.run(made, check=False, capture_output=True).returncode:
        skip("Mounting a file system is not allowed: run the tests as root.")
    try:
        own(folder)
        yield folder
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True)


def resize(disk: Path, size: int) -> None:
    """Give a small disk another size, in bytes."""
    remount = [program("mount", "mount"), "-o", f"remount,size={size}", str(disk)]
    subprocess.run(remount, check=True)


class PostgreSQLServer:
    """One server, with `hasher` as its superuser.

    `settings` are such as `max_connections=5`. `follow` is a server that this one is a standby of.
    `largest` is the size of a file, in bytes, at which the disk counts as full.
    """

    def __init__(
        self,
        *settings: str,
        follow: "PostgreSQLServer | None" = None,
        largest: int = resource.RLIM_INFINITY,
    ) -> None:
        self.settings, self.follow, self.largest = settings, follow, largest
        self.port = free_ports(1)[0]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"postgresql://hasher@127.0.0.1:{self.port}/postgres"

    @property
    def nodes(self) -> list[Self]:
        """Itself, as the nodes of a cluster are listed."""
        return [self]

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="hasher-postgresql-"))
        own(self.folder)
        try:
            self.make()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def make(self) -> None:
        """Make its files: a database of its own, or a copy of the server that it follows."""
        self.data = self.folder / "data"
        if self.follow:
            origin = f"host=127.0.0.1 port={self.follow.port} user=hasher application_name=standby"
            copy = ("-R", "-X", "stream", "-c", "fast", "--no-sync")
            run("pg_basebackup", "-D", str(self.data), "-d", origin, *copy)
        else:
            options = ("-U", "hasher", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
            run("initdb", "-D", str(self.data), *options)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = (
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            *self.settings,
        )
        command = [executable("postgres"), "-D", str(self.data)]
        for setting in settings:
            command += ["-c", setting]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=self.limit,  # noqa: PLW1509 - runs nothing but setrlimit
                **UNPRIVILEGED,
            )
        until(self.answers)

    def limit(self) -> None:
        """Limit the size of this process's files."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest, resource.RLIM_INFINITY))

    def answers(self) -> bool:
        """Whether it takes statements."""
        assert self.process
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            self.client().close()
        except psycopg.OperationalError:
            return False
        return True

    def client(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection of the test's own, as the superuser."""
        address = f"host=127.0.0.1 port={self.port} user=hasher dbname=postgres"
        return psycopg.connect(address, autocommit=True, connect_timeout=5)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement returns."""
        with closing(self.client()) as client:
            cursor = client.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def alter(self, digest: str, text: str) -> None:
        """Store another text under a digest, behind hasher's back."""
        with closing(self.client()) as client:
            values = text.encode(), bytes.fromhex(digest)
            client.execute("UPDATE hasher_messages SET message = %s WHERE digest = %s", values)

    @contextmanager
    def crowded(self) -> Iterator[None]:
        """Hold all its connections while the block lasts."""
        with ExitStack() as held:
            with suppress(psycopg.OperationalError):
                while True:
                    held.enter_context(closing(self.client()))
            yield

    def require_password(self, password: str) -> None:
        """Let the role `app` in, which may store messages, with this password only."""
        self.execute(f"CREATE ROLE app LOGIN PASSWORD '{password}' IN ROLE pg_write_all_data")
        self.execute("GRANT CREATE ON SCHEMA public TO app")
        rules = self.data / "pg_hba.conf"
        rules.write_text("host all app 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        self.execute("SELECT pg_reload_conf()")

    def url_with(self, password: str) -> str:
        """The store's URL, with the role `app` and a password."""
        return self.url.replace("hasher@", f"app:{password}@")

    def runs(self) -> bool:
        """Whether it was started, and has not ended."""
        return self.process is not None and self.process.poll() is None

    def processes(self) -> list[int]:
        """The ids of the server's processes: its first one, and one for each connection."""
        assert self.process
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [pid, *map(int, children.split())]

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the server."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End it as a power cut would, and wait until the last process has let go of its files."""
        if self.process and self.runs():
            self.process.send_signal(signal.SIGSTOP)  # so that it starts no other process
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            pids = self.processes()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            until(lambda: not any(map(is_running, pids)))
        self.process = None

    def stop(self) -> None:
        """Stop it in order, without waiting for its clients to leave."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
            self.process = None

    def promote(self) -> None:
        """Make a standby take writes."""
        run("pg_ctl", "promote", "-D", str(self.data), "--no-wait")


@contextmanager
def relay(port: int, change: Callable[[bytes], bytes]) -> Iterator[int]:
    """Run a relay before a server on `port`, and yield its own port.

    `change` returns what is passed on of each packet of the server. If that is not all, the
    connection ends with it.
    """

    def pass_on(
        source: socket.socket, target: socket.socket, part: Callable[[bytes], bytes]
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(part(data))
                if part(data) != data:
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # which wakes the other thread
            end.close()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                for ends in ((client, server, bytes), (server, client, change)):
                    threading.Thread(target=pass_on, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


class PgBouncer:
    """A PgBouncer in transaction mode before a server, whose connections all its clients share.

    As a context it is the store's URL.
    """

    def __init__(self, server: PostgreSQLServer) -> None:
        self.server = server
        self.port = free_ports(1)[0]

    def __enter__(self) -> str:
        executable = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        settings = self.server.folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.server.port} user=hasher\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            "unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
        )
        command = [executable or skip("Install Debian's package pgbouncer, say."), str(settings)]
        with (self.server.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **UNPRIVILEGED)
        until(lambda: in_use(self.port))
        return f"postgresql://hasher@127.0.0.1:{self.port}/postgres"

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
