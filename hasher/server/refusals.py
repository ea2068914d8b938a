"""What the server answers by itself to what is not HTTP: in the shape of hasher.errors."""

import ssl

import msgspec
from gunicorn.http import errors

MALFORMED = (400, "Bad Request", "The request is not valid HTTP.")
CRASHED = (500, "Internal Server Error", "The service failed to answer; its log says why.")
REFUSED: dict[type[BaseException], tuple[int, str, str]] = {
    errors.LimitRequestLine: (414, "URI Too Long", "The address is too long."),
    errors.LimitRequestHeaders: (
        431,
        "Request Header Fields Too Large",
        "The headers are too large.",
    ),
    errors.ExpectationFailed: (417, "Expectation Failed", "Expect can only be 100-continue."),
    errors.UnsupportedTransferCoding: (
        501,
        "Not Implemented",
        "Transfer-Encoding can only be chunked.",
    ),
    errors.ConfigurationProblem: CRASHED,
    # The stubs are of gunicorn 26, which did not have these two.
    errors.InvalidResponseHeader: CRASHED,  # type: ignore[attr-defined]
    errors.InvalidResponseHeaderName: CRASHED,  # type: ignore[attr-defined]
}


def refusal(exc: BaseException) -> tuple[int, str, str]:
    """The status, reason phrase and sentence for what the HTTP parser or the application raised."""
    for kind, answer in REFUSED.items():
        if isinstance(exc, kind):
            return answer
    return MALFORMED if isinstance(exc, (errors.ParseException, ssl.SSLError)) else CRASHED


def error_response(status: int, reason: str, sentence: str, name: str) -> bytes:
    """A whole HTTP response, in the shape of hasher.errors, that closes the connection.

    `name` is the request's id.
    """
    body = msgspec.json.encode({"error": sentence}) + b"\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        f"X-Request-ID: {name}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
