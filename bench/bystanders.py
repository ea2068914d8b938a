"""Good clients, whose requests are timed while hostile clients do what they can.

Each posts a small text and reads it back, again and again: half of them on one connection, and half
on a new one for each request.
"""

import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

CLIENTS = 4
PAUSE = 0.005  # seconds between two requests of one client
TIMEOUT = 10.0  # seconds after which a request has failed
HOST = ("127.0.0.1", "Host: localhost\r\n")
FAULTS = (OSError, AssertionError, ValueError, KeyError, IndexError)


@dataclass
class Seen:
    """What the good clients have seen."""

    seconds: list[float] = field(default_factory=list)
    """How long each request took, failed ones included."""
    faults: list[str] = field(default_factory=list)

    def within(self, share: float) -> float:
        """Return the seconds within which this share of the requests was answered."""
        ranked = sorted(self.seconds) or [float("inf")]
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


class Bystander:
    """One good client, on one connection if it `keeps` that."""

    def __init__(self, port: int, name: str, *, keeps: bool) -> None:
        self.port, self.name, self.keeps = port, name, keeps
        self.sock: socket.socket | None = None
        self.count = 0
        self.digest = ""

    def step(self) -> None:
        """Post a text, or read back the one that was posted last. A fault is an exception."""
        text = f"{self.name} {self.count // 2}"
        if self.count % 2 == 0:
            fields = f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
            answer = self.ask(f"POST /messages HTTP/1.1\r\n{HOST[1]}{fields}\r\n{text}")
            self.digest = answer["digest"]
        else:
            answer = self.ask(f"GET /messages/{self.digest} HTTP/1.1\r\n{HOST[1]}\r\n")
            assert answer["message"] == text, "another text"  # noqa: S101 - a fault among others
        self.count += 1

    def ask(self, request: str) -> dict[str, str]:
        """Return the answer to a request, decoded."""
        try:
            if self.sock is None:
                self.sock = socket.create_connection((HOST[0], self.port), timeout=TIMEOUT)
            self.sock.sendall(request.encode())
            head, body = self.receive(self.sock)
        except OSError:
            self.hang_up()
            raise
        if not self.keeps or "connection: close" in head.lower():
            self.hang_up()
        status = head.split()[1]
        assert status in {"200", "201"}, f"status {status}"  # noqa: S101 - a fault among others
        answer: dict[str, str] = json.loads(body)
        return answer

    def receive(self, sock: socket.socket) -> tuple[str, bytes]:
        """Return the head of the next answer, and its body."""
        received = b""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            head, end, body = received.partition(b"\r\n\r\n")
            if end and len(body) >= length_of(head):
                return head.decode("latin-1"), body
            if not (data := sock.recv(65536)):
                raise ConnectionError("closed without an answer")
            received += data
        raise TimeoutError("the answer came too slowly")

    def hang_up(self) -> None:
        """End the connection, if there is one."""
        if self.sock is not None:
            with suppress(OSError):
                self.sock.close()
            self.sock = None


def length_of(head: bytes) -> int:
    """Return how many bytes of body follow this head."""
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n")[0] or 0)


def watch(client: Bystander, until: float, seen: Seen, lock: threading.Lock) -> None:
    """Let one client ask until then, and note how it fares."""
    while time.monotonic() < until:
        begin, fault = time.monotonic(), ""
        try:
            client.step()
        except FAULTS as error:
            fault = f"{type(error).__name__}: {error}"
            client.count += client.count % 2  # to the next text
            client.hang_up()
        with lock:
            seen.seconds.append(time.monotonic() - begin)
            seen.faults += [fault] if fault else []
        time.sleep(PAUSE)
    client.hang_up()


def run(port: int, seconds: float, result: Connection) -> None:
    """Let all clients ask for so long, and send what they have seen: a process of its own."""
    seen, lock, until = Seen(), threading.Lock(), time.monotonic() + seconds
    name = str(time.time_ns())
    clients = [Bystander(port, f"{name} {n}", keeps=n % 2 == 0) for n in range(CLIENTS)]
    threads = [threading.Thread(target=watch, args=(one, until, seen, lock)) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.send(seen)
