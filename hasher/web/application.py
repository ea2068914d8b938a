"""Flask without what a stateless service of JSON does not use.

Each part that is left out took microseconds of every request: sessions, the check whether a view is
asynchronous, and an address of the server that no answer contains. What most requests need is a
short way through the rest (hasher/web/short_way.py).
"""

from collections.abc import Callable
from typing import Any

from flask import Request, Response
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter, MapAdapter

from hasher.web.responses import WholeResponse
from hasher.web.short_way import ShortWay


class DigestConverter(BaseConverter):
    """`<digest:digest>` in a rule: a well-formed digest. Nothing else reaches a store."""

    regex = "[0-9a-f]{64}"


class Application(ShortWay):
    """The Flask application."""

    response_class = WholeResponse

    def __init__(self, import_name: str) -> None:
        super().__init__(import_name, static_folder=None)
        self.url_map.converters["digest"] = DigestConverter
        self.url_map.merge_slashes = False  # "/messages//x" is a 404: a redirect is an HTML page

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return `func`: no view is asynchronous."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return the adapter that matches the path of `request`; it builds no URLs.

        No rule matches a path that starts with `//`: werkzeug would match it as if it had one `/`.
        """
        if request is None:
            return None
        if request.environ["PATH_INFO"].startswith("//"):
            raise NotFound
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
        response.headers["Allow"] = ", ".join(sorted(response.allow))
        return response
