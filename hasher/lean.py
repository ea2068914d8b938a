"""Flask without what a stateless service of JSON does not use.

Each part that is left out took microseconds of every request: sessions, the check whether a view is
asynchronous, and an address of the server that no answer contains.
"""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter

Environ = dict[str, Any]  # of WSGI (PEP 3333)


class NoSessions(SessionInterface):
    """One session for all requests, which nothing can be written to."""

    session = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002 - Flask's
        """The session that is none."""
        return self.session


class Answer(Response):
    """A response that is whole when it is made: werkzeug has nothing left to work out."""

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Send it, without its body where the request is a HEAD."""
        start_response(self.status, list(self.headers))
        return () if environ["REQUEST_METHOD"] == "HEAD" else self.response  # type: ignore[return-value]


class Lean(Flask):
    """The application."""

    response_class = Answer
    session_interface = NoSessions()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """`func` as it is: none is asynchronous."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """What matches the address of `request`; it builds none, and so needs no name of a host."""
        if request is None:
            return None
        return MapAdapter(
            self.url_map,
            server_name="",
            script_name="/",
            subdomain="",
            url_scheme="http",
            path_info=request.path,
            default_method=request.method,
        )

    def make_default_options_response(self) -> Response:
        """204, where Flask's own is an empty page of HTML."""
        response = super().make_default_options_response()
        response.status_code = 204
        del response.headers["Content-Type"], response.headers["Content-Length"]
        return response
