"""The record of a request: its id, its outcome, its time. Observers are told of it.

It travels by one channel, a context variable: whoever answers a request notes what happened in
`current()`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from random import getrandbits
from time import perf_counter
from typing import Any

import msgspec

from hasher.stores import Stored

Environ = dict[str, Any]  # of WSGI (PEP 3333)
WSGIApplication = Callable[[Environ, Any], Iterable[bytes]]

WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,64}")
BEFORE_WAIT = "leader_worker.before_wait"  # what the worker puts into the environ for the store


def go_on() -> None:
    """Do nothing: under another server, nobody waits for this thread."""


class RequestRecord(msgspec.Struct):
    """One request and its answer. Times are in seconds, sizes in bytes of body."""

    id: str = ""
    method: str = ""
    path: str = ""
    client: str = ""
    route: str | None = None
    """The rule that the address matches, such as `/messages/<digest>`."""
    status: int = 500
    received: int = 0
    sent: int = 0
    duration: float = 0.0
    store_time: float = 0.0
    fault: str | None = None
    """What went wrong in the service or its store, in a word."""
    body_read: bool = False
    """Whether nothing of the request's body is left on the connection."""
    before_wait: Callable[[], None] = go_on
    """What to call before waiting or computing for long."""


record_variable: ContextVar[RequestRecord | None] = ContextVar("record", default=None)


def current() -> RequestRecord:
    """Return the record of the request that is being answered; outside of one, one of no use."""
    return record_variable.get() or RequestRecord()


def before_wait() -> None:
    """Let the server's other requests go on: this one is about to wait, or to compute for long."""
    current().before_wait()


class Observer:
    """Is told what happens, in the thread in which it happens. Any of these may be overridden."""

    def began(self) -> None:
        """A request has come."""

    def ended(self, record: RequestRecord) -> None:
        """Its answer is ready to be sent."""

    def operated(self, operation: str, duration: float, error: Exception | None) -> None:
        """The store has done something, or raised `error`."""

    def stored(self, counts: Stored) -> None:
        """Messages were stored."""


class StoreTime(Observer):
    """Adds the time that the store takes to the record of the request that waits for it."""

    def operated(self, operation: str, duration: float, error: Exception | None) -> None:  # noqa: ARG002 - Observer's
        current().store_time += duration


class Recorded:
    """A WSGI application, each of whose requests has a record, of which `observers` are told."""

    def __init__(self, application: WSGIApplication, observers: Sequence[Observer]) -> None:
        self._application, self._observers = application, observers

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request, with its id in `X-Request-ID`."""
        started = perf_counter()
        record = record_of(environ)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            note_answer(record, status, headers)
            headers.append(("X-Request-ID", record.id))
            return start_response(status, headers, exc_info)

        token = record_variable.set(record)
        for observer in self._observers:
            observer.began()
        try:
            return self._application(environ, start)
        finally:
            record_variable.reset(token)
            record.duration = perf_counter() - started
            for observer in self._observers:
                observer.ended(record)


def record_of(environ: Environ) -> RequestRecord:
    """Return a new record of the request in `environ`."""
    return RequestRecord(
        id=request_id(environ.get("HTTP_X_REQUEST_ID")),
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", ""),
        client=environ.get("REMOTE_ADDR", ""),
        before_wait=environ.get(BEFORE_WAIT, go_on),
    )


def request_id(given: str | None = None) -> str:
    """Return `given`, if a front has chosen an id that is harmless in a log, or a new one.

    A new one is unlikely to come twice, and no secret.
    """
    return given if given and WELL_FORMED.fullmatch(given) else f"{getrandbits(128):032x}"


def note_answer(record: RequestRecord, status: str, headers: Sequence[tuple[str, str]]) -> None:
    """Keep in `record` what is answered."""
    record.status = int(status[:3])
    if record.method != "HEAD":
        record.sent = int(dict(headers).get("Content-Length", 0))
