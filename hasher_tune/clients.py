"""Clients that send at a pace of their own, and count the time from when a request was due.

wrk, hey and h2load send again only when they were answered: while a server stands still, they wait
with it, and do not count the requests that should have come meanwhile (Gil Tene's coordinated
omission). When a server stood still for half a second of six, `h2load --rps` reported a mean of 2
ms; it was 21 ms. vegeta and oha do better; neither Debian nor PyPI has them.
"""

import gc
import os
import re
import secrets
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf
from multiprocessing import get_context
from typing import Self

from hasher_tune.traffic import Mix, of_seeds, requests

WARM = 0.1  # the share of the time that warms up, and is not counted
TIMEOUT = 10.0  # seconds
REST = rb") .*?\r\n[Cc]ontent-[Ll]ength: (\d+)\r\n(?:.*?\r\n)??\r\n"
GOOD = re.compile(rb"HTTP/1\.1 (200|201" + REST, re.DOTALL)
MISSING = re.compile(rb"HTTP/1\.1 (200|201|404" + REST, re.DOTALL)
END = b"\r\n\r\n"
READ = 2**18


@dataclass(frozen=True)
class Step:
    """Requests that are due at `rate` a second; a rate of None keeps all connections busy."""

    seconds: float
    rate: float | None = None


@dataclass(frozen=True)
class Plan:
    """What a client does."""

    port: int
    mix: Mix
    steps: tuple[Step, ...]
    connections: int
    patience: float = inf
    """Seconds: once the 99th percentile of a step's latencies is above it, no other step begins."""


@dataclass
class Answers:
    """The answers of a step: latencies in seconds, inf for a request that failed."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return sum(1 for latency in self.latencies if latency < inf) / self.seconds

    @property
    def p99(self) -> float:
        """The 99th percentile of the latencies; inf if nothing was asked."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] if ordered else inf


