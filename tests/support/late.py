"""A stand-in for an instance, which answers when a test says so."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.description import Answers, Request

SIZE = 200_000  # more than nginx keeps in memory


class Undescribed(Answers):
    """Any answer."""

    def check(
        self, request: Request | None, status: int, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        """Accept it."""


class LateServer(ThreadingHTTPServer):
    """The stand-in. It has been `asked`; the test lets it send the `head`, and end the `body`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), LateHandler)
        self.asked, self.head, self.body = (threading.Event() for _ in range(3))


class LateHandler(BaseHTTPRequestHandler):
    """Answers as if the message were not yet taken down."""

    protocol_version = "HTTP/1.1"
    server: LateServer

    def do_GET(self) -> None:
        """Answer with a message that caches may keep. The second half of its body drips."""
        health = self.path == "/healthz"
        if not health:
            self.server.asked.set()
            self.server.head.wait(10)
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.send_header("Cache-Control", "max-age=31536000")
        self.end_headers()
        left = SIZE // 2
        self.wfile.write(b"x" * left)
        while not (health or self.server.body.wait(0.2)):
            self.wfile.write(b"x")
            left -= 1
        self.wfile.write(b"x" * left)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Be silent."""


@contextmanager
def late_instance() -> Iterator[LateServer]:
    """A stand-in that listens."""
    with LateServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
