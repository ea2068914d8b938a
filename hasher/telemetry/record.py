"""The record of a request: its id, its outcome, its time. Observers are told of it.

It travels in a context variable: code that answers a request, the store included, notes in
`current()` what happened.
"""

import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from random import randbytes
from typing import Any, NamedTuple

import msgspec

from hasher.stores import Stored

Environ = dict[str, Any]  # of WSGI (PEP 3333)
WSGIApplication = Callable[[Environ, Any], Iterable[bytes]]

WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def go_on() -> None:
    """Do nothing: under another server, no other thread waits for this one."""


class Operation(NamedTuple):
    """What a driver was asked to do, the seconds that it took, and the exception that it raised."""

    name: str
    seconds: float
    error: Exception | None


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
    """What went wrong in the service or its store, in one word."""
    body_read: bool = False
    """Whether nothing of the request's body is left on the connection."""
    before_wait: Callable[[], None] = go_on
    """What to call before waiting or computing for long."""
    operations: list[Operation] = []
    outcomes: list[Stored] = []

    def operated(self, name: str, seconds: float, error: Exception | None) -> None:
        """Note an operation of the store."""
        self.store_time += seconds
        self.operations.append(Operation(name, seconds, error))

    def stored(self, counts: Stored) -> None:
        """Note that messages were stored."""
        self.outcomes.append(counts)


record_variable: ContextVar[RequestRecord | None] = ContextVar("record", default=None)


def current() -> RequestRecord:
    """Return the record of the request that is being answered, or a new one outside a request."""
    return record_variable.get() or RequestRecord()


class Observer:
    """Is told of requests, in the threads that answer them. Override either method, or both."""

    def began(self) -> None:
        """Note that a request has come."""

    def ended(self, record: RequestRecord) -> None:
        """Note that the answer to a request is ready to be sent."""


def request_id(given: str | None = None) -> str:
    """Return `given` if it is harmless in a log, or a new id otherwise.

    A new id is unlikely to come twice, and is not secret.
    """
    if given and WELL_FORMED.fullmatch(given):
        return given
    return randbytes(16).hex()  # noqa: S311 - it is not secret
