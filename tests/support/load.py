"""Clients that write and read for as long as a test does something to the service."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from http.client import HTTPException
from typing import Self

from tests.support.servers import until
from tests.support.service import Service


class Load:
    """Threads that each store a new message, read it back at once, and count what happens.

    A request that gets no answer counts as "failed"; one that the service refuses, as its status.
    An answer that is not as described counts as "undescribed", and fails the test at the end.
    """

    def __init__(self, service: Service, clients: int = 8) -> None:
        self.service = service
        self.outcomes: Counter[object] = Counter()
        self.acknowledged: list[str] = []
        self.durations: list[float] = []
        self.undescribed: list[AssertionError] = []
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        if self.undescribed:
            raise self.undescribed[0]

    @property
    def sent(self) -> int:
        """How many requests were sent so far."""
        return sum(self.outcomes.values())

    @property
    def slowest(self) -> float:
        """How long the slowest answer took, in seconds."""
        return max(self.durations, default=0.0)

    @property
    def p99(self) -> float:
        """How long at most the fastest 99 % of the answers took, in seconds."""
        return sorted(self.durations)[len(self.durations) * 99 // 100]

    @property
    def failures(self) -> dict[object, int]:
        """What was neither 200 nor 201, with how often."""
        return {what: count for what, count in self.outcomes.items() if what not in {200, 201}}

    def has_sent(self, count: int) -> bool:
        """Whether so many requests were sent."""
        return self.sent >= count

    def _client(self, number: int) -> None:
        count = 0
        while not self._stopped.is_set():
            self.act(number, count)
            count += 1

    def act(self, number: int, count: int) -> None:
        """What a client does, again and again."""
        text = f"client {number} message {count} at {time.time_ns()}"
        if self.send("POST", text) in {200, 201}:
            self.acknowledged.append(text)
            self.send("GET", text)

    def send(self, method: str, text: str) -> object:
        """Send one request, and count what it comes to."""
        started = time.monotonic()
        name = sha256(text.encode()).hexdigest()
        outcome: object
        try:
            answer = self.service.post(text) if method == "POST" else self.service.get(name)
            outcome = answer.status
            if answer.status == 200 and method == "GET" and answer.json != {"message": text}:
                outcome = "altered"
        except (OSError, HTTPException):
            outcome = "failed"
        except AssertionError as error:
            outcome = "undescribed"
            self.undescribed.append(error)
        with self._lock:
            self.outcomes[outcome] += 1
            self.durations.append(time.monotonic() - started)
        return outcome

    def lost(self) -> list[str]:
        """The acknowledged messages that cannot be read now."""
        return [
            text
            for text in list(self.acknowledged)  # which may grow meanwhile
            if self.service.get(sha256(text.encode()).hexdigest()).status != 200
        ]

    def said(self) -> str:
        """The outcome in a row of figures."""
        counts = ", ".join(
            f"{what}: {count}" for what, count in sorted(self.outcomes.items(), key=str)
        )
        times = f"p99 {self.p99 * 1000:.0f} ms, slowest {self.slowest:.2f} s"
        return f"{self.sent} sent ({counts}), {times}"


class Reads(Load):
    """Threads that read messages that are stored already."""

    def __init__(self, service: Service, texts: Sequence[str], clients: int = 2) -> None:
        super().__init__(service, clients)
        self.texts = texts

    def act(self, number: int, count: int) -> None:
        """Read one of them."""
        self.send("GET", self.texts[count % len(self.texts)])


class KeptAlive:
    """Clients that read messages, each on a connection that it keeps, and never try again.

    `seen` has what they were answered since `reset`: pairs of a digest and a status, or None if
    there was no answer.
    """

    def __init__(self, service: Service, digests: Sequence[str], count: int = 32) -> None:
        self.service, self.digests = service, digests
        self.seen: set[tuple[str, int | None]] = set()
        self.ended = threading.Event()
        self.rounds = [0] * count
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(count)]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def run(self, number: int) -> None:
        """Read all messages, again and again, until the block ends."""
        client = self.service.connect()
        while not self.ended.is_set():
            for digest in self.digests:
                client.send(f"GET /messages/{digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                answer = client.receive()
                self.seen.add((digest, answer.status if answer else None))
                if answer is None or answer.headers["Connection"] == "close":
                    client.close()
                    client = self.service.connect()
            self.rounds[number] += 1
        client.close()

    def reset(self) -> None:
        """Forget what was answered to requests that were sent before now."""
        self.await_round()
        self.seen = set()
        self.await_round()

    def await_round(self) -> None:
        """Wait until each client has begun and ended a round."""
        ends = [before + 2 for before in self.rounds]
        until(lambda: all(n >= end for n, end in zip(self.rounds, ends, strict=True)))
