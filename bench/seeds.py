"""The messages that are stored before anything is measured, by a client that checks the answers."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self

from bench.load import BULK, Failed

SEEDS = 1000  # stored before every measurement
SAMPLE = 100_000  # of more that are stored, so many are read
CLIENTS = 8
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


def expect(answer: Answer, *expected: object) -> None:
    """Failed unless the answer is just that."""
    if answer != expected:
        raise Failed(f"it answered {answer} instead of {expected}")


def check(port: int) -> None:
    """Failed unless the server says what hasher would: of a message unknown, new, and repeated."""
    text = "a message to check with"
    name = digest_of(text)
    with Client(port) as client:
        expect(client.get(name), 404, line("error", "Message not found."))
        expect(client.post(line("message", text)), 201, line("digest", name))
        expect(client.post(line("message", text)), 200, line("digest", name))
        expect(client.get(name), 200, line("message", text))


def sow(port: int, digests: Path, size: int = 100) -> None:
    """Store seeds and read each: the warm-up. Their digests go to a file, one a line.

    They are SEEDS, or as many as have 10 MB together.
    """
    count = min(SEEDS, 10_000_000 // size)
    with ThreadPoolExecutor(CLIENTS) as pool:
        shares = [range(first, count, CLIENTS) for first in range(CLIENTS)]
        list(pool.map(lambda numbers: store_and_read(port, numbers, size), shares))
    write_digests(digests, range(count), size)


def store_and_read(port: int, numbers: Iterable[int], size: int) -> None:
    """Store these seeds and read each, on one connection; Failed if an answer is not right."""
    with Client(port) as client:
        for number in numbers:
            text = message(number, size)
            name = digest_of(text)
            expect(client.post(line("message", text)), 201, line("digest", name))
            expect(client.get(name), 200, line("message", text))


def store_all(port: int, texts: Iterable[str]) -> None:
    """Store these plain texts; Failed if one is refused."""
    with Client(port) as client:
        for text in texts:
            status, answer = client.post(line("message", text))
            if status not in {200, 201}:
                raise Failed(f"a message was answered with {status}: {answer[:100]!r}")


def sow_many(port: int, count: int, digests: Path) -> None:
    """Store so many messages in bulk; digests of a sample, from all over, go to the file."""
    require_bulk(port)
    with Client(port) as client:
        for first in range(0, count, BULK.messages):
            numbers = range(first, min(first + BULK.messages, count))
            body = b"".join(line("message", message(number)) for number in numbers)
            status, answer = client.post(body, "x-ndjson")
            if status not in {200, 201} or answer.count(b"\n") != len(numbers):
                raise Failed(f"bulk was answered with {status}: {answer[:100]!r}")
    write_digests(digests, sample(count))


def require_bulk(port: int) -> None:
    """Failed where the server takes no application/x-ndjson, or answers it wrongly."""
    texts = ["a first line to check with", "a second"]
    with Client(port) as client:
        status, body = client.post(b"".join(line("message", text) for text in texts), "x-ndjson")
    if status == 415:
        raise Failed("not offered")
    if status not in {200, 201} or body != b"".join(line("digest", digest_of(t)) for t in texts):
        raise Failed(f"bulk was answered with {status}: {body[:100]!r}")


def sample(count: int) -> range:
    """About SAMPLE of so many seeds, from all over."""
    return range(0, count, max(1, count // SAMPLE))


def write_export(file: Path, count: int) -> None:
    """So many seeds as `flask store export` would write them."""
    with file.open("wb") as lines:
        lines.writelines(line("message", message(number)) for number in range(count))


def write_digests(file: Path, numbers: Iterable[int], size: int = 100) -> None:
    """The digests of these seeds, one a line."""
    file.write_text("".join(digest_of(message(number, size)) + "\n" for number in numbers))
