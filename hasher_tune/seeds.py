"""Messages that are stored before anything is measured, by a client that checks the answers."""

from collections.abc import Iterable
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from typing import Self

from hasher_tune.servers import Failed

PATIENCE = 60.0  # seconds


class Client:
    """A client on one connection that stays open, for a `with` block."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def get(self, digest: str, status: int, body: bytes) -> None:
        """Read. Failed unless the answer has this status and body."""
        self._expect([status], body, "GET", f"/messages/{digest}")

    def post(self, sent: bytes, statuses: Iterable[int], body: bytes, kind: str = "json") -> None:
        """Write application/`kind`. Failed unless it is answered with `statuses` and `body`."""
        headers = {"Content-Type": f"application/{kind}"}
        self._expect(statuses, body, "POST", "/messages", sent, headers)

    def _expect(self, statuses: Iterable[int], body: bytes, *request: object) -> None:
        try:
            self.connection.request(*request)  # type: ignore[arg-type]
            response = self.connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as error:
            raise Failed(f"{request[0]}: {error!r}") from None
        if response.status not in statuses or answer != body:
            raise Failed(f"{request[0]} was answered with {response.status}: {answer[:100]!r}")


def message(number: int, size: int = 100) -> str:
    """Return the seed of this number, of `size` bytes, unlike any message that is not a seed."""
    return f"seed {number:010d} ".ljust(size, "y")


def line(key: str, value: str) -> bytes:
    """Return a JSON object with one plain text, as every contender writes it."""
    return f'{{"{key}":"{value}"}}\n'.encode()


def lines(key: str, values: Iterable[str]) -> bytes:
    """Return a JSON object for each of `values`, one a line."""
    return b"".join(line(key, value) for value in values)


def digest_of(text: str) -> str:
    """Return the digest of a message."""
    return sha256(text.encode()).hexdigest()


def store_all(port: int, texts: Iterable[str]) -> None:
    """Store these plain texts, and read each."""
    with Client(port) as client:
        for text in texts:
            client.post(line("message", text), [200, 201], line("digest", digest_of(text)))
            client.get(digest_of(text), 200, line("message", text))
