"""Clients that ask again and again for as long as a test does something to a server."""

import threading
from collections import Counter
from typing import Self

from tests.leader_worker.server import HELLO, Client


class Load:
    """Threads that ask, each on one connection, or on a new one each time, and count outcomes."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        request: bytes = HELLO,
        *,
        new: bool,
        clients: int = 4,
    ) -> None:
        self.address, self.request, self.new = address, request, new
        self.outcomes: Counter[str] = Counter()
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def run(self) -> None:
        """Ask until the load ends."""
        client: Client | None = None
        while not self.ended.is_set():
            try:
                client = client or Client(self.address)
                client.socket.sendall(self.request)
                answer = client.receive()
                outcome = str(answer.status)
                if self.new or answer.headers["Connection"] == "close":
                    client.close()
                    client = None
            except (OSError, AssertionError) as error:
                outcome, client = repr(error), None
            with self.lock:
                self.outcomes[outcome] += 1
        if client:
            client.close()

    @property
    def sent(self) -> int:
        """Return how many requests there were."""
        return sum(self.outcomes.values())
