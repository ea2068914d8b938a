"""A real gunicorn, started the way the Procfile does, and raw sockets to talk to it.

Nothing here imports hasher: what a client cannot see is not tested here.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection, parse_headers
from pathlib import Path
from typing import Any, Self

from hasher_tune.processes import Process
from tests.support.description import Answers, take_request
from tests.support.servers import PATIENCE, until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PROCFILE = shlex.split((ROOT / "Procfile").read_text().removeprefix("web: "))


SET_UP = ("GUNICORN_", "HASHER_", "MAKE", "MFLAGS", "PORT", "PYTEST", "WEB_CONCURRENCY")


def plain_environ() -> dict[str, str]:
    """Return the environment without the variables of a service."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SET_UP)}


@dataclass
class Answer:
    """An HTTP answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


DESCRIBED = Answers()


class Client:
    """One connection, on which raw bytes are sent and whole answers read.

    Each answer is checked: it must be one of `answers`.
    """

    def __init__(self, port: int, answers: Answers = DESCRIBED) -> None:
        self.answers = answers
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.stream = self.socket.makefile("rb")
        self.sent = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.stream.close()
        self.socket.close()

    def send(self, sent: bytes) -> None:
        """Send it all, unless the server has already answered and closed."""
        self.sent += sent
        with suppress(ConnectionError):
            self.socket.sendall(sent)

    def end(self) -> None:
        """Close the sending side."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def receive(self, method: str = "GET") -> Answer | None:
        """The next answer (an interim one is passed over), or None if the server closed."""
        try:
            line = self.stream.readline()
        except ConnectionError:
            return None
        if not line:
            return None
        status, headers = int(line.split()[1]), dict(parse_headers(self.stream).items())
        if status == 100:
            return self.receive(method)
        empty = method == "HEAD" or status in {204, 304}
        body = b"" if empty else self.stream.read(int(headers["Content-Length"]))
        request = take_request(self.sent)
        self.answers.check(request, status, headers, None if method == "HEAD" else body)
        return Answer(status, headers, body)

    def is_closed(self) -> bool:
        """Whether the server hangs up rather than answers; waits for either."""
        try:
            return self.stream.read(1) == b""
        except ConnectionError:
            return True


class Service(Process):
    """One gunicorn on a free port of 127.0.0.1, with its log in a file."""

    answers = DESCRIBED
    cwd = ROOT

    def __init__(
        self,
        log: Path,
        *options: str,
        command: Sequence[str] = PROCFILE,
        limits: Callable[[], None] | None = None,
        **env: str,
    ) -> None:
        settings = {**plain_environ(), "HASHER_HOST": "127.0.0.1", "PORT": "0", **env}
        program: list[str | Path] = [BIN / command[0], *command[1:], *options]
        super().__init__(program, log, self.cwd, settings, preexec_fn=limits)
        log.unlink(missing_ok=True)
        self.start()
        self.port = 0

    def __enter__(self) -> Self:
        try:
            until(self.is_listening)
            until(self.is_answering)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def is_listening(self) -> bool:
        """Whether the server has said on which port."""
        assert self.runs(), self.log
        found = re.search(r"(?:Listening at:|Running on) http://127\.0\.0\.1:(\d+)", self.log)
        self.port = int(found[1]) if found else 0
        return found is not None

    def is_answering(self) -> bool:
        """Whether a worker answers."""
        try:
            return self.request("GET", "/healthz").status == 200
        except OSError:
            return False

    @property
    def log(self) -> str:
        """Everything logged so far."""
        return self.log_file.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        self.process.send_signal(number)

    def workers(self) -> list[int]:
        """The process ids of the workers that run now, in the order in which they were booted."""
        booted = [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log)]
        return [pid for pid in booted if is_running(pid)]

    def connect(self) -> Client:
        """A connection on which nothing was sent yet."""
        return Client(self.port, self.answers)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        """One request on a connection of its own; its answer is as the description says.

        A body in parts is sent in chunks.
        """
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            answer = Answer(response.status, dict(response.getheaders()), response.read())
            read = None if method == "HEAD" else answer.body
            self.answers.check((method, path), answer.status, answer.headers, read)
            return answer
        finally:
            connection.close()

    def post(self, message: str, timeout: float = PATIENCE) -> Answer:
        """Store a message, as JSON."""
        body = json.dumps({"message": message}).encode()
        return self.request(
            "POST", "/messages", body, {"Content-Type": "application/json"}, timeout
        )

    def get(self, name: str, timeout: float = PATIENCE) -> Answer:
        """Read a message, as JSON."""
        return self.request("GET", f"/messages/{name}", timeout=timeout)

    def exchange(self, sent: bytes, method: str = "GET", *, end: bool = False) -> Answer | None:
        """The answer to raw bytes; `end` closes the sending side behind them."""
        with self.connect() as client:
            client.send(sent)
            if end:
                client.end()
            return client.receive(method)

    def assert_recovers(self, within: float = 2.0) -> None:
        """Fail unless every worker stores messages again within so many seconds."""
        until(
            lambda: {self.post(f"{n} {time.time_ns()}").status for n in range(20)} == {201}, within
        )
        self.assert_well()

    def assert_well(self, within: float = 3.0) -> None:
        """Fail unless a new message can be stored and read within so many seconds."""
        started = time.monotonic()
        message = f"well at {time.time_ns()}"
        name = sha256(message.encode()).hexdigest()
        assert self.post(message, within).json == {"digest": name}
        assert self.get(name, within).json == {"message": message}
        assert time.monotonic() - started < within


def refused_start(*command: str, **env: str) -> tuple[int, list[str]]:
    """The exit status of a start that should fail, and its lines that are not make's or [INFO]."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**plain_environ(), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    finally:
        with suppress(ProcessLookupError):  # unless it has started after all
            os.killpg(process.pid, signal.SIGKILL)
    lines = said.splitlines()
    return process.returncode, [line for line in lines if not re.match(r"make|.*\[INFO\]", line)]


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
