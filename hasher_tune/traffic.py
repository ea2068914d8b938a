"""What clients ask for: a mix of reads, writes and repeats, given or taken from an access log."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

from hasher_tune.seeds import digest_of, line, message
from hasher_tune.servers import Failed

WRITTEN = {200, 201}
ONE = len(line("digest", digest_of("")))  # bytes of an answer to one message
LINES = 1_000_000  # of an access log; what is behind them changes the mix no more


@dataclass(frozen=True)
class Mix:
    """The shares of kinds of requests, and the sizes of messages."""

    reads: float
    """The share of requests that read a message."""
    repeats: float = 0.0
    """The share of writes whose message is stored already."""
    missing: float = 0.0
    """The share of reads of a message that is not stored."""
    sizes: tuple[int, ...] = (100,)
    """The bytes of messages, one of which is as likely as the next."""

    def __str__(self) -> str:
        return (
            f"{self.reads:.0%} reads ({self.missing:.0%} of nothing stored), writes of which "
            f"{self.repeats:.0%} repeat, {sum(self.sizes) / len(self.sizes):,.0f} bytes a message"
        )


MIXES = {"reads": Mix(1.0), "writes": Mix(0.0), "mixed": Mix(0.8)}


def recorded(lines: Iterable[str]) -> Mix:
    """Return the mix of an access log that hasher wrote with HASHER_ACCESS_LOG=json.

    Other lines, and requests that are not for a message or are for many, are skipped. Failed if
    nothing is left.
    """
    reads: list[int] = []
    writes: list[int] = []
    sizes: list[int] = []
    for _, record in zip(range(LINES), records(lines), strict=False):
        if record["method"] == "POST" and record["status"] in WRITTEN and record["sent"] == ONE:
            writes.append(record["status"])
            sizes.append(max(0, record["received"] - len('{"message":""}')))
        elif record["method"] == "GET" and record["status"] in {200, 304, 404}:
            reads.append(record["status"])
    if not reads and not writes:
        raise Failed("no request for a message in that log: HASHER_ACCESS_LOG=json writes one")
    return Mix(
        reads=len(reads) / (len(reads) + len(writes)),
        repeats=share(200, writes),
        missing=share(404, reads),
        sizes=tuple(random.Random(1).sample(sizes, min(1000, len(sizes)))) or (100,),
    )


def records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the requests for messages in a log."""
    for text in lines:
        try:
            record = json.loads(text)
            if str(record["route"]).startswith("/messages"):
                yield record
        except (ValueError, TypeError, LookupError):
            continue


def share(status: int, statuses: Sequence[int]) -> float:
    """Return the share of `status` in `statuses`."""
    return statuses.count(status) / len(statuses) if statuses else 0.0


def seeds_of(mix: Mix) -> list[str]:
    """Return the messages to store before the first request."""
    chance = random.Random(1)
    return [message(number, chance.choice(mix.sizes)) for number in range(1000)]


@cache
def of_seeds(mix: Mix) -> tuple[list[bytes], list[bytes]]:
    """Return a request that reads each of the seeds, and one that writes it."""
    texts = seeds_of(mix)
    return [get(digest_of(text)) for text in texts], [post(text) for text in texts]


def requests(mix: Mix, tag: str) -> Iterator[bytes]:
    """Yield requests without end. No other client may have `tag`: it makes messages new."""
    chance = random.Random(tag)
    gets, posts = of_seeds(mix)
    fillers = ["x" * max(0, size - len(tag) - 10) for size in mix.sizes]
    for number in count():
        text = f"{tag}{number:010d}"
        if chance.random() < mix.reads:
            yield get(digest_of(text)) if chance.random() < mix.missing else chance.choice(gets)
        elif chance.random() < mix.repeats:
            yield chance.choice(posts)
        else:
            yield post(text + chance.choice(fillers))


def get(digest: str) -> bytes:
    """Return a request that reads."""
    return f"GET /messages/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(text: str) -> bytes:
    """Return a request that writes."""
    body = f'{{"message":"{text}"}}'
    head = "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
