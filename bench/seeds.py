"""The messages that are stored before anything is measured."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.load import BULK
from hasher_tune.seeds import Client, digest_of, line, lines, message, store_all

SEEDS = 1000  # stored before every measurement
SAMPLE = 100_000  # of more that are stored, so many are read
CLIENTS = 8


def check(port: int) -> None:
    """Failed unless the server says what hasher would: of a message unknown, new, and repeated."""
    text = "a message to check with"
    digest = digest_of(text)
    with Client(port) as client:
        client.get(digest, 404, line("error", "Message not found."))
        client.post(line("message", text), [201], line("digest", digest))
        client.post(line("message", text), [200], line("digest", digest))
        client.get(digest, 200, line("message", text))


def sow(port: int, digests: Path, size: int = 100) -> None:
    """Store seeds and read each: the warm-up. Their digests go to a file, one a line.

    They are SEEDS, or as many as have 10 MB together.
    """
    count = min(SEEDS, 10_000_000 // size)
    texts = [message(number, size) for number in range(count)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda first: store_all(port, texts[first::CLIENTS]), range(CLIENTS)))
    write_digests(digests, range(count), size)


def sow_many(port: int, count: int, digests: Path) -> None:
    """Store so many messages in bulk; digests of a sample, from all over, go to the file."""
    for first in range(0, count, BULK.messages):
        store_bulk(port, range(first, min(first + BULK.messages, count)))
    write_digests(digests, sample(count))


def store_bulk(port: int, numbers: range) -> None:
    """Store these seeds in one request."""
    texts = [message(number) for number in numbers]
    answer = lines("digest", map(digest_of, texts))
    with Client(port) as client:
        client.post(lines("message", texts), [200, 201], answer, "x-ndjson")


def sample(count: int) -> range:
    """About SAMPLE of so many seeds, from all over."""
    return range(0, count, max(1, count // SAMPLE))


def write_export(file: Path, count: int) -> None:
    """So many seeds as `flask store export` would write them."""
    with file.open("wb") as export:
        export.writelines(line("message", message(number)) for number in range(count))


def write_digests(file: Path, numbers: Iterable[int], size: int = 100) -> None:
    """The digests of these seeds, one a line."""
    file.write_text("".join(digest_of(message(number, size)) + "\n" for number in numbers))
