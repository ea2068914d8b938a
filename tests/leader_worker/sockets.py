"""The worker against gunicorn's own gthread, at sockets: both must answer alike.

`python -m tests.leader_worker.sockets 100000` sends so many random streams of requests, in random
packets, to both, says how many answers were alike and which differences were wanted, and stops at
the first that is not. A seed may follow.
"""

import json
import random
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from tests.leader_worker.server import Server
from tests.leader_worker.streams import packets, stream

AT_ONCE = 32  # streams that are under way
TIMEOUT = 10.0  # seconds in which a connection has to end
CHANGING = ("REMOTE_PORT", "SERVER_PORT")  # in the environ
DRAINED = 50_000  # bytes of a body, about, that gthread reads for an application that does not
OPTIONS = ("--threads", "8", "--keep-alive", "20")


@dataclass(frozen=True)
class Answer:
    """What is compared of an answer: of refusals, the server's own text is not."""

    status: int
    body: bytes | None
    closes: bool


@dataclass
class Outcome:
    """What came back on one connection."""

    answers: list[Answer]
    continues: int
    """How often the client was told to go on with a body."""
    end: str
    """How it ended: `end`, `reset` or `open`."""
    left: bytes
    """What is no whole answer."""

    @property
    def key(self) -> Any:
        """Return what must be alike."""
        return self.answers, self.left, self.end == "open"


@dataclass
class Difference:
    """Two servers that answer the same stream otherwise."""

    sent: bytes
    ours: Outcome
    theirs: Outcome

    @cached_property
    def requests(self) -> list[Any]:
        """Return the requests in the stream, as gunicorn's parser reads them."""
        return list(requests_in(self.sent))

    @cached_property
    def index(self) -> int:
        """Return the number of the first answer that differs, from 0."""
        pairs = enumerate(zip(self.ours.answers, self.theirs.answers, strict=False))
        shorter = min(len(self.ours.answers), len(self.theirs.answers))
        return next((number for number, (a, b) in pairs if a != b), shorter)

    @property
    def request(self) -> Any:
        """Return the request to which the first answer that differs was given, if it is one."""
        return self.requests[self.index] if self.index < len(self.requests) else None

    @property
    def mine(self) -> Answer | None:
        """Return our answer there."""
        return self.ours.answers[self.index] if self.index < len(self.ours.answers) else None

    @property
    def other(self) -> Answer | None:
        """Return gthread's answer there."""
        return self.theirs.answers[self.index] if self.index < len(self.theirs.answers) else None


@dataclass(frozen=True)
class Wanted:
    """A difference that is meant to be."""

    name: str
    reason: str
    applies: Callable[[Difference], bool]


def lacks_host(difference: Difference) -> bool:
    """Return whether we refuse HTTP/1.1 without Host."""
    request, mine = difference.request, difference.mine
    if request is None or mine is None or request.version < (1, 1):
        return False
    return mine.status == 400 and "HOST" not in dict(request.headers)


def lists_close(difference: Difference) -> bool:
    """Return whether we end a connection as a list in `Connection`, or a second one, asks for."""
    request, mine, other = difference.request, difference.mine, difference.other
    if request is None or mine is None or not mine.closes or (other and other.closes):
        return False
    values = ",".join(value for name, value in request.headers if name == "CONNECTION")
    return "close" in [option.strip().lower() for option in values.split(",")]


def application_closes(difference: Difference) -> bool:
    """Return whether the application has asked for the end, which gthread takes no notice of."""
    request, mine, other = difference.request, difference.mine, difference.other
    if request is None or mine is None or other is None or request.path != "/closes":
        return False
    return mine.closes and not other.closes and (mine.status, mine.body) == (200, other.body)


def announces_length(difference: Difference) -> bool:
    """Return whether we say how long a list is, so that HTTP/1.0 can go on."""
    request, mine, other = difference.request, difference.mine, difference.other
    if request is None or mine is None or other is None or request.path != "/no-length":
        return False
    return request.version == (1, 0) and other.closes and mine.body == other.body


