"""Responses out: JSON, lines of JSON, and messages that any cache may keep."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from flask import Response
from werkzeug.http import parse_etags

from hasher.telemetry.record import Environ
from hasher.web.short_way import current_application, current_environ

NEWLINE = b"\n"  # ends every body, so that a terminal shows the prompt on a line of its own

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
NDJSON = "application/x-ndjson"
PART = 4096 * 32  # bytes of digests whose lines are made at once
NO_STORE = {"Cache-Control": "no-store"}  # for answers that may be out of date in a second
# Any page may read a message and verify it (https://fetch.spec.whatwg.org/#http-cors-protocol).
ANY_ORIGIN = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "ETag, Repr-Digest, X-Request-ID"),
]

STATUS_LINES = {status.value: f"{status.value} {status.phrase.upper()}" for status in HTTPStatus}
encode = msgspec.json.Encoder().encode

Field = tuple[str, str]


class WholeResponse(Response):
    """A response that is complete when it is made: werkzeug adds nothing to it."""

    default_mimetype = None

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Send it, without its body if the request is a HEAD."""
        start_response(self.status, list(self.headers))
        return () if environ["REQUEST_METHOD"] == "HEAD" else self.response  # type: ignore[return-value]


class LazyResponse(WholeResponse):
    """A body, a status and header fields; the rest of a response is made when it is asked for."""

    is_whole = False

    def __init__(self, body: bytes, status: int, fields: list[Field]) -> None:
        self.parts = body, STATUS_LINES[status], fields

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Send it, without its body if the request is a HEAD."""
        if self.is_whole:
            return super().__call__(environ, start_response)
        body, status, fields = self.parts
        start_response(status, fields)
        return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)

    def __getattr__(self, name: str) -> Any:
        """Make the whole response, unless it is made already, and return one of its attributes."""
        if self.is_whole or name == "parts":
            raise AttributeError(name)
        self.is_whole = True
        body, status, fields = self.parts
        super().__init__(body or None, status, fields)
        return getattr(self, name)


def json_response(
    content: object, status: int = 200, headers: Iterable[Field] | dict[str, str] = ()
) -> LazyResponse:
    """Return `content` as compact JSON with a final newline."""
    body = as_json(content)
    fields = [*dict(headers).items(), ("Content-Type", JSON), ("Content-Length", str(len(body)))]
    return LazyResponse(body, status, fields)


def as_json(content: object) -> bytes:
    """Return `content` as compact JSON with a final newline."""
    return encode(content) + NEWLINE


def digests_response(digests: bytes) -> WholeResponse:
    """Return a line of JSON for each digest of 32 bytes; the lines are made as they are sent."""
    parts = (digests[start : start + PART] for start in range(0, len(digests), PART))
    headers = {"Content-Length": str(len(digests) // 32 * len(digest_lines(bytes(32))))}
    return WholeResponse(map(digest_lines, parts), 200, headers, content_type=NDJSON)


def digest_lines(digests: bytes) -> bytes:
    """Return `{"digest":"..."}` and a newline for each digest of 32 bytes."""
    between = '"}\n{"digest":"'
    return f'{{"digest":"{digests.hex("|", 32).replace("|", between)}"}}\n'.encode()


def caching(max_age: int) -> Field:
    """Return the header field that lets caches keep a message for `max_age` seconds.

    A browser that has an immutable answer does not ask again even if it is reloaded (RFC 8246).
    """
    return "Cache-Control", f"public, max-age={max_age}" + (", immutable" if max_age else "")


def cacheable(
    body: bytes, content_type: str, etag: str, fields: Sequence[Field] = ()
) -> LazyResponse:
    """Return a message that any cache may keep and any page may read; 304 if the client has it.

    A message never changes under its digest, so `etag` names one representation of it for good
    (RFC 9110, section 13.1.2).
    """
    kept = [
        *ANY_ORIGIN,
        *fields,
        ("ETag", f'"{etag}"'),
        current_application().config["CACHING"],
    ]
    given = current_environ().get("HTTP_IF_NONE_MATCH")
    if given and parse_etags(given).contains_weak(etag):
        return LazyResponse(b"", 304, kept)
    kept += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    return LazyResponse(body, 200, kept)
