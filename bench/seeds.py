"""The messages that are stored before anything is measured, by a client that checks the answers."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.load import BULK
from hasher_tune.seeds import Answer, Client, digest_of, line, message
from hasher_tune.servers import Failed

SEEDS = 1000  # stored before every measurement
SAMPLE = 100_000  # of more that are stored, so many are read
CLIENTS = 8


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
