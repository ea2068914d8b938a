"""gunicorn's threaded worker, with the ways closed in which one client holds up all the others.

Written against gunicorn 27; each override says which trap it closes.
"""

import gc
import logging
import socket
import struct
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from threading import BoundedSemaphore
from time import monotonic
from typing import Any

import msgspec
from gunicorn.http import errors
from gunicorn.http.message import Request
from gunicorn.workers.gthread import TConn, ThreadWorker

from hasher.health import DRAINING
from hasher.observe import request_id
from hasher.server.draining import begun

STALL = 5  # seconds for which a client may neither send nor take a byte before it is cut
GARBAGE = 50_000  # objects that are made before cycles among them are looked for
LINGER = 1.0  # seconds that a client has to stop sending what was refused

MALFORMED = (400, "Bad Request", "The request is not valid HTTP.")
CRASHED = (500, "Internal Server Error", "The service failed to answer; its log says why.")
REFUSED: dict[type[BaseException], tuple[int, str, str]] = {
    errors.LimitRequestLine: (414, "URI Too Long", "The address is too long."),
    errors.LimitRequestHeaders: (
        431,
        "Request Header Fields Too Large",
        "The headers are too large.",
    ),
    errors.ExpectationFailed: (417, "Expectation Failed", "Expect can only be 100-continue."),
    errors.UnsupportedTransferCoding: (
        501,
        "Not Implemented",
        "Transfer-Encoding can only be chunked.",
    ),
    errors.ConfigurationProblem: CRASHED,
    # The stubs are of gunicorn 26, which did not have these two.
    errors.InvalidResponseHeader: CRASHED,  # type: ignore[attr-defined]
    errors.InvalidResponseHeaderName: CRASHED,  # type: ignore[attr-defined]
}

Environ = MutableMapping[str, Any]
WSGIApplication = Callable[[Environ, Any], Iterable[bytes]]


class Worker(ThreadWorker):
    """A gthread worker on which a client that stalls, or does not hang up, delays nobody."""

    def init_process(self) -> None:
        """Cut stalled clients: gthread's own time-outs end with a connection's first byte."""
        self.lingerers = BoundedSemaphore(max(1, self.cfg.threads // 4))
        for listener in self.sockets:
            cut_stalled_clients(listener)
        logging.getLogger("gunicorn.error").addFilter(stalls_in_one_line)
        super().init_process()

    def load_wsgi(self) -> None:
        """Tell the application what gunicorn does not, and do what gunicorn does not let it."""
        super().load_wsgi()
        self.wsgi = attended(self.wsgi)
        # What is loaded by now stays; and requests leave no cycles to be looked for often.
        gc.freeze()
        gc.set_threshold(GARBAGE)

    def enqueue_req(self, conn: TConn) -> None:
        """Wait for a connection's first byte in the poller; gunicorn waits for 5 s in a thread."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.settimeout(0)
        conn.timeout = monotonic() + STALL
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, EVENT_READ, readable)

    def murder_keepalived(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's
        """Close the connections idle for the longest where others would not be let in."""
        super().murder_keepalived(force)  # type: ignore[call-arg]
        while self.nr_conns >= self.worker_connections:
            if not (idle := self.keepalived_conns or self.pending_conns):
                return
            conn = idle.popleft()
            self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            conn.close()

    def handle(self, conn: TConn) -> bool:
        """Answer one request; end its connection here, where that it is over is known.

        gunicorn ends it in the main loop, and there waits up to 2 s for the client to hang up:
        six clients that do not would keep everybody else waiting for 12 s.
        """
        reuse = super().handle(conn)
        if reuse is False:
            if was_left_unread(conn):
                self.linger(conn.sock)
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RDWR)
        return reuse

    def handle_error(
        self,
        req: Request | None,  # noqa: ARG002 - gunicorn passes it
        client: socket.socket,
        addr: Any,
        exc: BaseException,
    ) -> None:
        """Refuse what is not HTTP as the application would: JSON, and no echo of what was sent."""
        status, reason, sentence = refusal(exc)
        name, peer = request_id(), addr[0] if addr else "?"
        if status == 500:
            self.log.error("Request %s could not be handled.", name, exc_info=exc)
        else:
            self.log.warning("Refused request %s from %s: %s", name, peer, exc)
        with suppress(OSError):
            client.sendall(error_response(status, reason, sentence, name))
            self.linger(client)

    def linger(self, client: socket.socket) -> None:
        """Discard what `client` still sends; in a few threads at once, so that others answer."""
        if self.lingerers.acquire(blocking=False):
            try:
                discard(client)
            finally:
                self.lingerers.release()


def cut_stalled_clients(listener: socket.socket) -> None:
    """Give the connections that `listener` accepts time-outs of the kernel's.

    Accepted sockets inherit SO_RCVTIMEO and SO_SNDTIMEO on Linux (socket(7)).
    """
    timeval = struct.pack("ll", STALL, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def stalls_in_one_line(record: logging.LogRecord) -> bool:
    """A log filter: that a client stalled is a line, where gunicorn logs a traceback."""
    if record.exc_info and isinstance(record.exc_info[1], BlockingIOError):
        record.msg, record.args = "Cut a client that stalled for %d s.", (STALL,)
        record.exc_info = None
    return True


class HeadWithBody:
    """Stands in for the socket of one response, and sends its head with the first of its body.

    gunicorn sends the head by itself. Of a worker that is killed between the two, nginx would have
    a head, and could not ask another instance any more.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._head: bytes | None = None

    def sendall(self, data: bytes) -> None:
        """Send `data`, or keep it, if it is the head."""
        if self._head is None:
            self._head = data
        else:
            self._sock.sendall(self._head + data)
            self._head = b""


def attended(application: WSGIApplication) -> WSGIApplication:
    """`application`, who knows when the service drains, can close a connection, and is sent whole.

    gunicorn drops the application's own header `Connection: close`.
    """

    def wsgi(environ: Environ, start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            response = start_response.__self__
            if ("Connection", "close") in headers:
                response.req.force_close()
            if environ["REQUEST_METHOD"] != "HEAD" and int(dict(headers).get("Content-Length", 0)):
                response.sock = HeadWithBody(response.sock)
            return start_response(status, headers, exc_info)

        environ[DRAINING] = begun[0]
        return application(environ, start)

    return wsgi


def was_left_unread(conn: TConn) -> bool:
    """Whether the application closed the connection rather than read the whole body."""
    request = getattr(conn.parser, "mesg", None)  # no parser yet where the first byte never came
    return request is not None and request.must_close


def discard(client: socket.socket) -> None:
    """Read what `client` still sends, for LINGER seconds (RFC 9112, section 9.6).

    Closing over unread bytes makes the kernel send a reset, which can overtake the answer.
    """
    deadline = monotonic() + LINGER
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        while (left := deadline - monotonic()) > 0:
            client.settimeout(left)
            if not client.recv(65536):
                return


def refusal(exc: BaseException) -> tuple[int, str, str]:
    """The status, reason phrase and sentence for what the HTTP parser or the application raised."""
    for kind, answer in REFUSED.items():
        if isinstance(exc, kind):
            return answer
    return MALFORMED if isinstance(exc, errors.ParseException) else CRASHED


def error_response(status: int, reason: str, sentence: str, name: str) -> bytes:
    """A whole HTTP response, in the shape of hasher.errors, that closes the connection.

    `name` is the request's id.
    """
    body = msgspec.json.encode({"error": sentence}) + b"\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        f"X-Request-ID: {name}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
