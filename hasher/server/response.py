"""How an answer goes out: whole, in one packet where it fits."""

from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from time import time
from typing import Any

from gunicorn.http.wsgi import Response


class WholeResponse(Response):
    """gunicorn's response, whose head is sent with the first of its body.

    gunicorn sends the head by itself. Of a worker that is killed between the two, nginx would have
    a head, and could not ask another instance any more.
    """

    head = b""

    def send(self, body: Iterable[bytes]) -> None:
        """Send what the application has returned."""
        try:
            for part in body:
                self.write(part)
            self.close()
        finally:
            if hasattr(body, "close"):
                body.close()

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        """As gunicorn's, which would drop the application's own `Connection: close`."""
        if ("Connection", "close") in headers:
            self.req.force_close()
        return super().start_response(status, headers, exc_info)

    def is_chunked(self) -> bool:
        """Never: hasher says how long each body is. Else its end would be the connection's."""
        return False

    def send_headers(self) -> None:
        """Make the head, which waits for the first of the body."""
        if self.headers_sent:
            return
        version = self.req.version or (1, 1)
        lines = [
            f"HTTP/{version[0]}.{version[1]} {self.status}",
            f"Server: {self.version}",
            f"Date: {http_date(int(time()))}",
            f"Connection: {'close' if self.should_close() else 'keep-alive'}",
            *[f"{name}: {value}" for name, value in self.headers],
            "\r\n",
        ]
        self.head = "\r\n".join(lines).encode("latin-1")
        self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        self.sock.sendall(self.head + data)
        self.head = b""

    def close(self) -> None:
        """Send the head where nothing has followed it."""
        super().close()
        if self.head:
            self.sock.sendall(self.head)


@lru_cache(maxsize=2)
def http_date(second: int) -> str:
    """That second since 1970 as HTTP writes it (RFC 9110, section 5.6.7)."""
    return formatdate(second, usegmt=True)
