"""What a request did: its id, its outcome, its time. The log and the metrics are told of it."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from time import perf_counter
from typing import Any, TypeVar, cast

import msgspec

from hasher.lean import Environ
from hasher.media import BODY_READ, WSGIApplication
from hasher.stores import Store

T = TypeVar("T")

WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,64}")
EXCHANGE = "hasher.exchange"  # in the WSGI environment
LARGE = 64 * 1024  # bytes of a body that take as long as many requests


class Exchange(msgspec.Struct):
    """One request and its answer. Times are in seconds, sizes in bytes of body."""

    id: str
    method: str
    path: str
    client: str
    route: str | None = None
    """The rule that the address matches, such as `/messages/<digest>`."""
    status: int = 500
    received: int = 0
    sent: int = 0
    duration: float = 0.0
    store_time: float = 0.0
    fault: str | None = None
    """What went wrong in the service or its store, in a word."""


class Observer:
    """Is told what happens, in the thread in which it happens. Any of these may be overridden."""

    def began(self) -> None:
        """A request has come."""

    def ended(self, exchange: Exchange) -> None:
        """Its answer is ready to be sent."""

    def operated(self, operation: str, duration: float, error: Exception | None) -> None:
        """The store has done something, or raised `error`."""

    def stored(self, new: int, repeated: int) -> None:
        """So many messages were stored, or were there already."""


current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def observed(application: WSGIApplication, observers: Sequence[Observer]) -> WSGIApplication:
    """`application`, each of whose requests has an id, and of which `observers` are told."""

    def wsgi(environ: Environ, start_response: Any) -> Iterable[bytes]:
        started = perf_counter()
        exchange = environ[EXCHANGE] = Exchange(
            id=request_id(environ.get("HTTP_X_REQUEST_ID")),
            method=environ["REQUEST_METHOD"],
            path=environ.get("PATH_INFO", ""),
            client=environ.get("REMOTE_ADDR", ""),
        )

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            note_answer(exchange, environ, status, headers)
            headers.append(("X-Request-ID", exchange.id))
            return start_response(status, headers, exc_info)

        current.set(exchange)
        for observer in observers:
            observer.began()
        try:
            return application(environ, start)
        finally:
            exchange.duration = perf_counter() - started
            for observer in observers:
                observer.ended(exchange)

    return wsgi


def request_id(given: str | None = None) -> str:
    """`given`, where a front has chosen an id that is harmless in a log; a new one otherwise."""
    return given if given and WELL_FORMED.fullmatch(given) else os.urandom(16).hex()


def note_answer(
    exchange: Exchange, environ: Environ, status: str, headers: Sequence[tuple[str, str]]
) -> None:
    """Keep what is answered to the request in `environ`."""
    exchange.status = int(status[:3])
    exchange.received = environ.get(BODY_READ, 0)
    if exchange.method != "HEAD":
        exchange.sent = int(dict(headers).get("Content-Length", 0))
    rule = environ["werkzeug.request"].url_rule
    if rule:
        exchange.route = rule.rule.replace("digest:name", "digest")


def observed_store(store: Store, observers: Sequence[Observer]) -> Store:
    """`store`, whose time counts as its request's, and of which `observers` are told."""
    return cast("Store", ObservedStore(store, observers))


class ObservedStore:
    """Stands in for a store, and passes everything on to it."""

    def __init__(self, store: Store, observers: Sequence[Observer]) -> None:
        self._store, self._observers = store, observers
        self._before_delay: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        """What is not observed, as it is."""
        return getattr(self._store, name)

    def call_before_delays(self, call: Callable[[], None]) -> None:
        """Have `call` called, in a request's thread, before what may take as long as many requests.

        That is an operation in which the store waits, and the answer with a large message.
        """
        self._before_delay = call

    def get(self, digest: str) -> bytes | None:
        message = self._observed("get", self._store.get, digest)
        if message is not None and len(message) > LARGE:
            self._before_delay()
        return message

    def check(self) -> str | None:
        return self._observed("check", self._store.check)

    def put(self, digest: str, message: bytes) -> bool:
        new = self._observed("put", self._store.put, digest, message)
        self._tell_stored(1, int(new))
        return new

    def put_many(self, messages: Sequence[tuple[str, bytes]]) -> int:
        new = self._observed("put_many", self._store.put_many, messages)
        self._tell_stored(len(messages), new)
        return new

    def _tell_stored(self, count: int, new: int) -> None:
        for observer in self._observers:
            observer.stored(new, count - new)

    def _observed(self, operation: str, call: Callable[..., T], *arguments: Any) -> T:
        if operation in self._store.waits:
            self._before_delay()
        started = perf_counter()
        error = None
        try:
            return call(*arguments)
        except Exception as raised:
            error = raised
            raise
        finally:
            duration = perf_counter() - started
            if exchange := current.get():
                exchange.store_time += duration
            for observer in self._observers:
                observer.operated(operation, duration, error)
