"""Refusals: answers to what is not HTTP, and to requests that the application failed to answer."""

import ssl
from typing import NamedTuple

from gunicorn.http import errors


class Refusal(NamedTuple):
    """An answer that the server gives without the application."""

    status: int
    reason: str
    sentence: str


class Busy(Exception):
    """Too many clients wait for a place, or one has waited for too long."""

    def __str__(self) -> str:
        return "too many wait for a thread"


class Late(Exception):
    """The rest of a body has not come in time."""

    def __str__(self) -> str:
        return "its body did not arrive in time"


class Cut(Exception):
    """A client has sent less than the whole body, and sends no more."""

    def __str__(self) -> str:
        return "the body ended before its Content-Length"


MALFORMED = Refusal(400, "Bad Request", "The request is not valid HTTP.")
CRASHED = Refusal(500, "Internal Server Error", "The service failed to answer; its log says why.")
REFUSALS: dict[type[BaseException], Refusal] = {
    Busy: Refusal(503, "Service Unavailable", "The service is busy; try again in a moment."),
    Late: Refusal(408, "Request Timeout", "The body did not arrive in time; send it again."),
    Cut: Refusal(400, "Bad Request", "The body ended before its Content-Length."),
    errors.LimitRequestLine: Refusal(414, "URI Too Long", "The address is too long."),
    errors.LimitRequestHeaders: Refusal(
        431, "Request Header Fields Too Large", "The headers are too large."
    ),
    errors.ExpectationFailed: Refusal(
        417, "Expectation Failed", "Expect can only be 100-continue."
    ),
    errors.UnsupportedTransferCoding: Refusal(
        501, "Not Implemented", "Transfer-Encoding can only be chunked."
    ),
    errors.ForbiddenProxyRequest: Refusal(403, "Forbidden", "This address may not be a proxy."),
    errors.ConfigurationProblem: Refusal(  # raised for a path outside of SCRIPT_NAME only
        404, "Not Found", "Nothing is served at this address."
    ),
    # The stubs are of gunicorn 26, which did not have these two.
    errors.InvalidResponseHeader: CRASHED,  # type: ignore[attr-defined]
    errors.InvalidResponseHeaderName: CRASHED,  # type: ignore[attr-defined]
}


def refusal_of(error: BaseException) -> Refusal:
    """Return the answer to an exception of gunicorn's parser or of the application."""
    for kind, refusal in REFUSALS.items():
        if isinstance(error, kind):
            return refusal
    return MALFORMED if isinstance(error, (errors.ParseException, ssl.SSLError)) else CRASHED


def whole_response(refusal: Refusal, headers: list[tuple[str, str]], body: bytes) -> bytes:
    """Return an HTTP response that closes its connection."""
    lines = [
        f"HTTP/1.1 {refusal.status} {refusal.reason}",
        "Connection: close",
        *[f"{name}: {value}" for name, value in headers],
        f"Content-Length: {len(body)}",
        "\r\n",
    ]
    return "\r\n".join(lines).encode("latin-1") + body
