"""Responses out: JSON, lines of JSON, and messages that any cache may keep."""

from collections.abc import Iterable, Mapping

import msgspec
from flask import request
from werkzeug.http import parse_etags

from hasher.web.application import WholeResponse

NEWLINE = b"\n"  # a body ends its line, so that curl leaves the prompt where it belongs

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
NDJSON = "application/x-ndjson"
NO_STORE = {"Cache-Control": "no-store"}  # for what may be otherwise in a second


def json_response(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> WholeResponse:
    """Return `content` as compact JSON with a final newline."""
    return WholeResponse(as_json(content), status, headers, content_type=JSON)


def as_json(content: object) -> bytes:
    """Return `content` as compact JSON with a final newline."""
    return msgspec.json.encode(content) + NEWLINE


def digests_response(digests: Iterable[str]) -> WholeResponse:
    """Return a line of JSON for each digest."""
    body = "".join([f'{{"digest":"{digest}"}}\n' for digest in digests])
    return WholeResponse(body, content_type=NDJSON)


def cacheable(body: bytes, content_type: str, etag: str, **headers: str) -> WholeResponse:
    """Return a message for any cache, for ever; 304 if the client has it (RFC 9110, 13.1.2).

    A message never changes under its digest, so `etag` names one representation of it for good.
    """
    headers = {
        **headers,
        "ETag": f'"{etag}"',
        "Cache-Control": "public, max-age=31536000, immutable",
    }
    given = request.environ.get("HTTP_IF_NONE_MATCH")
    if given and parse_etags(given).contains_weak(etag):
        response = WholeResponse(b"", 304, headers)
        del response.headers["Content-Type"], response.headers["Content-Length"]
        return response
    return WholeResponse(body, 200, headers, content_type=content_type)