class Connection:
    """A connection that carries one request at a time."""

    def __init__(self, port: int, poll: select.epoll) -> None:
        self._port, self._poll = port, poll
        self._open()

    def _open(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = self._socket.fileno()
        self._poll.register(self.number, select.EPOLLIN)
        self._received = b""

    def ask(self, request: bytes, due: float, answers: Answers) -> None:
        """Send a request that was due at time `due`; its answer belongs to `answers`."""
        self.due, self.answers = due, answers
        with suppress(OSError):  # reading then says it too
            self._socket.sendall(request)

    def is_good(self, good: re.Pattern[bytes]) -> bool | None:
        """Read what has come; return whether the answer is good, or None if it is not yet whole."""
        try:
            new = self._socket.recv(READ)
        except OSError:
            return False
        self._received += new
        found = good.match(self._received)
        if not found:
            return None if new and END not in self._received else False
        if len(self._received) < found.end() + int(found[2]):
            return None if new else False
        self._received = b""
        return True

    def renew(self) -> None:
        """Connect again, after a failure."""
        self.close()
        self._open()

    def close(self) -> None:
        """Hang up."""
        self._poll.unregister(self.number)
        self._socket.close()


class Client:
    """The connections of a plan to a server, and the requests that are due on them."""

    def __init__(self, plan: Plan, tag: str) -> None:
        self._plan, self._requests = plan, requests(plan.mix, tag)
        self._good = MISSING if plan.mix.missing else GOOD
        self._poll = select.epoll()
        found = [Connection(plan.port, self._poll) for _ in range(plan.connections)]
        self._connections = {one.number: one for one in found}
        self._idle = found
        self._due: deque[tuple[float, Answers]] = deque()
        self._counted: Answers | None = None
        """What the next request counts for, if it is due as soon as one is answered."""

    def run(self) -> list[Answers]:
        """Do what the plan says; return the answers of each step that has begun."""
        if self._plan.steps[0].rate is None:
            return [self._keep_busy(self._plan.steps[0].seconds)]
        found: list[Answers] = []
        begin = time.monotonic()
        for step in self._plan.steps:
            found.append(Answers(step.seconds))
            self._offer(begin, step, found[-1])
            begin += step.seconds
            self._work(begin)
            if self._lateness(found[-1], begin) > self._plan.patience:
                break
        self._await_last(begin + min(self._plan.patience, TIMEOUT))
        return found

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections.values():
            connection.close()
        self._poll.close()

    def _keep_busy(self, seconds: float) -> Answers:
        warm, counted = Answers(seconds * WARM), Answers(seconds * (1 - WARM))
        begin = time.monotonic()
        for answers, end in ((warm, warm.seconds), (counted, seconds)):
            self._counted = answers
            while self._idle:
                self._idle.pop().ask(next(self._requests), time.monotonic(), answers)
            self._work(begin + end)
        return counted

    def _offer(self, begin: float, step: Step, answers: Answers) -> None:
        """Let the requests of a step be due."""
        rate = step.rate or 0.0
        times = (begin + number / rate for number in range(round(step.seconds * rate)))
        self._due.extend((due, answers) for due in times)

    def _work(self, until: float) -> None:
        """Ask what is due, and take the answers, until that time."""
        while (now := time.monotonic()) < until:
            while self._due and self._idle and self._due[0][0] <= now:
                self._idle.pop().ask(next(self._requests), *self._due.popleft())
            wake = min(until, self._due[0][0]) if self._due and self._idle else until
            for number, _ in self._poll.poll(max(0.0, wake - time.monotonic())):
                self._take(self._connections[number])

    def _take(self, connection: Connection) -> None:
        good = connection.is_good(self._good)
        if good is None:
            return
        now = time.monotonic()
        connection.answers.latencies.append(now - connection.due if good else inf)
        if not good:
            del self._connections[connection.number]
            connection.renew()
            self._connections[connection.number] = connection
        if self._counted:
            connection.ask(next(self._requests), now, self._counted)
        else:
            self._idle.append(connection)

    def _outstanding(self) -> list[tuple[float, Answers]]:
        """Return when each request without an answer was due, whether it was sent or not."""
        idle = set(map(id, self._idle))
        asked = [one for one in self._connections.values() if id(one) not in idle]
        return [*((one.due, one.answers) for one in asked), *self._due]

    def _lateness(self, answers: Answers, now: float) -> float:
        """Return the 99th percentile of a step so far."""
        late = [now - due for due, step in self._outstanding() if step is answers]
        return Answers(1, answers.latencies + late).p99

    def _await_last(self, until: float) -> None:
        """Take the answers that still come; requests without one by then have failed."""
        while self._outstanding() and time.monotonic() < until:
            self._work(min(until, time.monotonic() + 0.01))
        for _, answers in self._outstanding():
            answers.latencies.append(inf)


def ask(plan: Plan, tag: str) -> tuple[list[Answers], float]:
    """Do a plan in this process; return its answers, and the seconds of a core that it took."""
    of_seeds(plan.mix)  # takes a moment the first time
    client = Client(plan, tag)
    spent = time.process_time()
    try:
        return client.run(), time.process_time() - spent
    finally:
        client.close()


def prepare(cores: Sequence[int]) -> None:
    """Make a process ready to measure: on these cores, without pauses of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the search ends them
    os.sched_setaffinity(0, cores)
    gc.disable()


class Clients:
    """Processes that send together, for a `with` block."""

    def __init__(self, processes: int, cores: Sequence[int]) -> None:
        self._processes, self._runs = processes, count()
        self._pool = ProcessPoolExecutor(
            processes, get_context("spawn"), initializer=prepare, initargs=(cores,)
        )
        self.cpu = self.seconds = 0.0
        """Seconds of a core that they took, and seconds that passed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(self, plan: Plan) -> list[Answers]:
        """Do a plan, each process its part; return the answers of each step that all have begun."""
        number = self._processes
        steps = tuple(replace(x, rate=x.rate and x.rate / number) for x in plan.steps)
        part = replace(plan, steps=steps, connections=max(1, plan.connections // number))
        tags = (f"{secrets.token_hex(6)}{next(self._runs):04d}" for _ in range(number))
        begin = time.monotonic()
        parts = list(self._pool.map(ask, [part] * number, tags))
        self.seconds += time.monotonic() - begin
        self.cpu += sum(cpu for _, cpu in parts)
        each = zip(*(answers for answers, _ in parts), strict=False)
        return [Answers(of[0].seconds, [x for y in of for x in y.latencies]) for of in each]
