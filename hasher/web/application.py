"""Flask without what a stateless service of JSON does not use.

Each part that is left out took microseconds of every request: sessions, the check whether a view is
asynchronous, and an address of the server that no answer contains.
"""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import BaseConverter, MapAdapter

from hasher.telemetry.record import Environ


class DigestConverter(BaseConverter):
    """`<digest:digest>` in a rule: a well-formed digest. Nothing else reaches a store."""

    regex = "[0-9a-f]{64}"


class NoSessions(SessionInterface):
    """One session for all requests, which nothing can be written to."""

    session = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002 - Flask's
        """Return the null session that all requests share."""
        return self.session


class WholeResponse(Response):
    """A response that is complete when it is made: werkzeug has nothing left to work out."""

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Send it, without its body if the request is a HEAD."""
        start_response(self.status, list(self.headers))
        return () if environ["REQUEST_METHOD"] == "HEAD" else self.response  # type: ignore[return-value]


class Application(Flask):
    """The Flask application."""

    response_class = WholeResponse
    session_interface = NoSessions()

    def __init__(self, import_name: str) -> None:
        super().__init__(import_name, static_folder=None)
        self.url_map.converters["digest"] = DigestConverter
        self.url_map.merge_slashes = False  # "/messages//x" is a 404: a redirect is an HTML page

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return `func`: no view is asynchronous."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what matches the path of `request`; it builds no URL, and needs no host name."""
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
        """Return 204; Flask's own is an empty page of HTML."""
        response = super().make_default_options_response()
        response.status_code = 204
        del response.headers["Content-Type"], response.headers["Content-Length"]
        return response
