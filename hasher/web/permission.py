"""Who may write: no page of another site and, if there are write tokens, who has one.

Reading needs none: to know a digest is the permission to read its message.
"""

from collections.abc import Collection
from hmac import compare_digest

from flask import abort
from werkzeug.datastructures import WWWAuthenticate

from hasher.telemetry.record import Environ


def require(environ: Environ, tokens: Collection[bytes]) -> None:
    """Abort unless the request in `environ` may write.

    403 for what a page of another origin makes a browser send. 401 if there are `tokens`, and the
    request has none of them as its bearer token (RFC 6750).
    """
    if is_cross_origin(environ):
        abort(403, "A page of another site cannot store messages here.")
    if tokens:
        require_one_of(tokens, bearer_token(environ))


def is_cross_origin(environ: Environ) -> bool:
    """Return whether a browser sends the request for a page of another origin.

    A text/plain POST needs no preflight. Browsers leave Sec-Fetch-Site out on plain http, except to
    localhost; Origin then decides. The Host that it is compared with has no scheme, so a page on
    http passes for its own host on https. (The algorithm is that of Go's
    http.CrossOriginProtection: https://pkg.go.dev/net/http#CrossOriginProtection.)
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site:
        return site not in {"same-origin", "none"}
    origin = environ.get("HTTP_ORIGIN")
    if not origin:
        return False  # the page's own request, or no browser's
    _, separator, host = origin.partition("://")  # "null" has no host
    return not separator or host != environ.get("HTTP_HOST")


def require_one_of(tokens: Collection[bytes], given: bytes | None) -> None:
    """Abort with 401 unless `given` is one of `tokens`."""
    if given is None:
        refuse("Storing a message needs a token: send it as Authorization: Bearer <token>.")
    # All are compared, so that the time does not tell which one is nearly right.
    elif not sum(compare_digest(given, token) for token in tokens):
        refuse("This token does not let you store messages.", ', error="invalid_token"')


def bearer_token(environ: Environ) -> bytes | None:
    """Return the token that the request carries, or None."""
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    token = token.strip()
    return token.encode() if token and scheme.lower() == "bearer" else None


def refuse(sentence: str, reason: str = "") -> None:
    """Abort with 401 and what is asked for instead (RFC 6750, section 3)."""
    # As a whole, since werkzeug would not quote the realm (RFC 9110, section 11.5).
    challenge = WWWAuthenticate("bearer", token=f'realm="hasher"{reason}')
    abort(401, sentence, www_authenticate=challenge)
