"""The page for people, the API's description (OpenAPI), and the reference made from it."""

from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, current_app, render_template

from hasher.page.description import described, resolved
from hasher.web.responses import json_response

page = Blueprint("page", __name__, template_folder="templates")

ASSETS = {
    "icon.svg": "image/svg+xml",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
CONTENTS = {name: (files(__package__) / name).read_bytes() for name in ASSETS}

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",  # a digest is the permission to read
}


@page.get("/", strict_slashes=False)  # no redirect from the empty path of `GET http://host`
def index() -> Response:
    """Answer the page on which a person stores and reads messages."""
    html = render_template("index.html", limit=current_app.config["MAX_MESSAGE_BYTES"])
    return own(html, "text/html; charset=utf-8")


@page.get("/docs")
def docs() -> Response:
    """Answer the API's reference, made from the description."""
    description = own_description()
    html = render_template("docs.html", api=resolved(description, description))
    return own(html, "text/html; charset=utf-8")


@page.get("/openapi.json")
def openapi() -> Response:
    """Answer the API's description, for programs."""
    return json_response(own_description(), headers=HEADERS)


@page.get(f"/page/<any({', '.join(map(repr, ASSETS))}):name>")
def asset(name: str) -> Response:
    """Answer the stylesheet, the script or the icon of the pages."""
    return own(CONTENTS[name], ASSETS[name])


def own(body: str | bytes, content_type: str) -> Response:
    """Return one of the service's own files, which may load nothing from another origin."""
    return Response(body, headers=HEADERS, content_type=content_type)


def own_description() -> dict[str, Any]:
    """Return the description of this service, with its limits."""
    names = ("MAX_MESSAGE_BYTES", "MAX_BULK_BYTES", "MAX_BULK_MESSAGES")
    return described(**{name.lower(): current_app.config[name] for name in names})
