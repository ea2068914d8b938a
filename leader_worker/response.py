"""Responses, whose head goes out with the first part of the body, in one packet if it fits."""

import re
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from time import time
from typing import Any, NoReturn

from gunicorn import SERVER
from gunicorn.http import errors, wsgi
from gunicorn.http.message import TOKEN_RE
from gunicorn.util import is_hoppish

NAMES = 1000  # field names that are remembered
PLAIN, LENGTH, CONNECTION, DROPPED = range(1, 5)  # kinds of fields
KINDS: dict[str, int] = {}
# The stubs are of gunicorn 26, which did not have these.
STATUS_RE: re.Pattern[str] = wsgi.STATUS_RE  # type: ignore[attr-defined]
InvalidResponseHeader: Any = errors.InvalidResponseHeader  # type: ignore[attr-defined]
InvalidResponseHeaderName: Any = errors.InvalidResponseHeaderName  # type: ignore[attr-defined]
early_hints: Any = wsgi._make_early_hints_callback  # type: ignore[attr-defined]  # noqa: SLF001
VALID_STATUS = re.compile("[1-5][0-9][0-9] [ -~]+").fullmatch


class Response:
    """The answer to one request, which the application starts with `start_response` (PEP 3333).

    gunicorn sends the head on its own. If a worker is killed between the two, nginx has a head, and
    cannot ask another instance any more.
    """

    def __init__(self, req: Any, sock: Any, _cfg: Any = None) -> None:
        self.req, self.sock = req, sock
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.sent = 0
        """Bytes of the body that were sent, for the access log."""
        self.headers_sent = False
        self.closes = False
        """Whether the connection ends with this answer."""
        self._fields: list[str] = []
        self._length: int | None = None
        self._chunked = self._bodiless = False
        self._head = b""

    def early_hints(self, headers: Any) -> None:
        """Send `headers` before the answer, as 103 (RFC 8297)."""
        early_hints(self.req, self.sock, self)(headers)

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Note the status and the fields. An exception says which of them HTTP does not allow."""
        if exc_info:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AssertionError("The application has started the response already.")
        self._length, self._chunked, self._head = None, False, b""
        self.headers = list(headers)
        self._fields = [status]
        self._add_fields()
        # Not printable: controls, and characters that HTTP has no bytes for.
        if not ("".join(self._fields).isprintable() and VALID_STATUS(status)):
            self._require_valid(status)
        self.status = status
        return self.write

    def _add_fields(self) -> None:
        """Add the application's fields, and take from them the length and whether to close."""
        add = self._fields.append
        for name, value in self.headers:
            kind = KINDS.get(name) or kind_of(name)
            if kind == PLAIN:
                add(name + ": " + value)
            elif kind == LENGTH:
                self._length = int(value)
                add(name + ": " + value)
            elif kind == CONNECTION and value.lower() == "close":
                self.closes = True

    def _require_valid(self, status: str) -> None:
        """Raise what gunicorn raises for a status or a field that HTTP does not allow."""
        if not STATUS_RE.fullmatch(status):
            raise ValueError(f"Invalid status {status!r}")
        for name, value in self.headers:
            if not wsgi.HEADER_VALUE_RE.fullmatch(value):
                raise InvalidResponseHeader(repr(name))

    def send(self, body: Iterable[bytes]) -> None:
        """Send the iterable that the application has returned, and close it."""
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
        self.sock.sendall(data)

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
            self._fields.append(f"Content-Length: {length}")

    def _is_bodiless(self) -> bool:
        """Return whether HTTP allows no body here (RFC 9112, section 6.3)."""
        if self.status is None:
            raise AssertionError("The application has not called start_response.")
        return (
            self.req.method == "HEAD"
            or self.status.startswith(("204", "304"))
            or self.status[0] == "1"
        )

    def _make_head(self) -> None:
        """Make the head, which is sent with the first part of the body."""
        self._bodiless = self._is_bodiless()
        if self._bodiless:
            self._drop_length()
        elif self._length is None:
            if self.req.version >= (1, 1):
                self._chunked = True
                self._fields.append("Transfer-Encoding: chunked")
            else:
                self.closes = True  # which ends the body
        self.closes = self.closes or self.req.should_close()
        major, minor = self.req.version
        status, *fields = self._fields
        fields.append("\r\n")
        head = f"HTTP/{major}.{minor} {status}{common(int(time()), self.closes)}"
        try:
            self._head = (head + "\r\n".join(fields)).encode("latin-1")
        except UnicodeEncodeError as error:
            self._reject(error)

    def _drop_length(self) -> None:
        """Drop the Content-Length, which 204 and 1xx must not have (RFC 9110, section 8.6)."""
        if self.status is not None and self.status.startswith(("1", "204")):
            self._fields = [
                field for field in self._fields if not field.lower().startswith("content-length:")
            ]

    def _reject(self, error: UnicodeEncodeError) -> NoReturn:
        """Raise what gunicorn raises for a field that is not Latin-1."""
        for name, value in self.headers:
            if not wsgi.HEADER_VALUE_RE.fullmatch(value):
                raise InvalidResponseHeader(repr(name)) from error
        raise ValueError(f"Invalid status {self.status!r}") from error


def kind_of(name: str) -> int:
    """Return what kind of field this is. InvalidResponseHeaderName if HTTP does not allow it."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not a string")
    if not TOKEN_RE.fullmatch(name):
        raise InvalidResponseHeaderName(repr(name))
    lower = name.lower()
    if lower == "connection":
        kind = CONNECTION
    elif is_hoppish(name):
        kind = DROPPED  # hop-by-hop fields belong to the server
    else:
        kind = LENGTH if lower == "content-length" else PLAIN
    if len(KINDS) < NAMES:
        KINDS[name] = kind
    return kind


@lru_cache(maxsize=4)
def common(second: int, closes: bool) -> str:  # noqa: FBT001 - a key of the cache
    """Return the fields that all answers of one second have."""
    date = formatdate(second, usegmt=True)
    connection = "close" if closes else "keep-alive"
    return f"\r\nServer: {SERVER}\r\nDate: {date}\r\nConnection: {connection}\r\n"
