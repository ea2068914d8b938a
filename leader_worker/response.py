"""Responses, whose head goes out with the first part of the body, in one packet if it fits."""

import re
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from functools import lru_cache
from time import time
from typing import Any

from gunicorn import SERVER
from gunicorn.http import errors, wsgi
from gunicorn.http.message import TOKEN_RE
from gunicorn.util import is_hoppish

from leader_worker.lane import PRINTABLE, Environ

NAMES = 1000  # field names that are remembered
PLAIN, LENGTH, DROPPED = range(1, 4)  # kinds of fields
KINDS: dict[str, int] = {}
# The stubs are of gunicorn 26, which did not have these.
STATUS_RE: re.Pattern[str] = wsgi.STATUS_RE  # type: ignore[attr-defined]
InvalidResponseHeader: Any = errors.InvalidResponseHeader  # type: ignore[attr-defined]
InvalidResponseHeaderName: Any = errors.InvalidResponseHeaderName  # type: ignore[attr-defined]
early_hints: Any = wsgi._make_early_hints_callback  # type: ignore[attr-defined]  # noqa: SLF001
VALID_STATUS = re.compile("[1-5][0-9][0-9] [ -~]+")
CLOSE = "leader_worker.close"  # in the environ, if the application wants the connection to end
LARGEST_REST = 8 * 1024 * 1024  # bytes of an answer that are kept until the client takes them
BODILESS = ("1", "204", "304")  # how their status begins


