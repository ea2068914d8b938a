"""A bare WSGI application, each of whose routes does one thing that the tests need."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Any]


def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Answer by the route that the path names."""
    name = environ["PATH_INFO"].strip("/").replace("-", "_") or "hello"
    return ROUTES[name](environ, start_response)


def answer(start_response: Start, body: bytes) -> list[bytes]:
    """Answer 200 with `body`."""
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def hello(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Say hello."""
    return answer(start_response, b"hello")


def echo(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Return the body."""
    return answer(start_response, environ["wsgi.input"].read())


def unread(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Answer without reading the body."""
    return answer(start_response, b"unread")


def part(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Read a part of the body, and want the connection to end."""
    environ["leader_worker.close"] = True
    return answer(start_response, b"x" * len(environ["wsgi.input"].read(1_000_000)))


def swallow(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Answer, whatever reading the body has raised."""
    for _ in range(3):
        with suppress(Exception):
            environ["wsgi.input"].read()
    return answer(start_response, b"swallowed")


def environment(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Return what the environ says in text."""
    said = {key: value for key, value in environ.items() if isinstance(value, (str, bool))}
    return answer(start_response, json.dumps(said).encode())


def wait(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Let others go on, and answer after a while."""
    environ["leader_worker.before_wait"]()
    time.sleep(float(environ["QUERY_STRING"]))
    return answer(start_response, b"waited")


def large(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Return so many bytes."""
    return answer(start_response, b"x" * int(environ["QUERY_STRING"]))


def stream(environ: Environ, start_response: Start) -> Iterator[bytes]:
    """Return parts, and do not say how long they are together."""
    start_response("200 OK", [])
    yield b"one "
    yield b""
    yield b"two"


def no_length(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Return a list, and do not say how long it is."""
    start_response("200 OK", [])
    return [b"one ", b"two"]


def too_short(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Return less than was announced."""
    start_response("200 OK", [("Content-Length", "10")])
    return [b"short"]


def too_long(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Return more than was announced."""
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello, world"]


def no_content(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Answer 204, wrongly with a body and its length."""
    start_response("204 No Content", [("Content-Length", "5")])
    return [b"hello"]


def written(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Answer as an old application does."""
    write = start_response("200 OK", [("Content-Length", "7")])
    write(b"one ")
    write(b"two")
    return []


def closes(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Want the connection to end."""
    environ["leader_worker.close"] = True
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def hints(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Send early hints."""
    environ["wsgi.early_hints"]([("Link", "</a>; rel=preload")])
    return hello(environ, start_response)


def crash(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Fail."""
    raise RuntimeError("The application's own.")


def crash_late(environ: Environ, start_response: Start) -> Iterator[bytes]:
    """Fail after a part of the answer."""
    start_response("200 OK", [("Content-Length", "10")])
    yield b"hello"
    raise RuntimeError("The application's own.")


def leave(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Want the thread to end."""
    raise SystemExit(1)


def process(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Return the worker's process id."""
    return answer(start_response, str(os.getpid()).encode())


def silent(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Never start the answer."""
    return [b"hello"]


def split(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Try to end the head early."""
    start_response("200 OK", [("X", "a\r\n\r\nb")])
    return [b"hello"]


def unencodable(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Give a field that HTTP has no bytes for."""
    start_response("200 OK", [("X", "\u0101")])
    return [b"hello"]


def anew(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Start another answer in place of one of which nothing was sent."""
    start_response("200 OK", [])(b"")
    try:
        int("none")
    except ValueError:
        start_response("404 Not Found", [("Content-Length", "5")], sys.exc_info())
    return [b"hello"]


def time_out(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Fail by a time-out of its own."""
    raise TimeoutError("Another machine is slow.")


ROUTES = {
    route.__name__: route
    for route in (
        anew,
        closes,
        crash,
        crash_late,
        echo,
        environment,
        hello,
        hints,
        large,
        leave,
        no_content,
        no_length,
        part,
        process,
        silent,
        split,
        stream,
        swallow,
        time_out,
        too_long,
        too_short,
        unencodable,
        unread,
        wait,
        written,
    )
}
