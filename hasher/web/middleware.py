"""The layer around the application: a record for each request, header fields for each answer."""

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any

from hasher.telemetry.record import (
    Environ,
    Observer,
    RequestRecord,
    WSGIApplication,
    go_on,
    record_variable,
    request_id,
)

NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
BEFORE_WAIT = "leader_worker.before_wait"  # what the worker puts into the environ
CLOSE = "leader_worker.close"  # what the worker reads from it when the application has returned


class Middleware:
    """A WSGI application that tells `observers` of its requests.

    Each answer, errors included, has the id of its request and forbids sniffing. An answer that
    comes before the body was read asks the worker to close the connection (RFC 9112, section 9.6):
    reading the rest would let a client hold the thread with a request that was refused already. It
    asks through the environ, since an application may not send a Connection field (PEP 3333).
    """

    def __init__(self, application: WSGIApplication, observers: Sequence[Observer]) -> None:
        self._application, self._observers = application, observers

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        started = perf_counter()
        record = record_of(environ)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            note_answer(record, status, headers)
            headers.append(NO_SNIFFING)
            if not record.body_read and has_body(environ):
                environ[CLOSE] = True
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


def note_answer(record: RequestRecord, status: str, headers: Sequence[tuple[str, str]]) -> None:
    """Note the answer's status and length in `record`."""
    record.status = int(status[:3])
    if record.method != "HEAD":
        for name, value in reversed(headers):
            if name == "Content-Length":
                record.sent = int(value)
                break


def has_body(environ: Environ) -> bool:
    """Return whether a body comes with the request (RFC 9112, section 6.3)."""
    length = environ.get("CONTENT_LENGTH") or "0"
    return length != "0" or "HTTP_TRANSFER_ENCODING" in environ
