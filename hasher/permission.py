"""Who may write: no page of another site and, where there are write tokens, who has one.

Reading needs none: to know a digest is the permission to read its message.
"""

from hmac import compare_digest

from flask import abort, current_app, request
from werkzeug.datastructures import WWWAuthenticate


def refuse_cross_site() -> None:
    """403 for what another site's page makes a browser write: text/plain needs no preflight."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") == "cross-site":
        abort(403, "A page of another site cannot store messages here.")


def require_token() -> None:
    """401 for a write without one of the write tokens as its bearer token (RFC 6750)."""
    tokens = current_app.config["WRITE_TOKENS"]
    if request.method != "POST" or not tokens:
        return
    given = bearer_token()
    if given is None:
        refuse("Storing a message needs a token: send it as Authorization: Bearer <token>.")
    # All are compared, so that the time does not tell which one is nearly right.
    if not sum(compare_digest(given, token) for token in tokens):
        refuse("This token does not let you store messages.", ', error="invalid_token"')


def bearer_token() -> bytes | None:
    """The token that the request carries, if it carries one."""
    authorization = request.authorization
    if authorization is None or authorization.type != "bearer" or not authorization.token:
        return None
    return authorization.token.encode()


def refuse(sentence: str, reason: str = "") -> None:
    """Abort with 401 and what is asked for instead (RFC 6750, section 3)."""
    # As a whole, since werkzeug would not quote the realm (RFC 9110, section 11.5).
    abort(
        401, sentence, www_authenticate=WWWAuthenticate("bearer", token=f'realm="hasher"{reason}')
    )
