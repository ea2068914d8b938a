"""Who may write: no page of another site and, where there are write tokens, who has one.

Reading needs none: to know a digest is the permission to read its message.
"""

from collections.abc import Collection
from hmac import compare_digest

from flask import abort
from werkzeug.datastructures import Authorization, WWWAuthenticate

from hasher.telemetry.record import Environ


def require(environ: Environ, tokens: Collection[bytes]) -> None:
    """Abort unless the request in `environ` may write.

    403 for what another site's page makes a browser send: text/plain needs no preflight. 401 where
    there are `tokens`, and the request has none of them as its bearer token (RFC 6750).
    """
    if environ.get("HTTP_SEC_FETCH_SITE") == "cross-site":
        abort(403, "A page of another site cannot store messages here.")
    if tokens:
        require_one_of(tokens, bearer_token(environ))


def require_one_of(tokens: Collection[bytes], given: bytes | None) -> None:
    """Abort with 401 unless `given` is one of `tokens`."""
    if given is None:
        refuse("Storing a message needs a token: send it as Authorization: Bearer <token>.")
    # All are compared, so that the time does not tell which one is nearly right.
    elif not sum(compare_digest(given, token) for token in tokens):
        refuse("This token does not let you store messages.", ', error="invalid_token"')


def bearer_token(environ: Environ) -> bytes | None:
    """The token that the request carries, if it carries one."""
    authorization = Authorization.from_header(environ.get("HTTP_AUTHORIZATION"))
    if authorization is None or authorization.type != "bearer" or not authorization.token:
        return None
    return authorization.token.encode()


def refuse(sentence: str, reason: str = "") -> None:
    """Abort with 401 and what is asked for instead (RFC 6750, section 3)."""
    # As a whole, since werkzeug would not quote the realm (RFC 9110, section 11.5).
    challenge = WWWAuthenticate("bearer", token=f'realm="hasher"{reason}')
    abort(401, sentence, www_authenticate=challenge)
