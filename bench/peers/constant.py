"""No framework, no route, no store: the most that the server lets any application answer."""

from collections.abc import Iterable
from typing import Any

BODY = b'{"message":"foo"}\n'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The same answer to every request, whose body is read."""
    environ["wsgi.input"].read()
    start_response("200 OK", HEADERS)
    return [BODY]