def is_lost(difference: Difference) -> bool:
    """Return whether gthread has reset the connection over an answer that we gave."""
    return difference.theirs.end == "reset" and difference.other is None


def is_large(difference: Difference) -> bool:
    """Return whether gthread ends the connection over a large body that nobody read."""
    if difference.index == 0 or difference.other is not None or difference.theirs.end == "open":
        return False
    last = difference.requests[: difference.index][-1:]
    return bool(last) and getattr(last[0], "size", 0) > DRAINED


def is_outside(difference: Difference) -> bool:
    """Return whether the last request names a SCRIPT_NAME that its path is outside of."""
    ours, theirs = difference.ours.answers, difference.theirs.answers
    return (
        b"script_name" in difference.sent.lower()
        and 0 < len(ours) <= len(theirs)
        and ours[-1].status == 404
        and ours[:-1] == theirs[: len(ours) - 1]
    )


def is_unasked(difference: Difference) -> bool:
    """Return whether the connection ends since the application read no body that was expected."""
    ours, theirs = difference.ours.answers, difference.theirs.answers
    expects = b"100-continue" in difference.sent.lower()
    return expects and 0 < len(ours) < len(theirs) and ours == theirs[: len(ours)]


def is_cut(difference: Difference) -> bool:
    """Return whether the last request's body is cut, and only we have refused it."""
    ours, theirs = difference.ours.answers, difference.theirs.answers
    count = len(ours)
    return (
        0 < count <= len(theirs)
        and ours[-1].status == 400
        and theirs[count - 1].status != 400
        and ours[:-1] == theirs[: count - 1]
        and is_missing_bytes(difference.sent)
    )


def is_missing_bytes(sent: bytes) -> bool:
    """Return whether the last request announces more bytes than follow."""
    *_, last = [None, *requests_in(sent)]
    if last is None:
        return False
    announced = dict(last.headers).get("CONTENT-LENGTH", "")
    return announced.isdecimal() and getattr(last, "size", 0) < int(announced)


def is_second(difference: Difference) -> bool:
    """Return whether gthread answers twice: a body that the application did not read was bad."""
    requests, other = difference.requests, difference.other
    if difference.mine is not None or difference.request is not None or other is None:
        return False
    return bool(requests) and requests[-1].body.failed and other.status >= 400


def has_huge_chunk(difference: Difference) -> bool:
    """Return whether gthread fails at a size that no buffer has."""
    mine, other = difference.mine, difference.other
    if other is None or other.status != 500 or (mine is not None and mine.status not in {400, 413}):
        return False
    return re.search(rb"[0-9a-fA-F]{16}", difference.sent) is not None


WANTED = (
    Wanted("no Host", "RFC 9112, section 3.2: it is refused with 400", lacks_host),
    Wanted("lists", "`close` in a list of Connection ends the connection", lists_close),
    Wanted(
        "asked",
        "the application asks for the end; gthread does not know how",
        application_closes,
    ),
    Wanted("length", "a list's length is sent to HTTP/1.0, too", announces_length),
    Wanted("lost", "gthread closes over bytes that it has not read; we linger", is_lost),
    Wanted("cut", "a body that is cut is refused with 400, and not handed on", is_cut),
    Wanted("expect", "a body that was expected and not asked for ends it", is_unasked),
    Wanted("outside", "a path outside of SCRIPT_NAME is 404, and 500 at gthread", is_outside),
    Wanted("large", "gthread ends a connection after a large body that nobody read", is_large),
    Wanted("second", "gthread answers, and then refuses the body that nobody read", is_second),
    Wanted("huge chunk", "gthread fails with 500; it is refused, or cut", has_huge_chunk),
)
CONTINUES = "100"  # it is sent when the application first reads; gunicorn sends it at once


