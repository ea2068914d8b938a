"""gunicorn with the worker and a bare application, in a folder where nothing else can be imported.

Clients are raw sockets: what they send, and when, is what the tests are about.
"""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import parse_headers
from pathlib import Path
from typing import Any, Self

from tests.support.servers import PATIENCE, until

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "leader_worker"
GUNICORN = Path(sys.executable).parent / "gunicorn"
HELLO = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Answer:
    """An HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.content)


class Client:
    """One connection, over TLS if there is a context for it."""

    def __init__(self, address: tuple[str, int] | str, tls: ssl.SSLContext | None = None) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address)
        self.socket.settimeout(PATIENCE)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.stream = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.stream.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send it all, unless the server has hung up."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def receive(self, method: str = "GET") -> Answer:
        """Return the next answer."""
        line = self.stream.readline()
        assert line, "The server has hung up."
        status, headers = int(line.split()[1]), dict(parse_headers(self.stream).items())
        if method == "HEAD" or status == 204:
            content = b""
        elif "Transfer-Encoding" in headers:
            content = b"".join(iter(self.chunk, b""))
        else:
            content = self.stream.read(int(headers["Content-Length"]))
        return Answer(status, headers, content)

    def chunk(self) -> bytes:
        """Return the next part of an answer that comes in such."""
        size = int(self.stream.readline(), 16)
        return self.stream.read(size + 2)[:size]

    def status(self) -> int:
        """Return that of the next answer."""
        return self.receive().status

    def content(self) -> bytes:
        """Return the body of the next answer."""
        return self.receive().content

    def rest(self) -> bytes:
        """Return all that comes until the server hangs up."""
        received = b""
        with suppress(ConnectionError):
            while data := self.stream.read1(65536):
                received += data
        return received

    def is_closed(self) -> bool:
        """Return whether the server hangs up rather than answers; wait for either."""
        try:
            return self.stream.read(1) == b""
        except ConnectionError:
            return True


class Server:
    """One gunicorn, on a free port of 127.0.0.1 unless `bind` says otherwise."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        bind: str = "127.0.0.1:0",
        worker: str = "leader_worker.Worker",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "leader_worker").symlink_to(PACKAGE)
        shutil.copy(HERE / "application.py", folder)
        self.log_file = folder / "log"
        self.unix = bind.removeprefix("unix:") if bind.startswith("unix:") else None
        command = [str(GUNICORN), "-k", worker, "-b", bind, "--no-control-socket"]
        environ = {key: value for key, value in os.environ.items() if "GUNICORN" not in key}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *options, "application:app"],
                cwd=folder,
                env={**environ, "PYTHONPATH": str(folder)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        try:
            until(self.is_listening)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def is_listening(self) -> bool:
        """Return whether a worker starts, and the server has said where it listens."""
        assert self.process.poll() is None, self.log
        return "Booting worker" in self.log

    @property
    def log(self) -> str:
        """Return everything logged so far."""
        return self.log_file.read_text(errors="replace")

    @property
    def address(self) -> tuple[str, int] | str:
        """Return where it listens."""
        if self.unix:
            return self.unix
        found = re.search(r"Listening at: https?://127\.0\.0\.1:(\d+)", self.log)
        assert found, self.log
        return "127.0.0.1", int(found[1])

    def workers(self) -> list[int]:
        """Return the process ids of all workers that ever were."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log)]

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        self.process.send_signal(number)

    def connect(self) -> Client:
        """Return a connection on which nothing was sent yet."""
        return Client(self.address)

    def ask(self, request: bytes = HELLO) -> Answer:
        """Return the answer to a request on a connection of its own."""
        with self.connect() as client:
            client.send(request)
            return client.receive()

    def is_well(self) -> bool:
        """Return whether it says hello."""
        with self.connect() as client:
            client.socket.settimeout(3)
            client.send(HELLO)
            return client.content() == b"hello"
