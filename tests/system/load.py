"""Clients that write and read for as long as a test does something to the service."""

import threading
import time
from collections import Counter
from hashlib import sha256
from http.client import HTTPException
from typing import Self

from tests.system.service import Service


class Load:
    """Threads that each store a new message, read it back at once, and count what happens.

    A request that gets no answer counts as "failed"; one that the service refuses, as its status.
    """

    def __init__(self, service: Service, clients: int = 8) -> None:
        self.service = service
        self.outcomes: Counter[object] = Counter()
        self.acknowledged: list[str] = []
        self.slowest = 0.0
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

    @property
    def sent(self) -> int:
        """How many requests were sent so far."""
        return sum(self.outcomes.values())

    def has_sent(self, count: int) -> bool:
        """Whether so many requests were sent."""
        return self.sent >= count

    def _client(self, number: int) -> None:
        count = 0
        while not self._stopped.is_set():
            text = f"client {number} message {count} at {time.time_ns()}"
            if self._send("POST", text) in {200, 201}:
                self.acknowledged.append(text)
                self._send("GET", text)
            count += 1

    def _send(self, method: str, text: str) -> object:
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
        with self._lock:
            self.outcomes[outcome] += 1
            self.slowest = max(self.slowest, time.monotonic() - started)
        return outcome

    def lost(self) -> list[str]:
        """The acknowledged messages that cannot be read now."""
        return [
            text
            for text in self.acknowledged
            if self.service.get(sha256(text.encode()).hexdigest()).status != 200
        ]

    def said(self) -> str:
        """The outcome in a row of figures."""
        counts = ", ".join(
            f"{what}: {count}" for what, count in sorted(self.outcomes.items(), key=str)
        )
        return f"{self.sent} sent ({counts}), slowest {self.slowest:.2f} s"