@dataclass
class Counts:
    """How many streams were sent, and how they were answered."""

    sent: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    wanted: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        answers = ", ".join(f"{count} × {status}" for status, count in sorted(self.answers.items()))
        wanted = ", ".join(f"{count} × {name}" for name, count in sorted(self.wanted.items()))
        return f"{self.sent} streams, answers: {answers}; wanted differences: {wanted or 'none'}"


def requests_in(sent: bytes) -> Iterator[Any]:
    """Yield the requests in a stream, until one is no HTTP or cut."""
    cfg = Config()
    pieces = iter([sent[begin : begin + 8192] for begin in range(0, len(sent), 8192)])
    parser = RequestParser(cfg, pieces, ("127.0.0.1", 50_000))
    with suppress(Exception):
        while True:
            request: Any = next(parser)
            yield request
            request.size = len(request.body.read())


def read_answers(received: bytes, methods: list[str]) -> tuple[list[Answer], int, bytes]:
    """Return the answers to requests with these methods, how many 100 there were, and the rest."""
    answers: list[Answer] = []
    continues = 0
    while True:
        top, end, rest = received.partition(b"\r\n\r\n")
        if not end or not top.startswith(b"HTTP/1."):
            return answers, continues, received
        status, fields = int(top[9:12]), fields_of(top)
        if status == 100:
            continues += 1
            received = rest
            continue
        method = methods[len(answers)] if len(answers) < len(methods) else ""
        bodiless = status == 204 or method == "HEAD"
        if bodiless and (not rest or rest.startswith(b"HTTP/1.")):
            content: bytes | None = b""
        else:
            content, rest = body_of(rest, fields)
        if content is None:
            return answers, continues, received
        kept = stable(content) if status < 300 else None
        answers.append(Answer(status, kept, fields.get(b"connection") == b"close"))
        received = rest


def fields_of(top: bytes) -> dict[bytes, bytes]:
    """Return the fields of a head."""
    pairs = (line.partition(b":") for line in top.split(b"\r\n")[1:])
    return {name.lower(): value.strip().lower() for name, _, value in pairs}


def body_of(rest: bytes, fields: dict[bytes, bytes]) -> tuple[bytes | None, bytes]:
    """Return the body that starts `rest`, None if it is not whole, and what follows it."""
    if b"transfer-encoding" in fields:
        return unchunked(rest)
    length = fields.get(b"content-length")
    if length is None:
        return rest, b""
    size = int(length)
    return (rest[:size], rest[size:]) if len(rest) >= size else (None, rest)


def unchunked(rest: bytes) -> tuple[bytes | None, bytes]:
    """Return the chunks that start `rest`, joined, and what follows them."""
    content = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return None, rest
        size = int(line, 16)
        if len(rest) < size + 2:
            return None, rest
        content, rest = content + rest[:size], rest[size + 2 :]
        if size == 0:
            return content, rest


def stable(content: bytes) -> bytes:
    """Return a body without what is of one connection only."""
    if not content.startswith(b'{"'):
        return content
    with suppress(ValueError):
        said = json.loads(content)
        kept = {key: value for key, value in said.items() if key not in CHANGING}
        return json.dumps(kept, sort_keys=True).encode()
    return content


