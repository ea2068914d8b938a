"""What every answer has, an error too: no sniffing, and no body left on the connection."""

from collections.abc import Iterable
from typing import Any

from hasher.telemetry.record import Environ, WSGIApplication, current


class Hardened:
    """A WSGI application, whose answers forbid sniffing and leave no body unread.

    An answer that comes before the body was read closes the connection (RFC 9112, section 9.6):
    reading what is left would let a client hold the thread with what was refused already.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request."""

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers.append(("X-Content-Type-Options", "nosniff"))
            if has_body(environ) and not current().body_read:
                headers.append(("Connection", "close"))
            return start_response(status, headers, exc_info)

        return self._application(environ, start)


def has_body(environ: Environ) -> bool:
    """Return whether a body comes with the request (RFC 9112, section 6.3)."""
    length = environ.get("CONTENT_LENGTH") or "0"
    return length != "0" or "HTTP_TRANSFER_ENCODING" in environ
