"""The fast lane against gunicorn's parser: whatever the lane takes, both must read alike.

`python -m tests.leader_worker.differential 5000000` says how many of so many random and mutated
requests the lane took, and stops at the first that gunicorn reads otherwise.
"""

import random
import sys
import time
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any

from gunicorn.config import Config
from gunicorn.http.message import Request as GunicornRequest
from gunicorn.http.unreader import IterUnreader
from gunicorn.http.wsgi import create

from leader_worker.lane import Lane, Request, base_environ, client_environ
from leader_worker.response import Response

METHODS = ["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "BREW", "get"]
TARGETS = [
    "/",
    "/messages",
    "/messages/" + "a1" * 32,
    "/a/b?c=d&e=%20f",
    "/?",
    "/a?b?c",
    "//host/path",
    "/a//b",
    "/a;b=c",
    "/..//../a",
    "/%41",
    "/a%2fb?c",
    "/a#b",
    "/a?b#c",
    "/:80",
    "/[::1]",
    "/\\a",
    "*",
    "http://host/path",
    "host:80",
    "/" + "x" * 4060,
]
VERSIONS = ["HTTP/1.1"] * 12 + ["HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "http/1.1"]
NAMES = [
    "Accept",
    "Accept-Encoding",
    "Authorization",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Content_Length",
    "Cookie",
    "Expect",
    "Host",
    "If-None-Match",
    "Keep-Alive",
    "Origin",
    "Proxy",
    "Referer",
    "Script-Name",
    "SCRIPT_NAME",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Ssl",
    "X-1",
    "x",
]
PLAIN = ["Accept", "Cookie", "Keep-Alive", "Referer", "TE", "User-Agent", "X-1", "x"]
VALUES = [
    "",
    "0",
    "00",
    "3",
    "5",
    "+3",
    "3, 3",
    "1048577",
    "99999999999999999999",
    "\u00b2",
    "chunked",
    "identity",
    "close",
    "keep-alive",
    "Keep-Alive",
    "keep-alive, close",
    "upgrade",
    "100-continue",
    "https",
    "localhost",
    "localhost:8000",
    "[::1]:80",
    "a:b:c",
    "application/json",
    "text/plain; charset=utf-8",
    "a, b",
    "a:b",
    ": a",
    "\u00e9\u00ff",
    "a\u00a0b",
    "a\tb",
    "gzip, deflate, br",
    "Mozilla/5.0 (X11; Linux x86_64)",
]
SPACES = ["", " ", " ", " ", "  "]
PIECES = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\r\n\t",
    b" ",
    b"\t",
    b":",
    b": ",
    b"\0",
    b"\x0b",
    b"\x1f",
    b"\x7f",
    b"\x80",
    b"\x85",
    b"\xa0",
    b"\xad",
    b"\xff",
    b"%",
    b"#",
    b"?",
    b"_",
    b"-",
    b"0",
    b"9",
    b"A",
    b"z",
    b"HTTP/1.1",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
]
SERVERS: list[Any] = [("127.0.0.1", 8000), ("::1", 8000, 0, 0), "/run/app.sock"]


@dataclass
class Setup:
    """What one listener of one configuration makes of requests."""

    cfg: Config
    lane: Lane
    server: Any
    client: Any
    sock: object
    environ: dict[str, Any]


@dataclass
class Counts:
    """How many requests there were, and how many of them the lane took."""

    sent: int = 0
    taken: int = 0


def setups() -> list[Setup]:
    """Return one for each kind of listener and of configuration."""
    kinds = product(SERVERS, (False, True), (False, True))
    return [setup(server, proxy=proxy, tls=tls) for server, proxy, tls in kinds]


def setup(server: Any, *, proxy: bool, tls: bool) -> Setup:
    """Return one; without `proxy` no field says how a proxy was spoken to."""
    cfg = Config()
    if not proxy:
        cfg.set("secure_scheme_headers", {})
    if tls:
        cfg.set("certfile", "/dev/null")
    client = "" if isinstance(server, str) else ("127.0.0.1", 50_000)
    sock = SimpleNamespace(send=len)
    listener = SimpleNamespace(getsockname=lambda: server)
    environ = client_environ(base_environ(cfg, listener), sock, client)
    return Setup(cfg, Lane(cfg), server, client, sock, environ)


def request(chance: random.Random) -> bytes:
    """Return a request, or what is nearly one, and now and then another behind it."""
    pick, fields = chance.choice, []
    names = NAMES if chance.random() < 0.5 else PLAIN
    if chance.random() < 0.9:
        fields.append(f"Host: {pick(['a', 'localhost:8000', ''])}")
    body = pick([b"", b"", b"foo", b"foo", b"hello", b"x" * 300])
    if body or chance.random() < 0.2:
        fields.append(f"Content-Length: {len(body)}")
    count = chance.choice([0, 1, 1, 2, 3, 9])
    fields += [f"{pick(names)}:{pick(SPACES)}{pick(VALUES)}" for _ in range(count)]
    if chance.random() < 0.003:
        fields += [f"X-{number}: a" for number in range(chance.randrange(90, 110))]
    chance.shuffle(fields)
    method = pick(METHODS) if chance.random() < 0.2 else pick(["GET", "POST"])
    target = pick(TARGETS) if chance.random() < 0.5 else "/messages"
    lines = [f"{method} {target} {pick(VERSIONS)}", *fields, "", ""]
    sent = "\r\n".join(lines).encode("latin-1") + body
    if chance.random() < 0.2:
        sent += b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    return mutated(sent, chance)


def mutated(sent: bytes, chance: random.Random) -> bytes:
    """Return `sent` with up to three changes."""
    for _ in range(chance.choice([0, 0, 1, 1, 1, 1, 2, 3])):
        start = chance.randrange(len(sent) + 1)
        end = start + chance.choice([0, 0, 1, 1, 2, 5])
        piece = chance.choice(PIECES) if chance.random() < 0.8 else chance.randbytes(1)
        if chance.random() < 0.2:
            piece = sent[chance.randrange(len(sent) + 1) :][:20]
        sent = sent[:start] + piece + sent[end:]
    return sent


def by_lane(sent: bytes, using: Setup) -> Request | None:
    """Return what the lane makes of `sent`; None if it leaves that to gunicorn."""
    end = sent.find(b"\r\n\r\n")
    return None if end < 0 else using.lane.read(sent, end, using.environ)


def by_gunicorn(sent: bytes, using: Setup) -> tuple[dict[str, Any], Any, bytes, bytes]:
    """Return environ, request, body and what is left, as gunicorn's parser reads `sent`."""
    unreader = IterUnreader([sent])
    found: Any = GunicornRequest(using.cfg, unreader, using.client)
    sock: Any = using.sock
    _, environ = create(found, sock, using.client, using.server, using.cfg, Response)
    environ["wsgi.multithread"] = True
    body = environ["wsgi.input"].read()
    return dict(environ), found, body, unreader.take_buffered()


OWN = ("wsgi.errors", "wsgi.early_hints", "wsgi.input")  # of each request, and compared elsewhere


def compare(sent: bytes, using: Setup) -> bool:
    """Return whether the lane takes `sent`. AssertionError if gunicorn reads it otherwise."""
    taken = by_lane(sent, using)
    if taken is None:
        return False
    environ, found, body, left = by_gunicorn(sent, using)
    mine = taken.take_environ()
    assert mine.keys() == environ.keys(), (sent, mine.keys() ^ environ.keys())
    for key, value in mine.items():
        assert key in OWN or environ[key] == value, (sent, key, value, environ[key])
    assert taken.method == environ["REQUEST_METHOD"], sent
    assert taken.should_close() == found.should_close(), sent
    assert sent[taken.start : taken.end] == body, (sent, body)
    assert sent[taken.end :] == left, (sent, left)
    return True


def run(count: int, seed: int, within: float | None = None) -> Counts:
    """Compare `count` requests, or as many as are done within so many seconds."""
    chance, counts = random.Random(seed), Counts()
    kinds = setups()
    deadline = None if within is None else time.monotonic() + within
    while counts.sent < count and (deadline is None or time.monotonic() < deadline):
        counts.sent += 1
        counts.taken += compare(request(chance), chance.choice(kinds))
    return counts


if __name__ == "__main__":
    number = time.time_ns() if len(sys.argv) < 3 else int(sys.argv[2])
    done = run(int(sys.argv[1]), number)
    print(  # noqa: T201 - it is a program, too
        f"seed {number}: {done.sent} requests, {done.taken} taken by the lane, 0 read otherwise"
    )
