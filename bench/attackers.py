"""Hostile clients, each as bad as it can be, on raw sockets that never block.

What one client does is a generator of steps. When it is cut, or its steps end, another takes its
place, unless the kind of attack says otherwise.
"""

import heapq
import os
import resource
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

HOST = "127.0.0.1"
PART = 256 * 1024  # bytes that one client sends before it is the next one's turn
GLANCE = 0.2  # seconds between two looks whether the attack is over
AGAIN = 0.02  # seconds until a cut client is replaced
LEFT = 300  # connections that are left open at most, without a client that minds them
NICE = 10  # so that the server has a core


@dataclass(frozen=True)
class Send:
    """Send these bytes as fast as the server takes them."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Do nothing for so long."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """Wait for an answer."""


@dataclass(frozen=True)
class HalfClose:
    """Send no more."""


@dataclass(frozen=True)
class Leave:
    """Leave this connection as it is, and go on with another."""


Step = Send | Pause | Answer | HalfClose | Leave
Steps = Iterator[Step]
SILENCE = Pause(3600.0)


@dataclass(frozen=True)
class Part:
    """So many clients that do the same."""

    count: int
    steps: Callable[["Target"], Steps]
    reads: bool = True
    """Whether they take answers."""
    returns: bool = True
    """Whether others take the places of those that were cut."""
    patience: float | None = None
    """Seconds after which a client of which the server takes nothing is replaced."""


@dataclass(frozen=True)
class Target:
    """What is attacked."""

    port: int
    large: str
    """The path of a stored message of 1 MiB."""
    small: str
    """The path of a small one."""


@dataclass
class Done:
    """What an attack has done."""

    connections: int = 0
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)

    def __str__(self) -> str:
        said = ", ".join(f"{count} × {status}" for status, count in sorted(self.statuses.items()))
        return f"{self.connections} conns, {self.sent / 1e6:.0f} MB, {said or 'no answer'}"


class Attacker:
    """One client, on one connection after the other."""

    def __init__(self, crowd: "Crowd", part: Part) -> None:
        self.crowd, self.part = crowd, part
        self.sock: socket.socket | None = None
        self.turn = 0
        """Tells timers of an earlier step, or connection, from those of this one."""

    def begin(self) -> None:
        """Connect, and take the first step."""
        self.sock = sock = socket.socket()
        sock.setblocking(False)  # noqa: FBT003 - the standard library's
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.part.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.crowd.done.connections += 1
        self.received = b""
        self.data = memoryview(b"")
        self.waits, self.registered = False, 0
        self.steps = self.part.steps(self.crowd.target)
        with suppress(BlockingIOError):
            sock.connect((HOST, self.crowd.target.port))
        self.go_on()

    def go_on(self) -> None:
        """Take the next step."""
        self.turn += 1
        step = next(self.steps, None)
        if isinstance(step, Send):
            self.data = memoryview(step.data)
            if self.part.patience is not None:
                self.crowd.call(self.part.patience, self, self.turn, self.end)
        elif isinstance(step, Pause):
            self.crowd.call(step.seconds, self, self.turn, self.go_on)
        elif isinstance(step, HalfClose):
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
            self.go_on()
        elif isinstance(step, Answer):
            self.waits = True
            self.take_answer()
        elif isinstance(step, Leave):
            self.leave()
        else:
            self.end()
        self.listen()

    @property
    def socket(self) -> socket.socket:
        """Return the present connection."""
        if self.sock is None:
            raise OSError("There is no connection.")
        return self.sock

    def listen(self) -> None:
        """Wait for what the present step needs."""
        if self.sock is None:
            return
        wanted = selectors.EVENT_READ if self.part.reads else 0
        wanted |= selectors.EVENT_WRITE if self.data else 0
        if wanted == self.registered:
            return
        if not self.registered:
            self.crowd.selector.register(self.sock, wanted, self)
        elif wanted:
            self.crowd.selector.modify(self.sock, wanted, self)
        else:
            self.crowd.selector.unregister(self.sock)
        self.registered = wanted

    def on_event(self, events: int) -> None:
        """Receive and send what can be received and sent."""
        try:
            if events & selectors.EVENT_READ and not self.receive():
                self.end()
                return
            if events & selectors.EVENT_WRITE and self.data:
                self.send()
        except BlockingIOError:
            pass
        except OSError:
            self.end()

    def send(self) -> None:
        """Send some, and take the next step if that was the rest."""
        sent = self.socket.send(self.data[:PART])
        self.crowd.done.sent += sent
        self.data = self.data[sent:]
        if not self.data:
            self.go_on()
        elif self.part.patience is not None:
            self.turn += 1
            self.crowd.call(self.part.patience, self, self.turn, self.end)

    def receive(self) -> bool:
        """Receive some; return whether the server goes on."""
        data = self.socket.recv(PART)
        self.received += data
        self.take_answer()
        return bool(data)

    def take_answer(self) -> None:
        """Count an answer that has come, and take the next step if this one waits for it."""
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        _, _, length = head.lower().partition(b"content-length:")
        size = int(length.split(b"\r\n")[0] or 0)
        status = int(head[9:12])
        if len(body) < size:
            return
        self.received = body[size:]
        self.crowd.done.statuses[status] += 1
        if self.waits and status >= 200:
            self.waits = False
            self.go_on()

    def leave(self) -> None:
        """Hang up later, when many have been left."""
        self.crowd.left.append(self.socket.dup())
        if len(self.crowd.left) > LEFT:
            self.crowd.left.popleft().close()
        self.end()

    def end(self) -> None:
        """Hang up; another takes the place after a moment."""
        if self.sock is None:
            return
        if self.registered:
            self.crowd.selector.unregister(self.sock)
        self.sock.close()
        self.sock = None
        self.turn += 1
        if self.part.returns:
            self.crowd.call(AGAIN, self, self.turn, self.begin)


class Crowd:
    """All clients of one attack, in one thread."""

    def __init__(self, target: Target, parts: tuple[Part, ...]) -> None:
        self.target, self.done = target, Done()
        self.selector = selectors.DefaultSelector()
        self.timers: list[tuple[float, int, Attacker, int, Callable[[], None]]] = []
        self.left: deque[socket.socket] = deque()
        self.number = 0
        self.clients = [Attacker(self, part) for part in parts for _ in range(part.count)]

    def call(self, seconds: float, client: Attacker, turn: int, what: Callable[[], None]) -> None:
        """Have `what` done after so long, if the client is still in that turn."""
        self.number += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.number, client, turn, what))

    def run(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """Attack for so long at most."""
        until = time.monotonic() + seconds
        for number, client in enumerate(self.clients):
            self.call(number * 0.0005, client, client.turn, client.begin)
        while (now := time.monotonic()) < until and not is_over():
            self.run_timers(now)
            first = self.timers[0][0] if self.timers else until
            wait = max(0.0, min(first - time.monotonic(), GLANCE))
            for key, events in self.selector.select(wait):
                key.data.on_event(events)

    def run_timers(self, now: float) -> None:
        """Do what is due."""
        while self.timers and self.timers[0][0] <= now:
            _, _, client, turn, what = heapq.heappop(self.timers)
            if client.turn == turn:
                try:
                    what()
                except OSError:
                    client.end()


@dataclass(frozen=True)
class Attack:
    """A kind of attack."""

    name: str
    parts: tuple[Part, ...]
    quiet: str = ""
    """When CPU time is measured without good clients: `before` them, `after` them, or not."""
    most_cpu: float = 1.0
    """The share of a core that the workers may take then."""
    statuses: tuple[int, ...] = ()
    """The only ones that may come back, if any."""


def run(kind: Attack, target: Target, seconds: float, result: Connection) -> None:
    """Attack for so long at most, or until told to stop: a process of its own."""
    os.nice(NICE)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(target, kind.parts)
    crowd.run(seconds, result.poll)
    result.send(crowd.done)