class Response:
    """The answer to one request, which the application starts with `start_response` (PEP 3333).

    gunicorn sends the head on its own. If a worker is killed between the two, nginx has a head, and
    cannot ask another instance any more.
    """

    status: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    sent = 0
    """Bytes of the body that were sent, for the access log."""
    headers_sent = False
    closes = False
    """Whether the connection ends with this answer."""
    _lines = b""
    """The status and the fields, as they are sent."""
    _head = b""
    """The whole head, until it is sent."""
    _length: int | None = None
    _chunked = _bodiless = False

    def __init__(self, req: Any, sock: Any, _cfg: Any = None) -> None:
        self.req, self.sock = req, sock
        self.rest: list[memoryview] = []
        """What the client has not taken yet."""
        self._left = 0

    def early_hints(self, headers: Any) -> None:
        """Send `headers` before the answer, as 103 (RFC 8297)."""
        early_hints(self.req, self.sock, self)(headers)

    def start_response(
        self, status: str, headers: Sequence[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Note the status and the fields. An exception says which of them HTTP does not allow."""
        if exc_info:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
            self._length, self._chunked, self._head = None, False, b""
        elif self.status is not None:
            raise AssertionError("The application has started the response already.")
        self.status, self.headers = status, headers
        lines = self._make_lines()
        try:
            self._lines = "\r\n".join(lines).encode("latin-1")
        except UnicodeEncodeError:
            self._require_valid()
            raise
        line_ends = b"\r\n" * (len(lines) - 1)
        if self._lines.translate(None, PRINTABLE) != line_ends or not is_valid_status(status):
            self._require_valid()
        return self.write

    def _make_lines(self) -> list[str]:
        """Return the status and the application's fields, and note what they say of the body."""
        lines = [self.status or ""]
        for name, value in self.headers:
            kind = KINDS.get(name) or kind_of(name)
            if kind == PLAIN:
                lines.append(name + ": " + value)
            elif kind == LENGTH:
                self._length = int(value)
                if not lines[0].startswith(("1", "204")):  # RFC 9110, section 8.6
                    lines.append(name + ": " + value)
        return lines

    def _require_valid(self) -> None:
        """Raise what gunicorn raises for a status or a field that HTTP does not allow."""
        if not STATUS_RE.fullmatch(self.status or ""):
            raise ValueError(f"Invalid status {self.status!r}")
        for name, value in self.headers:
            if not wsgi.HEADER_VALUE_RE.fullmatch(value):
                raise InvalidResponseHeader(repr(name))

    def answer(self, application: Callable[..., Iterable[bytes]], environ: Environ) -> None:
        """Call `application`, and send what it returns."""
        body = application(environ, self.start_response)
        self.closes = self.closes or CLOSE in environ
        self.send(body)

    def send(self, body: Iterable[bytes]) -> None:
        """Send the iterable that the application has returned, and close it.

        What the client does not take at once is left in `rest`, unless that is a lot.
        """
        try:
            if self._length is None and isinstance(body, (list, tuple)):
                self._announce(sum(map(len, body)))
            for part in body:
                self.write(part)
            self._end()
        finally:
            if hasattr(body, "close"):
                body.close()

    def write(self, part: bytes) -> None:
        """Send a part of the body; the head waits for the first that is not empty."""
        if not isinstance(part, bytes):
            raise TypeError(f"{part!r} is not bytes")
        if not (self._head or self.headers_sent):
            self._make_head()
        if self._bodiless or not part:
            return
        if self._length is not None and len(part) > self._length - self.sent:
            part = part[: self._length - self.sent]  # never more than was announced
        self.sent += len(part)
        if self._chunked:
            part = b"%x\r\n%b\r\n" % (len(part), part)
        self._emit(part)

    def _emit(self, data: bytes) -> None:
        """Send `data`, after the head if that has not been sent."""
        if self._head:
            data, self._head = self._head + data, b""
            self.headers_sent = True
        sent = 0 if self.rest else self.sock.push(data)
        if sent < len(data):
            self._keep(memoryview(data)[sent:])

    def _keep(self, rest: memoryview) -> None:
        """Keep `rest` until the client takes it. Wait for the client if that is too much."""
        self.rest.append(rest)
        self._left += len(rest)
        if self._left > LARGEST_REST:
            for part in self.rest:
                self.sock.sendall(part)
            self.rest, self._left = [], 0

    def _end(self) -> None:
        """Send what is left, and close the connection if less than announced was sent."""
        if not (self._head or self.headers_sent):
            self._make_head()
        last = b"0\r\n\r\n" if self._chunked else b""
        if last or self._head:
            self._emit(last)
        if self._length is not None and not self._bodiless and self.sent < self._length:
            self.closes = True  # otherwise the next answer would be taken for the missing bytes

    def _announce(self, length: int) -> None:
        """Add a Content-Length, which the application has left out."""
        if self.status and not self.headers_sent and not self._is_bodiless():
            self._length = length
            self._lines += b"\r\nContent-Length: %d" % length

    def _is_bodiless(self) -> bool:
        """Return whether HTTP allows no body here (RFC 9112, section 6.3)."""
        if self.status is None:
            raise AssertionError("The application has not called start_response.")
        return self.req.method == "HEAD" or self.status.startswith(BODILESS)

    def _make_head(self) -> None:
        """Make the head, which is sent with the first part of the body."""
        self._bodiless = self._is_bodiless()
        version = self.req.version
        if not self._bodiless and self._length is None:
            if version >= (1, 1):
                self._chunked = True
                self._lines += b"\r\nTransfer-Encoding: chunked"
            else:
                self.closes = True  # which ends the body
        self.closes = self.closes or self.req.should_close()
        protocol = b"HTTP/1.1 " if version == (1, 1) else b"HTTP/%d.%d " % version
        self._head = protocol + self._lines + common(int(time()), self.closes)


def kind_of(name: str) -> int:
    """Return what kind of field this is. InvalidResponseHeaderName if HTTP does not allow it."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not a string")
    if not TOKEN_RE.fullmatch(name):
        raise InvalidResponseHeaderName(repr(name))
    lower = name.lower()
    kind = LENGTH if lower == "content-length" else PLAIN
    if is_hoppish(name):
        kind = DROPPED  # hop-by-hop fields belong to the server
    if len(KINDS) < NAMES:
        KINDS[name] = kind
    return kind


@lru_cache(maxsize=100)
def is_valid_status(status: str) -> bool:
    """Return whether `status` is three digits that HTTP has a meaning for, and a reason."""
    return VALID_STATUS.fullmatch(status) is not None


@lru_cache(maxsize=4)
def common(second: int, closes: bool) -> bytes:  # noqa: FBT001 - a key of the cache
    """Return the fields that all answers of one second have, and the end of the head."""
    date = formatdate(second, usegmt=True)
    connection = "close" if closes else "keep-alive"
    fields = f"\r\nServer: {SERVER}\r\nDate: {date}\r\nConnection: {connection}\r\n\r\n"
    return fields.encode()
