"""The messages that are stored before anything is measured, by a client that checks the answers."""

from collections.abc import Iterable
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from typing import Self

from hasher_tune.servers import Failed

PATIENCE = 60.0  # seconds

Answer = tuple[int, bytes]


class Client:
    """A client on one connection that stays open, for a `with` block."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def get(self, name: str) -> Answer:
        """Status and body of a read."""
        return self._exchange("GET", f"/messages/{name}")

    def post(self, body: bytes, kind: str = "json") -> Answer:
        """Status and body of a POST of application/`kind`."""
        return self._exchange("POST", "/messages", body, {"Content-Type": f"application/{kind}"})

    def _exchange(self, method: str, path: str, *content: object) -> Answer:
        try:
            self.connection.request(method, path, *content)  # type: ignore[arg-type]
            response = self.connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as error:
            raise Failed(f"{method}: {error!r}") from None


def message(number: int, size: int = 100) -> str:
    """The seed of that number, of so many bytes, unlike any message that wrk sends."""
    return f"seed {number:010d} ".ljust(size, "y")


def line(key: str, value: str) -> bytes:
    """A JSON object of one plain text, as every contender writes it."""
    return f'{{"{key}":"{value}"}}\n'.encode()


def digest_of(text: str) -> str:
    """The digest of a message."""
    return sha256(text.encode()).hexdigest()


def store_all(port: int, texts: Iterable[str]) -> None:
    """Store these plain texts; Failed if one is refused."""
    with Client(port) as client:
        for text in texts:
            status, answer = client.post(line("message", text))
            if status not in {200, 201}:
                raise Failed(f"a message was answered with {status}: {answer[:100]!r}")
