"""Who may write: no page of another origin and, if write tokens are set, only their holders.

Reading needs no token: a digest is the permission to read its message.
"""

from collections.abc import Collection
from hmac import compare_digest

from flask import abort
from werkzeug.datastructures import WWWAuthenticate

from hasher.telemetry.record import Environ


def require(environ: Environ, tokens: Collection[bytes]) -> None:
    """Abort unless the request in `environ` may write.

    403 if a browser sends it for a page of another origin. 401 if there are `tokens`, and its
    bearer token (RFC 6750) is not one of them.
    """
    if is_cross_origin(environ):
        abort(403, "A page of another site cannot store messages here.")
    if tokens:
        require_one_of(tokens, bearer_token(environ))


def is_cross_origin(environ: Environ) -> bool:
    """Return whether a browser sends the request for a page of another origin.

    A text/plain POST needs no preflight. On plain http, except to localhost, browsers leave out
    Sec-Fetch-Site; then Origin decides. It is compared with Host, which has no scheme, so a page
    on http may write to its own host on https. The algorithm is that of Go's
    http.CrossOriginProtection (https://pkg.go.dev/net/http#CrossOriginProtection).
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site:
        return site not in {"same-origin", "none"}
    origin = environ.get("HTTP_ORIGIN")
    if not origin:
        return False  # from the service's own page, or not from a browser
    _, separator, host = origin.partition("://")  # "null" has no host
    return not separator or host != environ.get("HTTP_HOST")


def require_one_of(tokens: Collection[bytes], given: bytes | None) -> None:
    """Abort with 401 unless `given` is one of `tokens`."""
    if given is None:
        refuse("Storing a message needs a token: send it as Authorization: Bearer <token>.")
    # Compare with all, so that the time does not tell which one is nearly right.
    elif not sum(compare_digest(given, token) for token in tokens):
        refuse("This token does not let you store messages.", ', error="invalid_token"')


def bearer_token(environ: Environ) -> bytes | None:
    """Return the token that the request carries, or None."""
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    token = token.strip()
    return token.encode() if token and scheme.lower() == "bearer" else None


def refuse(sentence: str, reason: str = "") -> None:
    """Abort with 401 and a challenge for a bearer token (RFC 6750, section 3)."""
    # Given as a whole, since werkzeug would not quote the realm (RFC 9110, section 11.5).
    challenge = WWWAuthenticate("bearer", token=f'realm="hasher"{reason}')
    abort(401, sentence, www_authenticate=challenge)
