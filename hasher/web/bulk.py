"""Many messages in one request, a line of JSON for each: all lines are valid, or none is stored.

Memory is bounded: by the bytes and the lines of a request, by the few requests that a worker has
in hand, and by decoding a piece of a body at a time. A body is decoded twice, once to validate it
and once to store it, which is cheaper than keeping an object for each line.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from threading import BoundedSemaphore, Lock

import msgspec
from flask import abort

from hasher.settings import Settings
from hasher.stores import TakenDown
from hasher.stores.messages import digest_of
from hasher.telemetry.record import Environ, current
from hasher.web.bodies import POST, discard_body, from_json, read_body, utf8
from hasher.web.errors import TAKEN_DOWN

NEWLINE = b"\n"
PIECE = 256 * 1024  # bytes of lines decoded at once: other threads wait meanwhile


class BulkReader:
    """Reads the messages of bulk requests.

    One thread in four may have such a request in hand. One of them at a time decodes, hashes and
    stores: two would not be faster, since Python runs one thread at a time, and would make single
    messages wait twice as long.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_bulk_bytes
        self._max_lines = settings.max_bulk_messages
        self._max_message_bytes = settings.max_message_bytes
        self._slots = BoundedSemaphore(max(1, settings.threads // 4))
        self._turn = Lock()

    @contextmanager
    def messages(self, environ: Environ) -> Iterator["Lines"]:
        """Yield the messages in the lines of the body.

        Aborts as `read_body` does, with 413 if there are too many lines, and with 503 if too many
        bulk requests are in hand. The body is read even then: otherwise a client that is still
        sending it would see its connection reset, and no answer. If a message turns out to be taken
        down, it aborts with 410 and the number of the line.
        """
        current().before_wait()
        if not self._slots.acquire(blocking=False):
            discard_body(environ, self._max_bytes)
            abort(503, "Too many bulk requests are in hand; send this one again in a moment.")
        try:
            body = read_body(environ, self._max_bytes)
            with self._turn:
                yield self._lines(body)
        except TakenDown as error:
            abort(410, f"line {line_of(error.digest, body)}: {TAKEN_DOWN}")
        finally:
            self._slots.release()

    def _lines(self, body: bytes) -> "Lines":
        if lines_in(body) > self._max_lines:
            abort(413, f"The body is over the limit of {self._max_lines} lines.")
        if not body.strip():
            abort(400, "The body is empty.")
        return Lines(body, self._max_message_bytes)


class Lines:
    """The messages in the lines of `body`, as UTF-8, in their order, as often as they are iterated.

    Aborts with 400 and the number of a line that has no message, and with 413 if a message is over
    `limit` bytes.
    """

    def __init__(self, body: bytes, limit: int) -> None:
        self._body, self._limit = body, limit

    def __iter__(self) -> Iterator[bytes]:
        """Return an iterator over the messages, which decodes a piece of the body at a time."""
        return chain.from_iterable(decoded(self._body, self._limit))


def line_of(digest: str, body: bytes) -> int:
    """Return the number of the first line whose message has this digest."""
    lines = (line for piece in pieces(body) for line in piece.removesuffix(NEWLINE).split(NEWLINE))
    named = (line.strip() and digest_of(from_json(line)) for line in lines)
    return next(number for number, name in enumerate(named, 1) if name == digest)


def lines_in(body: bytes) -> int:
    """Return the number of lines, empty ones included."""
    return body.count(NEWLINE) + (not body.endswith(NEWLINE))


def decoded(body: bytes, limit: int) -> Iterator[list[bytes]]:
    """Yield the messages in the lines of `body`, those of a piece at a time.

    Aborts with 400 if a line has none, and with 413 if a message is over `limit` bytes.
    """
    first = 1
    for piece in pieces(body):
        yield from_lines(piece, first, limit)
        first += piece.count(NEWLINE)


def pieces(body: bytes) -> Iterator[bytes]:
    """Yield `body` in parts of whole lines, none much larger than PIECE or its one line."""
    start = 0
    while start < len(body):
        end = body.find(NEWLINE, start + PIECE) + 1 or len(body)
        yield body[start:end]
        start = end


def from_lines(lines: bytes, first: int, limit: int) -> list[bytes]:
    """Return the messages in `lines`, whose first has the number `first`. Aborts as `decoded`."""
    try:
        utf8(lines)
        messages = [post.message.encode() for post in POST.decode_lines(lines)]
    except (ValueError, msgspec.DecodeError, RecursionError):
        messages = []
    if are_one_a_line(messages, lines) and max(map(len, messages)) <= limit:
        return messages
    return one_by_one(lines, first, limit)


def are_one_a_line(messages: Sequence[bytes], lines: bytes) -> bool:
    """Return whether each of `messages` was decoded from a line of its own.

    msgspec takes several objects from a line, and one from several lines. In valid JSON, a closing
    and an opening brace have a line's end between them only at the border of two objects.
    """
    if not lines.startswith(b"{") or len(messages) != lines_in(lines):
        return False
    missing = len(messages) - 1 - lines.count(b"}\n{")
    return not missing or missing == lines.count(b"}\r\n{")


def one_by_one(lines: bytes, first: int, limit: int) -> list[bytes]:
    """Do as `from_lines`, more slowly: skip empty lines, and name the line that is wrong."""
    messages = []
    for number, line in enumerate(lines.split(NEWLINE), first):
        if not line.strip():
            continue
        try:
            messages.append(from_json(line, subject="it"))
        except ValueError as error:
            abort(400, f"line {number}: {error}")
        if len(messages[-1]) > limit:
            abort(413, f"line {number}: the message is over the limit of {limit} bytes.")
    return messages