class Exchange:
    """One stream on one connection."""

    def __init__(self, address: Any) -> None:
        self.socket = socket.create_connection(address, timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reset = False

    def send(self, data: bytes) -> None:
        """Send it, unless the server has hung up."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def finish(self, methods: list[str]) -> Outcome:
        """Send no more, and return what comes until the connection ends."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        received, end = [], "end"
        try:
            while data := self.socket.recv(65536):
                received.append(data)
        except ConnectionError:
            end = "reset"
        except TimeoutError:
            end = "open"
        finally:
            self.socket.close()
        answers, continues, left = read_answers(b"".join(received), methods)
        return Outcome(answers, continues, end, b"" if end == "reset" else left)


class Fuzz:
    """Streams that are sent to both servers, many at once, until one differs."""

    def __init__(self, ours: Server, theirs: Server, count: int, seed: int, until: float) -> None:
        self.addresses = ours.address, theirs.address
        self.left, self.until, self.seed = count, until, seed
        self.counts = Counts()
        self.fault: BaseException | None = None
        self.lock = threading.Lock()

    def run(self) -> Counts:
        """Return the counts. AssertionError if the servers differ."""
        threads = [threading.Thread(target=self.work) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.fault is not None:
            raise self.fault
        return self.counts

    def next(self) -> random.Random | None:
        """Return the source of the next stream, or None if there was enough."""
        with self.lock:
            if self.left <= 0 or self.fault is not None or time.monotonic() > self.until:
                return None
            self.left -= 1
            self.counts.sent += 1
            return random.Random(f"{self.seed} {self.counts.sent}")

    def work(self) -> None:
        """Compare one stream after the other."""
        while chance := self.next():
            try:
                self.compare(chance)
            except BaseException as error:  # noqa: BLE001 - it is raised by the main thread
                self.fault = self.fault or error

    def compare(self, chance: random.Random) -> None:
        """Send a stream to both. AssertionError if they differ, and that is not wanted."""
        sent = stream(chance)
        ours, theirs = both(self.addresses, sent, chance)
        names = differences(sent, ours, theirs)
        with self.lock:
            self.counts.answers.update(answer.status for answer in ours.answers)
            self.counts.wanted.update(names)


def both(addresses: Any, sent: bytes, chance: random.Random) -> list[Outcome]:
    """Return what both servers answer to a stream, in the same packets."""
    slow = chance.random() < 0.15
    exchanges = [Exchange(address) for address in addresses]
    for packet in packets(sent, chance):
        for exchange in exchanges:
            exchange.send(packet)
        if slow and chance.random() < 0.5:
            time.sleep(chance.random() * 0.01)
    methods = [request.method for request in requests_in(sent)]
    return [exchange.finish(methods) for exchange in exchanges]


def differences(sent: bytes, ours: Outcome, theirs: Outcome) -> list[str]:
    """Return the names of the wanted differences. AssertionError if there is another."""
    names = [CONTINUES] if ours.continues != theirs.continues else []
    if ours.key == theirs.key:
        assert ours.continues <= theirs.continues, shown(sent)
        assert ours.end != "reset", shown(sent)
        return names
    difference = Difference(sent, ours, theirs)
    found = next((wanted.name for wanted in WANTED if wanted.applies(difference)), None)
    assert found, f"{shown(sent)}\nours:   {ours}\ntheirs: {theirs}"
    return [*names, found]


def shown(sent: bytes) -> str:
    """Return a stream as Python reads it, with long runs of one letter made short."""
    return re.sub(r"(\w)\1{49,}", lambda run: f"' + b'{run[1]}' * {len(run[0])} + b'", repr(sent))


@contextmanager
def servers(folder: Path) -> Iterator[tuple[Server, Server]]:
    """Start both servers."""
    with ExitStack() as stack:
        ours = stack.enter_context(Server(folder / "ours", *OPTIONS))
        theirs = stack.enter_context(Server(folder / "theirs", *OPTIONS, worker="gthread"))
        yield ours, theirs


def run(folder: Path, count: int, seed: int, within: float = float("inf")) -> Counts:
    """Compare `count` streams, or as many as are done within so many seconds."""
    with servers(folder) as (ours, theirs):
        counts = Fuzz(ours, theirs, count, seed, time.monotonic() + within).run()
        assert ours.is_well()
        return counts


def main() -> None:
    """Compare as many as the command line says."""
    seed = time.time_ns() if len(sys.argv) < 3 else int(sys.argv[2])
    with TemporaryDirectory(prefix="leader-worker-") as folder:
        try:
            said: object = run(Path(folder), int(sys.argv[1]), seed)
        except AssertionError as difference:
            sys.exit(f"seed {seed}: {difference}")
    print(f"seed {seed}: {said}")  # noqa: T201 - it is a program, too


if __name__ == "__main__":
    main()
